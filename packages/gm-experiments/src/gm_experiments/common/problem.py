"""Two-level problems on tabular MDPs with softmax policies, as `gm_estimators.decompose` asks for them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

import gm_exact
from gm_estimators import Estimator, Trajectories
from gm_estimators.critics import learnt_values
from gm_estimators.decomposition import ExactObjective, Objective, Role, Rows
from gm_estimators.returns import discounts, gae
from gm_estimators.surrogates import LogProbDerivatives
from gm_experiments.common.softmax import SoftmaxObjective, look_up

Mixed = Callable[[Tensor], Tensor]
"""A score d ↦ ∇φ ⟨w, d⟩ averaged over trajectories."""


@runtime_checkable
class Numbers(Protocol):
    """The random numbers of every role and step: the same for whoever asks."""

    def rollout(self, role: str, step: int, policy: Tensor, rows: Rows, /) -> tuple[Tensor, Tensor]:
        """Returns states `[*batch, n, T + 1]` and actions `[*batch, n, T]` of the trajectories of those numbers."""

    def critic_error(self, role: str, step: int, value: Tensor, /) -> Tensor:
        """Returns what a critic is off by, of the shape of V, `[*batch, state]`."""


@dataclass(frozen=True)
class TabularSample:
    """Trajectories of a tabular problem, with and without a critic.

    Attributes:
        cell: index of (batch element, s_t, a_t) in the flattened parameters, shape `[*batch, n, T]`.
        place: index of (batch element, s_t) in the flattened states, shape `[*batch, n, T + 1]`.
        critic: V of every state, shape `[*batch, state]`, with its dependence on φ if it has one.
        with_critic: what an estimator with a critic reads.
        build: makes the same without a critic, for the whole sample; called once if ever.
        learn: makes the same with a critic that these trajectories teach, from the states and what is to be replaced.
    """

    cell: Int[Tensor, "*batch trajectory time"]
    place: Int[Tensor, "*batch trajectory time_plus_1"]
    critic: Float[Tensor, "*batch state"]
    with_critic: Trajectories
    build: Callable[[], Trajectories]
    learn: Callable[[Tensor, Trajectories], Trajectories]

    def trajectories(self, critic: bool | Literal["learnt"]) -> Trajectories:
        """Returns what an estimator reads, with or without a critic or with one learnt from the same trajectories."""
        if critic == "learnt":
            return self._with_learnt_critic
        return self.with_critic if critic else self._without_critic

    @cached_property
    def _with_learnt_critic(self) -> Trajectories:
        return self.learn(self.place, self.with_critic)

    @cached_property
    def _without_critic(self) -> Trajectories:
        return self.build()

    def select(self, rows: Rows) -> "TabularSample":
        """Returns the trajectories of those numbers."""
        if isinstance(rows, slice) and rows == slice(self.cell.shape[-2]):
            return self
        return TabularSample(
            self.cell[..., rows, :],
            self.place[..., rows, :],
            self.critic,
            _selected(self.with_critic, rows),
            lambda: _selected(self._without_critic, rows),
            self.learn,
        )


def _selected(trajectories: Trajectories, rows: Rows) -> Trajectories:
    return Trajectories(
        trajectories.log_prob[..., rows, :],
        trajectories.reward[..., rows, :],
        trajectories.value[..., rows, :],
        trajectories.advantage[..., rows, :],
        trajectories.discount,
    )


class TabularProblem:
    """MAML on tabular MDPs: φ = θ⁰, one objective inside and outside (paper, Section 5.1).

    Args:
        mdp: the MDPs.
        params: θ⁰, shape `[*batch, state, action]`.
        numbers: what draws trajectories, and the critics' errors.
        horizon: T of the exact objectives and the critics; `None` for an infinite one.
        gae_lambda: λ of the advantages; 1 gives n-step returns to the horizon.
        critic_for: which estimators get the critic: as the `paper` says, `all`, or `none`; those that learn one from
            their sample have that with the first two, a constant in φ.
    """

    meta_is_params = True

    def __init__(
        self,
        mdp: gm_exact.TabularMDP,
        params: Float[Tensor, "*batch state action"],
        numbers: Numbers,
        *,
        horizon: int | None = None,
        gae_lambda: float = 1.0,
        critic_for: str = "paper",
    ) -> None:
        self.mdp, self.params, self.numbers, self.horizon = mdp, params, numbers, horizon
        self.gae_lambda, self._critic_for = gae_lambda, critic_for

    def at(self, params: Tensor) -> "TabularPoint":
        """Returns what there is at θ."""
        return TabularPoint(self, params)

    def reward(self, _role: Role) -> Tensor:
        """Returns r(s, a) of a role."""
        return self.mdp.reward

    def evaluate(self, _role: Role, params: Tensor) -> gm_exact.PolicyEvaluation:
        """Evaluates the policy θ in the MDP of a role."""
        return gm_exact.evaluate(self.mdp, params, self.horizon)

    def exact(self, _role: Role, evaluation: gm_exact.PolicyEvaluation) -> Objective:
        """Returns the exact objective of an evaluated policy."""
        return ExactObjective(evaluation)

    def critic(self, role: Role, step: int, _params: Tensor, evaluation: gm_exact.PolicyEvaluation) -> Tensor:
        """Returns the critic's V of the policy θ, with its dependence on φ if it has one."""
        return evaluation.state_values + self.numbers.critic_error(role, step, evaluation.state_values)

    def mixed(
        self, _role: Role, _sample: TabularSample, _derivatives: LogProbDerivatives, _critic: bool, _gae_lambda: float
    ) -> Mixed | None:
        """Returns the mixed derivative of a sample's objective; `None` where J does not depend on φ directly."""
        return None

    def critic_of(self, estimator: Estimator) -> bool | Literal["learnt"]:
        """Says whether an estimator gets the critic here, or one that it learns."""
        if self._critic_for == "none":
            return False
        return True if self._critic_for == "all" and estimator.critic != "learnt" else estimator.critic

    def parts(self, rows: Sequence[Mapping[Role, Tensor]]) -> "Sequence[TabularProblem] | None":
        """Returns the problem with parts of its samples along a new first axis, for each `{role: [part, trajectory]}`.

        At θ⁰ all parts read one set of trajectories, later each draws its own, on the random numbers of those numbers.
        """
        start: dict[str, tuple[Tensor, Tensor]] = {}
        total = {role: 1 + max(int(some[role].max()) for some in rows) for role in rows[0]}
        parts = []
        for some in rows:
            part = copy.copy(self)
            part.params = self.params.expand(len(some["inner"]), *self.params.shape)
            part.numbers = _PartNumbers(self.numbers, some, total, start)
            parts.append(part)
        return parts


