"""Two-level problems on tabular MDPs with softmax policies, for `decomposition`.

The policy's part of the chain rule in `derivatives` is cheap here: with c = s·A + a, ∇ log π(a|s) only touches row
s, so that a sample enters a gradient through Σ_t w_t [c_t = c], one number per (s, a), and a Hessian-vector product
through one more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gm_estimators.critics import learnt_values
from gm_estimators.estimator import Estimator
from gm_estimators.problem import Objective, Role
from gm_estimators.returns import discounts, gae, gae_adjoint
from gm_estimators.surrogates import LogProbDerivatives, Trajectories, discounted_return

Rows = slice | Tensor
"""The numbers of some trajectories."""


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

    def first(self, size: int) -> "TabularSample":
        """The first `size` trajectories."""
        return self if size == self.cell.shape[-2] else self._taken(slice(size))

    def select(self, numbers: Int[Tensor, "trajectory"]) -> "TabularSample":
        """The trajectories of those numbers."""
        return self._taken(numbers)

    def _taken(self, which: slice | Tensor) -> "TabularSample":
        return TabularSample(
            self.cell[..., which, :],
            self.place[..., which, :],
            self.critic,
            _taken(self.with_critic, which),
            lambda: _taken(self._without_critic, which),
            self.learn,
        )


def _taken(trajectories: Trajectories, which: slice | Tensor) -> Trajectories:
    return Trajectories(
        trajectories.log_prob[..., which, :],
        trajectories.reward[..., which, :],
        trajectories.value[..., which, :],
        trajectories.advantage[..., which, :],
        trajectories.discount,
    )


class SoftmaxObjective:
    """An objective estimated from a sample of a tabular softmax policy θ, by a surrogate's log-prob derivatives.

    With W_c = (1/n) Σ_t w_t [c_t = c], ṽ = v − Σ_b π_b v_b and U_c the same sum of (F d)_t, d_t = ṽ_{c_t}:

        ∇J = W − π Σ_b W_b,   ∇²J v = U − π Σ_b U_b − (Σ_b W_b) π ṽ

    For diagonal F, U_c is ṽ_c times the sum of F_tt: the trajectories are read only once, whatever the number of
    vectors.

    Args:
        policy: π(a|s) at θ.
        cell: of the sample.
        derivatives: w and F of its trajectories.
        trajectories: what they are derivatives at.
        mixed: d ↦ ∇φ ⟨w, d⟩ averaged over the trajectories; `None` if J does not depend on φ directly, or φ = θ.
    """

    meta_gradient = None

    def __init__(
        self,
        policy: Float[Tensor, "*batch state action"],
        cell: Int[Tensor, "*batch trajectory time"],
        derivatives: LogProbDerivatives,
        trajectories: Trajectories,
        mixed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._policy = policy
        self._mixed = mixed
        self._cell = _flat(cell)
        self._like = cell
        self._derivatives = derivatives
        self._trajectories = trajectories
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
        if self._derivatives.diagonal is not None:
            curvature = self._diagonal * centred
        else:
            curvature = torch.stack([self._product(vector) for vector in centred])
        hessian_term = self._tangent(curvature) - self._weight.sum(-1, keepdim=True) * self._policy * centred
        if self._mixed is None:
            return hessian_term, None
        return hessian_term, torch.stack([self._mixed(self._score(vector)) for vector in centred])

    @cached_property
    def _diagonal(self) -> Tensor:
        diagonal = self._derivatives.diagonal
        return self._weight if diagonal is self._derivatives.first or diagonal is None else self._table(diagonal)

    def _product(self, centred: Tensor) -> Tensor:
        assert self._derivatives.product is not None  # set whenever `diagonal` is not
        return self._table(self._derivatives.product(self._score(centred)))

    def _score(self, centred: Tensor) -> Tensor:
        """d_t = ∇ log π(a_t|s_t)ᵀ v."""
        return _unflat(centred.reshape(-1).index_select(0, self._cell), self._like)

    def _table(self, weights: Tensor) -> Tensor:
        """(1/n) Σ over the trajectories' steps at each (s, a)."""
        return _scattered(_flat(weights), self._cell, self._policy) / self._like.shape[-2]

    def _tangent(self, table: Tensor) -> Tensor:
        return table - self._policy * table.sum(-1, keepdim=True)


