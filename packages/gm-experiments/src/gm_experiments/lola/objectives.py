"""Objectives of two memory-one players of an iterated 2×2 game, estimated from samples.

Both players' policies are tables over the same five states s: the start, or 1 + the last joint outcome o = 2·a¹ + a².
θʲ[s] is player j's log-odds of action 0 and σʲ(s, o) = [aʲ = 0] − πʲ(0|s) its score, so that a surrogate's derivatives
in the log-probabilities enter through 20 numbers, one for each entry (s, o):

    W(s, o) = mean Σ_t w_t [s_t = s, o_t = o],   U(s, o) the same of (F d)_t,   d(s, o) = λ[s] σ(s, o)
    ∂J/∂θʲ[s] = Σ_o W σʲ,   (∂θʲ∂θᵏJ λ)[s] = Σ_o U σʲ − [j = k] λ[s] πʲ(0|s) πʲ(1|s) Σ_o W
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from gm_estimators import Estimator, EstimatorError, Trajectories
from gm_estimators.off_policy import OffPolicyTrajectories, cumulative_ratio, off_policy
from gm_estimators.returns import discounts, gae


@runtime_checkable
class EntrySums(Protocol):
    """What an estimator makes of a sample: W, d ↦ U, visits of each entry, and cumulative ratios (`None` on-policy)."""

    weight: Float[Tensor, "*batch trajectory"] | None

    def first(self) -> Float[Tensor, "*batch 5 4"]:
        """Returns W."""

    def product(self, direction: Float[Tensor, "extra *batch 5 4"], /) -> Float[Tensor, "extra *batch 5 4"]:
        """Returns U of every direction along the extra leading axis."""

    def visits(self) -> Float[Tensor, "*batch 5 4"]:
        """Returns how often each (s, o) occurs in a trajectory, on average."""


@dataclass(frozen=True)
class GameSignal:
    """What a sample is judged by: r(o) of the player whose objective it is, its critic V(s) or zeros, and γ."""

    reward: Float[Tensor, "*batch 4"]
    value: Float[Tensor, "*batch 5"]
    discount: float


class GameObjective:
    """J(φ, θ) as a sample sees it, in the common states: θ is the opponent's policy, φ that of `learner`, 0 or 1."""

    def __init__(
        self,
        meta_params: Float[Tensor, "*batch 5"],
        params: Float[Tensor, "*batch 5"],
        learner: Integer[Tensor, "*batch"],
        sums: EntrySums,
    ) -> None:
        action_0 = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]], dtype=params.dtype, device=params.device)
        own = action_0[learner].unsqueeze(-2)
        other = action_0[1 - learner].unsqueeze(-2)
        self._meta_score = own - meta_params.sigmoid().unsqueeze(-1)
        self._score = other - params.sigmoid().unsqueeze(-1)
        self._curvature = params.sigmoid() * (-params).sigmoid()
        self.sums = sums

    @cached_property
    def _first(self) -> Tensor:
        return self.sums.first().to(self._score)

    @cached_property
    def gradient(self) -> Float[Tensor, "*batch 5"]:
        """∇θ J."""
        return (self._first * self._score).sum(-1)

    @cached_property
    def meta_gradient(self) -> Float[Tensor, "*batch 5"]:
        """∇φ J."""
        return (self._first * self._meta_score).sum(-1)

    def vjp(
        self, cotangent: Float[Tensor, "extra *batch 5"]
    ) -> tuple[Float[Tensor, "extra *batch 5"], Float[Tensor, "extra *batch 5"]]:
        """Returns (∇²θ J λ, ∇φ∇θ J λ) for every λ along the extra leading axis."""
        direction = cotangent.unsqueeze(-1) * self._score
        second = self.sums.product(direction).to(direction)
        own = (second * self._score).sum(-1) - cotangent * self._curvature * self._first.sum(-1)
        return own, (second * self._meta_score).sum(-1)