class TabularPoint:
    """One θ of a tabular problem; its policy is evaluated once for all roles that share an MDP.

    Args:
        problem: the problem.
        params: θ.
    """

    def __init__(self, problem: TabularProblem, params: Tensor) -> None:
        self._problem, self._params = problem, params

    @cached_property
    def _log_policy(self) -> Tensor:
        return self._params.log_softmax(-1)

    @cached_property
    def _outside(self) -> gm_exact.PolicyEvaluation:
        return self._problem.evaluate("outer", self._params)

    @cached_property
    def _inside(self) -> gm_exact.PolicyEvaluation:
        return self._outside if self._problem.meta_is_params else self._problem.evaluate("inner", self._params)

    def _evaluation(self, role: Role) -> gm_exact.PolicyEvaluation:
        return self._outside if role == "outer" else self._inside

    def exact(self, role: Role) -> Objective:
        """Returns the exact objective of a role."""
        return self._problem.exact(role, self._evaluation(role))

    def draw(self, step: int, rows: Mapping[Role, Rows]) -> dict[Role, TabularSample]:
        """Draws trajectories that every estimator can read."""
        policy = self._log_policy.exp()
        return {role: self._drawn(role, step, policy, some) for role, some in rows.items()}

    def _drawn(self, role: Role, step: int, policy: Tensor, rows: Rows) -> TabularSample:
        problem = self._problem
        *batch, states, actions = self._params.shape
        state, action = problem.numbers.rollout(role, step, policy, rows)
        elements = policy.numel() // (states * actions)
        first = torch.arange(elements, device=policy.device).mul_(states).reshape(*batch, 1, 1)
        place = state + first
        cell = torch.add(action, place[..., :-1], alpha=actions)
        reward = look_up(problem.reward(role).expand(self._params.shape).reshape(-1), cell)
        log_prob = look_up(self._log_policy.reshape(-1), cell)
        gamma, gae_lambda = problem.mdp.discount, problem.gae_lambda
        discount = discounts(gamma, cell.shape[-1] + 1).to(policy)

        def read(value: Tensor) -> Trajectories:
            return Trajectories(log_prob, reward, value, gae(reward, value, gamma, gae_lambda), discount)

        def learn(where: Tensor, old: Trajectories) -> Trajectories:
            value = learnt_values(old.reward, where - first, gamma, states)
            return replace(old, value=value, advantage=gae(old.reward, value, gamma, gae_lambda))

        critic = problem.critic(role, step, self._params, self._evaluation(role)).expand(*batch, states)
        value = look_up(critic.detach().reshape(-1), place)
        return TabularSample(cell, place, critic, read(value), lambda: read(torch.zeros_like(value)), learn)

    def sampled(self, role: Role, estimator: Estimator, sample: TabularSample) -> SoftmaxObjective:
        """Returns the objective as the estimator sees it in the sample."""
        problem, critic = self._problem, self._problem.critic_of(estimator)
        trajectories, gae_lambda = sample.trajectories(critic), problem.gae_lambda
        if estimator.gae_lambda is not None:
            gae_lambda = estimator.gae_lambda
            advantage = gae(trajectories.reward, trajectories.value, problem.mdp.discount, gae_lambda)
            trajectories = replace(trajectories, advantage=advantage)
        derivatives = estimator.derivatives(trajectories)
        mixed = problem.mixed(role, sample, derivatives, critic is True, gae_lambda)
        return SoftmaxObjective(self._policy, sample.cell, derivatives, trajectories, mixed)

    @cached_property
    def _policy(self) -> Tensor:
        return self._params.softmax(-1)


