"""Two-level problems on tabular MDPs with softmax policies, as `gm_estimators.decompose` asks for them.

The policy's part of the chain rule in `gm_estimators.surrogates` is cheap here: with c = s·A + a, ∇ log π(a|s) only
touches row s, so that a sample enters a gradient through Σ_t w_t [c_t = c], one number per (s, a), and a Hessian-vector
product through one more.
"""

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
from gm_estimators.surrogates import LogProbDerivatives, discounted_return

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
    """Trajectories of a tabular problem, with a critic; `build` and `learn` make those without, and with a learnt one.

    `cell` and `place` are the indices of (batch element, s_t, a_t) in the flattened parameters and of (batch element,
    s_t) in the flattened states; the critic has its dependence on φ if it has one.
    """

    cell: Int[Tensor, "*batch trajectory time"]
    place: Int[Tensor, "*batch trajectory time_plus_1"]
    critic: Float[Tensor, "*batch state"]
    with_critic: Trajectories
    build: Callable[[], Trajectories]
    learn: Callable[[Tensor, Trajectories], Trajectories]

    def trajectories(self, critic: bool | Literal["learnt"]) -> Trajectories:
        """What an estimator reads, with or without a critic or with one learnt from the same trajectories."""
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
        return replace(
            self, cell=self.cell[..., rows, :], place=self.place[..., rows, :],
            with_critic=_selected(self.with_critic, rows), build=lambda: _selected(self._without_critic, rows),
        )  # fmt: skip


def _selected(trajectories: Trajectories, rows: Rows) -> Trajectories:
    columns = (trajectories.log_prob, trajectories.reward, trajectories.value, trajectories.advantage)
    log_prob, reward, value, advantage = (x[..., rows, :] for x in columns)
    return Trajectories(log_prob, reward, value, advantage, trajectories.discount)


class TabularProblem:
    """MAML on tabular MDPs: φ = θ⁰, one objective inside and outside (paper, Section 5.1).

    The exact objectives and the critics have a horizon, infinite if `None`. The estimators that the `paper` says, `all`
    or `none` get the critic; those that learn one from their sample have that with the first two, a constant in φ.
    """

    meta_is_params = True

    def __init__(
        self, mdp: gm_exact.TabularMDP, params: Float[Tensor, "*batch state action"], numbers: Numbers, *,
        horizon: int | None = None, gae_lambda: float = 1.0, critic_for: str = "paper",
    ) -> None:  # fmt: skip
        self.mdp, self.params, self.numbers, self.horizon = mdp, params, numbers, horizon
        self.gae_lambda, self._critic_for = gae_lambda, critic_for

    def with_numbers(self, numbers: Numbers) -> "TabularProblem":
        """The same problem on other random numbers."""
        other = copy.copy(self)
        other.numbers = numbers
        return other

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
        """For each `{role: [part, trajectory]}` the problem with these parts of its samples along a new first axis."""
        start: dict[str, tuple[Tensor, Tensor]] = {}
        total = {role: 1 + max(int(some[role].max()) for some in rows) for role in rows[0]}
        parts = []
        for some in rows:
            part = copy.copy(self)
            part.params = self.params.expand(len(some["inner"]), *self.params.shape)
            part.numbers = _PartNumbers(self.numbers, some, total, start)
            parts.append(part)
        return parts