class TabularProblem:
    """A `decomposition.Problem` on a tabular MDP: φ is θ⁰ (MAML), or a reward that only the inner loop sees (LIRPG).

    With an intrinsic reward φ, the roles inner and hessian have the reward r + φ, and a sample's mixed derivative is

        ∇φ ⟨∇J, v⟩ = (1/n) Σ_t (∂⟨w, d⟩/∂r_t) [c_t] + (1/n) Σ_t (∂⟨w, d⟩/∂V(s_t)) ∇φ V(s_t)

    with the advantages' part passed on to rewards and values by `returns.gae_adjoint`. It is one and the same for all
    estimators with the same first derivative (paper, Eq. 7).

    Args:
        params: θ⁰, shape `[*batch, state, action]`.
        exact: the exact objective of a role at θ.
        rollout: (role, step, π, rows) ↦ states `[*batch, n, T + 1]` and actions `[*batch, n, T]` of those rows of the
            trajectories that it has random numbers for: the first n as `slice(n)`, or any n as a tensor.
        critic: (role, step, θ) ↦ the critic's V, shape `[*batch, state]`; where it is differentiable in the intrinsic
            reward, the meta-gradient takes that into account.
        reward: r(s, a), shape `[*batch, state, action]` or broadcastable to it.
        discount: γ.
        gae_lambda: λ of the advantages; 1 gives n-step returns to the horizon.
        critic_for: which estimators get the critic: as the `paper` says, `all`, or `none`; those that learn one from
            their sample have that with the first two, a constant in the intrinsic reward.
        intrinsic_reward: φ(s, a) of the shape of θ, a leaf that requires a gradient; `None` for MAML.
    """

    def __init__(
        self,
        *,
        params: Float[Tensor, "*batch state action"],
        exact: Callable[[Role, Tensor], Objective],
        rollout: Callable[[Role, int, Tensor, Rows], tuple[Tensor, Tensor]],
        critic: Callable[[Role, int, Tensor], Tensor],
        reward: Tensor,
        discount: float,
        gae_lambda: float = 1.0,
        critic_for: str = "paper",
        intrinsic_reward: Float[Tensor, "*batch state action"] | None = None,
    ) -> None:
        self.params = params
        self.meta_is_params = intrinsic_reward is None
        self._reward = reward
        self.exact = exact
        self._rollout, self._critic = rollout, critic
        self._intrinsic_reward = intrinsic_reward
        self._outer_reward = reward.expand(params.shape).reshape(-1)
        self._inner_reward = self._outer_reward
        if intrinsic_reward is not None:
            self._inner_reward = self._outer_reward + intrinsic_reward.detach().reshape(-1)
        self._discount, self._gae_lambda, self._critic_for = discount, gae_lambda, critic_for

    def parts(self, numbers: Sequence[Tensor]) -> "list[TabularProblem] | None":
        """The problem with parts of its samples along a new first axis, for each of several `[part, trajectory]`.

        `None` with an intrinsic reward. At θ⁰ all parts read one set of trajectories, later each draws its own, on the
        random numbers of those numbers.
        """
        if self._intrinsic_reward is not None:
            return None
        total = 1 + max(int(some.max()) for some in numbers)
        start: dict[Role, tuple[Tensor, Tensor]] = {}

        def rollout(some: Tensor, role: Role, step: int, policy: Tensor, _rows: Rows) -> tuple[Tensor, Tensor]:
            if step == 0:
                if role not in start:
                    start[role] = self._rollout(role, step, policy[0], slice(total))
                state, action = start[role]
                return state[..., some, :].movedim(-3, 0), action[..., some, :].movedim(-3, 0)
            drawn = [self._rollout(role, step, at, rows) for at, rows in zip(policy, some, strict=True)]
            state, action = (torch.stack(each) for each in zip(*drawn, strict=True))
            return state, action

        return [
            TabularProblem(
                params=self.params.expand(len(some), *self.params.shape),
                exact=self.exact,
                rollout=partial(rollout, some),
                critic=self._critic,
                reward=self._reward,
                discount=self._discount,
                gae_lambda=self._gae_lambda,
                critic_for=self._critic_for,
            )
            for some in numbers
        ]

    def draw(self, role: Role, step: int, params: Tensor, size: int) -> TabularSample:
        """`size` trajectories at θ, read by every estimator."""
        return self._drawn(role, step, params, slice(size))

    def draw_part(self, role: Role, step: int, params: Tensor, numbers: Int[Tensor, "trajectory"]) -> TabularSample:
        """The trajectories of those numbers, without drawing others."""
        return self._drawn(role, step, params, numbers)

    def _drawn(self, role: Role, step: int, params: Tensor, rows: Rows) -> TabularSample:
        *batch, states, actions = params.shape
        log_policy = params.log_softmax(-1)
        state, action = self._rollout(role, step, log_policy.exp(), rows)
        problems = log_policy.numel() // (states * actions)
        row = torch.arange(problems, device=params.device).mul_(states).reshape(*batch, 1, 1)
        place = state + row
        cell = torch.add(action, place[..., :-1], alpha=actions)
        table = self._outer_reward if role == "outer" else self._inner_reward
        reward, log_prob = _look_up(table, cell), _look_up(log_policy.reshape(-1), cell)
        discount = discounts(self._discount, cell.shape[-1] + 1).to(params)

        def read(value: Tensor) -> Trajectories:
            advantage = gae(reward, value, self._discount, self._gae_lambda)
            return Trajectories(log_prob, reward, value, advantage, discount)

        def learn(where: Tensor, old: Trajectories) -> Trajectories:
            value = learnt_values(old.reward, where - row, self._discount, states)
            advantage = gae(old.reward, value, self._discount, self._gae_lambda)
            return replace(old, value=value, advantage=advantage)

        critic = self._critic(role, step, params).expand(*batch, states)
        value = _look_up(critic.detach().reshape(-1), place)
        return TabularSample(cell, place, critic, read(value), lambda: read(torch.zeros_like(value)), learn)

    def sampled(self, role: Role, estimator: Estimator, sample: TabularSample, params: Tensor) -> SoftmaxObjective:
        """The objective at θ as the estimator sees it in the sample."""
        critic = estimator.critic
        if self._critic_for == "none" or (self._critic_for == "all" and critic != "learnt"):
            critic = self._critic_for == "all"
        trajectories, gae_lambda = sample.trajectories(critic), self._gae_lambda
        if estimator.gae_lambda is not None:
            gae_lambda = estimator.gae_lambda
            advantage = gae(trajectories.reward, trajectories.value, self._discount, gae_lambda)
            trajectories = replace(trajectories, advantage=advantage)
        derivatives = estimator.derivatives(trajectories)
        mixed = None
        if role == "hessian" and self._intrinsic_reward is not None:
            mixed = partial(self._mixed, sample, derivatives, critic is True, gae_lambda)
        return SoftmaxObjective(params.softmax(-1), sample.cell, derivatives, trajectories, mixed)

    def _mixed(
        self, sample: TabularSample, derivatives: LogProbDerivatives, critic: bool, gae_lambda: float, score: Tensor
    ) -> Tensor:
        """(1/n) Σ ∇φ ⟨w, d⟩ over the trajectories."""
        assert derivatives.mixed is not None  # set by every estimator of the catalogue
        assert self._intrinsic_reward is not None
        cotangents = derivatives.mixed(score)
        rewards = [cotangents.reward] if cotangents.reward is not None else []
        values = [cotangents.value] if cotangents.value is not None else []
        if cotangents.advantage is not None:
            reward, value = gae_adjoint(cotangents.advantage, self._discount, gae_lambda)
            rewards.append(reward)
            values.append(value)
        phi, table = self._intrinsic_reward, torch.zeros_like(self._intrinsic_reward)
        for weights in rewards:
            table += _scattered(_flat(weights), _flat(sample.cell), phi)
        if critic and sample.critic.requires_grad:
            pull = torch.zeros_like(sample.critic)
            for weights in values:
                pull += _scattered(_flat(weights), _flat(sample.place), pull)
            table += torch.autograd.grad(sample.critic, phi, pull, retain_graph=True)[0]
        return table / sample.cell.shape[-2]


def _scattered(weights: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """A table of the shape and type of another, with the weights added up at their places."""
    table = torch.zeros(like.numel(), dtype=like.dtype, device=like.device)
    return table.scatter_add_(0, index, weights.to(table.dtype)).reshape(like.shape)


def _flat(x: Tensor) -> Tensor:
    """One axis, time first: no copy if the trajectories are stored so, as rollouts are."""
    return x.movedim((-1, -2), (0, 1)).reshape(-1)


def _unflat(flat: Tensor, like: Tensor) -> Tensor:
    return flat.reshape(like.movedim((-1, -2), (0, 1)).shape).movedim((0, 1), (-1, -2))


def _look_up(table: Tensor, cell: Tensor) -> Tensor:
    return _unflat(table.index_select(0, _flat(cell)), cell)
