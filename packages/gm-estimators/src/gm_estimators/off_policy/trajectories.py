"""Trajectories that another policy drew, and their importance weights."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.returns import reverse_cumsum
from gm_estimators.surrogates import Trajectories


@dataclass(frozen=True)
class OffPolicyTrajectories(Trajectories):
    """Trajectories drawn by a behaviour policy μ.

    Attributes:
        behaviour_log_prob: log μ(a_t | s_t), of the shape of `log_prob`.
        clip: ρ_t is replaced by min(ρ_t, clip); infinity for the paper's unclipped ratio.
        self_normalise: whether ρ_t is divided by its mean over the trajectories.
    """

    behaviour_log_prob: Float[Tensor, "*batch trajectory time"]
    clip: float = float("inf")
    self_normalise: bool = False

    def __post_init__(self) -> None:
        if not self.clip > 0:
            raise ValueError(f"clip: expected a positive number, got {self.clip}")


def require_off_policy(trajectories: Trajectories) -> OffPolicyTrajectories:
    """Returns the trajectories themselves.

    Raises:
        TypeError: if they are of another type.
    """
    if not isinstance(trajectories, OffPolicyTrajectories):
        raise TypeError(f"expected OffPolicyTrajectories, got {type(trajectories).__name__}")
    return trajectories


def step_log_ratio(trajectories: OffPolicyTrajectories) -> Float[Tensor, "*batch trajectory time"]:
    """The log ratio of a single step is log π_t − log μ_t, a constant."""
    return trajectories.log_prob.detach() - trajectories.behaviour_log_prob


def cumulative_ratio(trajectories: OffPolicyTrajectories) -> Float[Tensor, "*batch trajectory time"]:
    """The cumulative ratio is ρ_t = exp Σ_{u≤t} (log π_u − log μ_u), a constant, with its controls.

        self-normalised: ρ_t / ((1/n) Σ_n ρ_t),   clipped: min(ρ_t, clip)

    Derivatives come from the surrogate's magic box: the weight of a trajectory is truncated, not its score (Espeholt
    et al. 2018, "IMPALA"). Clipping lowers large weights: it is biased unless no ratio exceeds the bound, and more so
    the lower the bound. Self-normalisation is biased by O(1/n) and consistent (Owen 2013, "Monte Carlo theory, methods
    and examples"); with one trajectory nothing is corrected at all.

    Raises:
        ValueError: if a ratio is infinite or NaN.
    """
    log_ratio = step_log_ratio(trajectories).cumsum(-1)
    if trajectories.self_normalise:  # before exp, so that no weight overflows
        log_ratio = log_ratio.log_softmax(-2) + math.log(log_ratio.shape[-2])
    ratio = log_ratio.exp().clamp(max=trajectories.clip)
    if not bool(ratio.isfinite().all()):
        raise ValueError(
            "behaviour_log_prob: expected finite ratios to the behaviour policy, got infinity or NaN; "
            "clip them, normalise them or leave out the oldest trajectories"
        )
    return ratio


def effective_sample_size(weight: Float[Tensor, "*batch trajectory"]) -> Float[Tensor, "*batch"]:
    """Weighted trajectories are worth (Σ_n w_n)² / Σ_n w_n² equally weighted ones (Kong 1992), w e.g. the last ratio.

    That is from 1, if one trajectory has all the weight, to n; NaN if all weights are zero.
    """
    share = weight / weight.sum(-1, keepdim=True)
    return 1 / share.square().sum(-1)


def weighted(trajectories: OffPolicyTrajectories) -> Trajectories:
    """An on-policy surrogate sees importance weights inside of rewards, values and advantages, and discounts spent.

        reward_t = γᵗ ρ_t r_t,   value_t = γᵗ (π_t / μ_t) V(s_t),   value_T = γᵀ ρ_{T−1} V(s_T),   discount_t = 1
        advantage_t = Σ_{u≥t} γᵘ ρ_u r_u + γᵀ ρ_{T−1} V(s_T) − γᵗ ρ_t V(s_t)

    The baseline of DiCE, Σ_t γᵗ (1 − π_t/μ_t) V(s_t), has ratios of single steps, which are not clipped.
    """
    ratio = cumulative_ratio(trajectories)
    discount, value = trajectories.discount, trajectories.value
    reward = discount[..., :-1] * ratio * trajectories.reward
    last = discount[..., -1] * ratio[..., -1] * value[..., -1]
    baseline = discount[..., :-1] * value[..., :-1]
    return Trajectories(
        log_prob=trajectories.log_prob,
        reward=reward,
        value=torch.cat((step_log_ratio(trajectories).exp() * baseline, last.unsqueeze(-1)), -1),
        advantage=reverse_cumsum(reward) + last.unsqueeze(-1) - ratio * baseline,
        discount=torch.ones_like(discount),
    )
