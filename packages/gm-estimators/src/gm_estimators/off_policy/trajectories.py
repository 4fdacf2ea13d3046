"""Trajectories that another policy drew, and their importance weights."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import power_of_two_below
from gm_estimators.returns import reverse_cumsum
from gm_estimators.surrogates import Trajectories
from gm_estimators.surrogates.trajectories import blank

LARGEST_OF_A_STEP = 2.0**24


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
        shape, came = tuple(self.log_prob.shape), tuple(self.behaviour_log_prob.shape)
        if came != shape:
            raise ValueError(f"behaviour_log_prob: expected log_prob's shape {shape}, got {came}")
        super().__post_init__()

    def _blank(self, uncounted: Tensor) -> None:
        """As on-policy; a step that is unknown to one of the policies has the ratio one."""
        unknown = ~(self.log_prob.isfinite() & self.behaviour_log_prob.isfinite())
        for name in ("log_prob", "behaviour_log_prob"):
            object.__setattr__(self, name, blank(getattr(self, name), uncounted[..., :-1] & unknown))
        super()._blank(uncounted)


def require_off_policy(trajectories: Trajectories) -> OffPolicyTrajectories:
    """Returns the trajectories themselves.

    Raises:
        TypeError: if they are of another type.
    """
    if not isinstance(trajectories, OffPolicyTrajectories):
        raise TypeError(f"expected OffPolicyTrajectories, got {type(trajectories).__name__}")
    return trajectories


def step_log_ratio(trajectories: OffPolicyTrajectories) -> Float[Tensor, "*batch trajectory time"]:
    """The log ratio of a single step is log π_t − log μ_t, a constant; −∞ where π cannot do what was played.

    Raises:
        ValueError: if μ cannot do what was played, or a log-probability is NaN.
    """
    log_ratio = trajectories.log_prob.detach() - trajectories.behaviour_log_prob
    if not bool((log_ratio < math.inf).all()):
        raise ValueError(
            "behaviour_log_prob: expected finite ratios to the behaviour policy, got infinity or NaN; "
            "it has to be able to do what was played, with a log-probability above −infinity"
        )
    return log_ratio


def possible_log_prob(trajectories: OffPolicyTrajectories) -> Float[Tensor, "*batch trajectory time"]:
    """Steps that π cannot take have a ratio of zero, so that their log π = −∞ is left out, derivatives included."""
    return blank(trajectories.log_prob, trajectories.log_prob == -math.inf)


def cumulative_ratio(trajectories: OffPolicyTrajectories) -> Float[Tensor, "*batch trajectory time"]:
    """The cumulative ratio is ρ_t = exp Σ_{u≤t} (log π_u − log μ_u), a constant, with its controls.

        self-normalised: ρ_t / ((1/n) Σ_n ρ_t),   clipped: min(ρ_t, clip)

    Derivatives come from the surrogate's magic box: the weight of a trajectory is truncated, not its score (Espeholt
    et al. 2018, "IMPALA"). Clipping lowers large weights: it is biased unless no ratio exceeds the bound, and more so
    the lower the bound. Self-normalisation is biased by O(1/n) and consistent (Owen 2013, "Monte Carlo theory, methods
    and examples"); with one trajectory nothing is corrected at all.

    Raises:
        ValueError: if a ratio is infinite or NaN, or all are zero that are to be normalised.

    Examples:
        >>> import torch
        >>> from gm_estimators.off_policy import OffPolicyTrajectories, cumulative_ratio
        >>> log_prob, behaviour = torch.tensor([[0.8, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> reward, value, discount = torch.ones(1, 2), torch.zeros(1, 3), torch.ones(3)
        >>> seen = OffPolicyTrajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), discount, behaviour)
        >>> cumulative_ratio(seen)
        tensor([[1.6000, 1.6000]])
    """
    return ratio_of(trajectories, step_log_ratio(trajectories).cumsum(-1))


def ratio_of(trajectories: OffPolicyTrajectories, log_ratio: Tensor) -> Tensor:
    """The ratio of steps or histories of that log ratio, with the controls; they act before anything can overflow."""
    if trajectories.self_normalise:
        log_ratio = log_ratio.log_softmax(-2) + math.log(log_ratio.shape[-2])
    return finite(log_ratio.exp().clamp(max=trajectories.clip))


def baseline_ratio(trajectories: OffPolicyTrajectories, log_ratio: Tensor) -> Tensor:
    """The ratio of a single step has no controls, so that baselines are unbiased, up to 2²⁴: there 1 − ratio is lost.

    That keeps what is beyond from overflowing.
    """
    ratio = log_ratio.exp()
    return ratio.where(ratio <= LARGEST_OF_A_STEP, ratio_of(trajectories, log_ratio))


def finite(ratio: Tensor) -> Tensor:
    """Returns the ratios themselves.

    Raises:
        ValueError: if one is infinite, or NaN, which is all zeros divided by their mean.
    """
    if bool(ratio.isnan().any()):
        raise ValueError("log_prob: expected a trajectory that the policy can produce, got weights that are all zero")
    if not bool(ratio.isfinite().all()):
        raise ValueError(
            "behaviour_log_prob: expected finite ratios to the behaviour policy, got infinity or NaN; "
            "clip them, normalise them or leave out the oldest trajectories"
        )
    return ratio


def effective_sample_size(weight: Float[Tensor, "*batch trajectory"]) -> Float[Tensor, "*batch"]:
    """Weighted trajectories are worth (Σ_n w_n)² / Σ_n w_n² equally weighted ones (Kong 1992), w e.g. the last ratio.

    That is from 1, if one trajectory has all the weight, to n; NaN if all weights are zero, or one is negative or
    infinite.

    Examples:
        >>> import torch
        >>> from gm_estimators.off_policy import effective_sample_size
        >>> effective_sample_size(torch.tensor([1.0, 1.0, 0.0, 0.0]))
        tensor(2.)
    """
    weight = weight / power_of_two_below(weight)  # so that the sum cannot overflow
    share = weight / weight.sum(-1, keepdim=True)
    size = 1 / share.square().sum(-1)
    return size.where((weight >= 0).all(-1), math.nan)


def weighted(trajectories: OffPolicyTrajectories) -> Trajectories:
    """An on-policy surrogate sees importance weights inside of rewards, values and advantages, and discounts spent.

        reward_t = γᵗ ρ_t r_t,   value_t = γᵗ (π_t / μ_t) V(s_t),   value_T = γᵀ ρ_{T−1} V(s_T),   discount_t = 1
        advantage_t = Σ_{u≥t} γᵘ ρ_u r_u + γᵀ ρ_{T−1} V(s_T) − γᵗ ρ_t V(s_t)

    The baseline of DiCE, Σ_t γᵗ (1 − π_t/μ_t) V(s_t), has ratios of single steps, which are not clipped up to 2²⁴.

    Examples:
        >>> import torch
        >>> from gm_estimators.off_policy import OffPolicyTrajectories, weighted
        >>> log_prob, behaviour = torch.tensor([[0.8, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> reward, value, discount = torch.ones(1, 2), torch.zeros(1, 3), torch.ones(3)
        >>> seen = OffPolicyTrajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), discount, behaviour)
        >>> weighted(seen).advantage
        tensor([[3.2000, 1.6000]])
    """
    log_ratio = step_log_ratio(trajectories)
    ratio = ratio_of(trajectories, log_ratio.cumsum(-1))
    discount, value = trajectories.discount, trajectories.value
    reward = discount[..., :-1] * ratio * trajectories.reward
    last = discount[..., -1] * ratio[..., -1] * value[..., -1]
    baseline = discount[..., :-1] * value[..., :-1]
    return Trajectories(
        log_prob=possible_log_prob(trajectories),
        reward=reward,
        value=torch.cat((baseline_ratio(trajectories, log_ratio) * baseline, last.unsqueeze(-1)), -1),
        advantage=reverse_cumsum(reward) + last.unsqueeze(-1) - ratio * baseline,
        discount=torch.ones_like(discount),
    )