class SoftmaxObjective:
    """An objective estimated from a sample of a tabular softmax policy θ, by a surrogate's log-prob derivatives.

    With W_c = (1/n) Σ_t w_t [c_t = c], ṽ = v − Σ_b π_b v_b and U_c the same sum of (F d)_t, d_t = ṽ_{c_t}:

        ∇J = W − π Σ_b W_b,   ∇²J v = U − π Σ_b U_b − (Σ_b W_b) π ṽ

    For diagonal F, U_c is ṽ_c times the sum of F_tt: the trajectories are read once for all vectors. `mixed` is `None`
    if J does not depend on φ directly, or φ = θ.
    """

    meta_gradient = None

    def __init__(
        self, policy: Float[Tensor, "*batch state action"], cell: Int[Tensor, "*batch trajectory time"],
        derivatives: LogProbDerivatives, trajectories: Trajectories, mixed: Mixed | None = None,
    ) -> None:  # fmt: skip
        self._policy, self._mixed, self._like, self._cell = policy, mixed, cell, flat(cell)
        self._derivatives, self._trajectories = derivatives, trajectories
        self._weight = self._table(derivatives.first)

    @cached_property
    def value(self) -> Float[Tensor, "*batch"]:
        """J: the mean return, bootstrapped if there is a critic."""
        return discounted_return(self._trajectories).mean(-1)

    @cached_property
    def gradient(self) -> Float[Tensor, "*batch state action"]:
        """∇J."""
        return self._tangent(self._weight)

    def vjp(
        self, cotangent: Float[Tensor, "*extra state action"]
    ) -> tuple[Float[Tensor, "*extra state action"], Float[Tensor, "*extra state action"] | None]:
        """(∇²J v, ∇φ ⟨∇J, v⟩) for every v along the extra leading axis."""
        centred = cotangent - (self._policy * cotangent).sum(-1, keepdim=True)
        product = self._derivatives.product
        if self._derivatives.diagonal is not None:
            curvature = self._diagonal * centred
        else:
            assert product is not None  # set whenever `diagonal` is not
            curvature = torch.stack([self._table(product(self._score(vector))) for vector in centred])
        hessian_term = self._tangent(curvature) - self._weight.sum(-1, keepdim=True) * self._policy * centred
        if self._mixed is None:
            return hessian_term, None
        return hessian_term, torch.stack([self._mixed(self._score(vector)) for vector in centred])

    @cached_property
    def _diagonal(self) -> Tensor:
        diagonal = self._derivatives.diagonal
        return self._weight if diagonal is self._derivatives.first or diagonal is None else self._table(diagonal)

    def _score(self, centred: Tensor) -> Tensor:
        """d_t = ∇ log π(a_t|s_t)ᵀ v."""
        return unflat(centred.reshape(-1).index_select(0, self._cell), self._like)

    def _table(self, weights: Tensor) -> Tensor:
        """(1/n) Σ over the trajectories' steps at each (s, a)."""
        return scattered(flat(weights), self._cell, self._policy) / self._like.shape[-2]

    def _tangent(self, table: Tensor) -> Tensor:
        return table - self._policy * table.sum(-1, keepdim=True)


def scattered(weights: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Adds weights up at their places in a table of the shape and type of another."""
    table = torch.zeros(like.numel(), dtype=like.dtype, device=like.device)
    return table.scatter_add_(0, index, weights.to(table.dtype)).reshape(like.shape)


def flat(x: Tensor) -> Tensor:
    """Joins all axes, time first: no copy if the trajectories are stored so, as rollouts are."""
    return x.movedim((-1, -2), (0, 1)).reshape(-1)


def unflat(entries: Tensor, like: Tensor) -> Tensor:
    """Undoes `flat`, in the shape of another tensor."""
    return entries.reshape(like.movedim((-1, -2), (0, 1)).shape).movedim((0, 1), (-1, -2))


def look_up(table: Tensor, cell: Tensor) -> Tensor:
    """Returns the entries of a flat table at the places of every step."""
    return unflat(table.index_select(0, flat(cell)), cell)


class TabularPoint:
    """One θ of a tabular problem; its policy is evaluated once for all roles that share an MDP."""

    def __init__(self, problem: TabularProblem, params: Tensor) -> None:
        self._problem, self._params = problem, params

    @cached_property
    def _policy(self) -> Tensor:
        return self._params.softmax(-1)

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


@dataclass(frozen=True)
class _PartNumbers:
    """The random numbers of parts of samples, along a new first axis."""

    whole: Numbers
    rows: Mapping[Role, Tensor]  # role ↦ [part, trajectory]
    total: Mapping[Role, int]
    start: dict[str, tuple[Tensor, Tensor]]  # what was drawn at θ⁰ so far, for all parts

    def rollout(self, role: Any, step: int, policy: Tensor, _rows: Rows) -> tuple[Tensor, Tensor]:
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
        return self.whole.critic_error(role, step, value)