class StepSums:
    """W and U of any estimator without τ, round by round; off-policy if there is a behaviour, joint log μ¹μ²(o | s)."""

    def __init__(
        self,
        estimator: Estimator,
        outcome: Integer[Tensor, "*batch trajectory time"],
        log_policy: Float[Tensor, "*batch 5 4"],
        signal: GameSignal,
        behaviour: Float[Tensor, "*batch trajectory 5 4"] | None = None,
        *,
        clip: float = float("inf"),
        self_normalise: bool = False,
    ) -> None:
        if estimator.gae_lambda is not None:
            raise EstimatorError(
                f"estimator {estimator.name}: expected one without τ, which only the tabular problems have"
            )
        outcome = outcome.long()
        state = torch.nn.functional.pad(outcome[..., :-1] + 1, (1, 0))
        self._entry = 4 * state + outcome
        self._shape = log_policy.shape
        trajectories = _read(self._entry, log_policy, signal)
        if behaviour is not None:
            trajectories = OffPolicyTrajectories(
                **vars(trajectories),
                behaviour_log_prob=behaviour.flatten(-2).gather(-1, self._entry),
                clip=clip,
                self_normalise=self_normalise or estimator.self_normalise,
            )
            estimator = off_policy(estimator)
            self.weight: Tensor | None = cumulative_ratio(trajectories)[..., -1]
        else:
            self.weight = None
        self._derivatives = estimator.derivatives(trajectories)

    def first(self) -> Float[Tensor, "*batch 5 4"]:
        """Returns W."""
        return self._table(self._derivatives.first)

    def visits(self) -> Float[Tensor, "*batch 5 4"]:
        """Returns how often each (s, o) occurs in a trajectory, on average."""
        return self._table(torch.ones_like(self._derivatives.first))

    def product(self, direction: Float[Tensor, "extra *batch 5 4"]) -> Float[Tensor, "extra *batch 5 4"]:
        """Returns U of every direction along the extra leading axis."""
        return torch.stack([self._product(d) for d in direction])

    def _product(self, direction: Tensor) -> Tensor:
        along = _look_up(direction.flatten(-2), self._entry)
        if self._derivatives.diagonal is not None:
            return self._table(self._derivatives.diagonal * along)
        assert self._derivatives.product is not None  # set whenever `diagonal` is not
        return self._table(self._derivatives.product(along))

    def _table(self, weight: Tensor) -> Tensor:
        table = weight.new_zeros(*self._shape[:-2], 20)
        table.scatter_add_(-1, self._entry.flatten(-2), weight.detach().flatten(-2))
        return table.reshape(self._shape) / self._entry.shape[-2]


def joint_log_policy(params: Float[Tensor, "*batch 2 5"]) -> Float[Tensor, "*batch 5 4"]:
    """Returns log π¹(a¹ | s) + log π²(a² | s) of two policies over the same states."""
    action_0, action_1 = (torch.nn.functional.logsigmoid(x) for x in (params, -params))
    both = torch.stack((action_0, action_1), -1)
    return (both[..., 0, :, :, None] + both[..., 1, :, None, :]).flatten(-2)


def _read(entry: Tensor, log_policy: Tensor, signal: GameSignal) -> Trajectories:
    """The trajectories with nothing to come after the last round."""
    log_prob = _look_up(log_policy.flatten(-2), entry)
    reward = _look_up(signal.reward, entry & 3)
    value = torch.nn.functional.pad(_look_up(signal.value, entry >> 2), (0, 1))
    discount = discounts(signal.discount, entry.shape[-1] + 1).to(log_prob)
    return Trajectories(log_prob, reward, value, gae(reward, value, signal.discount), discount)


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """table[*batch, index] for indices [*batch, trajectory, time]."""
    batch = index.shape[:-2]
    return table.expand(*batch, table.shape[-1]).gather(-1, index.flatten(-2)).view(index.shape)