@dataclass(frozen=True)
class _PartNumbers:
    """The random numbers of parts of samples, along a new first axis.

    Attributes:
        whole: those of the whole samples.
        rows: the trajectories of each part `[part, trajectory]`, for each role.
        total: how many trajectories there are.
        start: what was drawn at θ⁰ so far, for all parts.
    """

    whole: Numbers
    rows: Mapping[Role, Tensor]
    total: Mapping[Role, int]
    start: dict[str, tuple[Tensor, Tensor]]

    def rollout(self, role: Any, step: int, policy: Tensor, _rows: Rows) -> tuple[Tensor, Tensor]:
        """Returns the states and actions of all parts."""
        rows = self.rows[role]
        if step > 0:
            drawn = [self.whole.rollout(role, step, at, some) for at, some in zip(policy, rows, strict=True)]
            state, action = (torch.stack(each) for each in zip(*drawn, strict=True))
            return state, action
        if role not in self.start:
            self.start[role] = self.whole.rollout(role, step, policy[0], slice(self.total[role]))
        state, action = self.start[role]
        return state[..., rows, :].movedim(-3, 0), action[..., rows, :].movedim(-3, 0)

    def critic_error(self, role: str, step: int, value: Tensor) -> Tensor:
        """Returns what the critic is off by, on the same numbers for all parts."""
        return self.whole.critic_error(role, step, value)
