"""Surrogates for trajectories that other policies drew (paper, Section 5.2).

With ρ_t = Π_{u≤t} π_u / μ_u the cumulative ratio to the behaviour policy, in a game the joint one of all players,

    E_μ[ρ_t f(s_0, a_0, …, s_t, a_t)] = E_π[f(s_0, a_0, …, s_t, a_t)],

so that a surrogate is made off-policy by weighing each reward with ρ_t: the sum over the rewards that follow a step
then carries that step's ratio, too. `weighted` does this to the trajectories, `off_policy` to an estimator: DiCE
becomes off-policy DiCE, and the derivatives of AD, LVC and Loaded-DiCE keep the means that they have on-policy.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.catalogue import Estimator, EstimatorError, reads_advantages
from gm_estimators.derivatives import LogProbDerivatives
from gm_estimators.returns import returns_to_go, reverse_cumsum
from gm_estimators.surrogates import Trajectories, dice


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


def cumulative_ratio(trajectories: OffPolicyTrajectories) -> Float[Tensor, "*batch trajectory time"]:
    """ρ_t = exp Σ_{u≤t} (log π_u − log μ_u) with its controls, a constant.

        self-normalised: ρ_t / ((1/n) Σ_n ρ_t),   clipped: min(ρ_t, clip)

    Derivatives come from the surrogate's magic box: the weight of a trajectory is truncated, not its score (Espeholt
    et al. 2018, "IMPALA"). Clipping lowers large weights: it is biased unless no ratio exceeds the
    bound, and more so the lower the bound. Self-normalisation is biased by O(1/n) and consistent (Owen 2013, "Monte
    Carlo theory, methods and examples"); with one trajectory nothing is corrected at all.

    Args:
        trajectories: the trajectories and their controls.

    Returns:
        ρ_t.

    Raises:
        ValueError: if a ratio is infinite or NaN.
    """
    log_ratio = _log_ratio(trajectories).cumsum(-1)
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
    """(Σ_n w_n)² / Σ_n w_n² (Kong 1992): n for equal weights, 1 if one trajectory has them all.

    Args:
        weight: e.g. the last `cumulative_ratio`.

    Returns:
        A number from 1 to n; NaN if all weights are zero.
    """
    share = weight / weight.sum(-1, keepdim=True)
    return 1 / share.square().sum(-1)


def weighted(trajectories: OffPolicyTrajectories) -> Trajectories:
    """The trajectories as an on-policy surrogate has to see them: importance weights inside, discounts spent.

        reward_t = d_t ρ_t r_t,   value_t = d_t (π_t / μ_t) V(s_t),   value_T = d_T ρ_{T−1} V(s_T)
        advantage_t = Σ_{u≥t} d_u ρ_u r_u + d_T ρ_{T−1} V(s_T) − d_t ρ_t V(s_t)

    The baseline of DiCE, Σ_t d_t (1 − π_t/μ_t) V(s_t), has ratios of single steps, which are not clipped.

    Args:
        trajectories: drawn by a behaviour policy.

    Returns:
        Trajectories with discount 1.
    """
    ratio = cumulative_ratio(trajectories)
    discount, value = trajectories.discount, trajectories.value
    reward = discount[..., :-1] * ratio * trajectories.reward
    last = discount[..., -1] * ratio[..., -1] * value[..., -1]
    baseline = discount[..., :-1] * value[..., :-1]
    return Trajectories(
        log_prob=trajectories.log_prob,
        reward=reward,
        value=torch.cat((_log_ratio(trajectories).exp() * baseline, last.unsqueeze(-1)), -1),
        advantage=reverse_cumsum(reward) + last.unsqueeze(-1) - ratio * baseline,
        discount=torch.ones_like(discount),
    )


def off_policy_dice(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """Off-policy DiCE: Σ_t d_t ρ_t r_t + d_T ρ_{T−1} V(s_T) + Σ_t d_t V(s_t) (1 − π_t / μ_t) (paper, Section 5.2).

    Value and derivatives of any order are unbiased whatever μ is, as long as μ can do all that π can. With ρ_t
    constant times □_{≤t}, the derivatives in the log-probabilities ℓ are those of `dice` on weighted trajectories:

        w_u = Σ_{t≥u} d_t ρ_t r_t − d_u (π_u/μ_u) V(s_u),
        (F d)_u = Σ_{t≥u} d_t ρ_t r_t Σ_{v≤t} d_v − d_u (π_u/μ_u) V(s_u) d_u

    Args:
        trajectories: `OffPolicyTrajectories`.

    Returns:
        One number per trajectory.
    """
    seen = weighted(_require(trajectories))
    baseline = trajectories.discount[..., :-1] * trajectories.value[..., :-1]
    return dice(seen) + (baseline - seen.value[..., :-1]).sum(-1)


def off_policy(estimator: Estimator) -> Estimator:
    """The off-policy form of an estimator, one's own included, by importance-weighted trajectories.

    The derivatives of `dice` become those of `off_policy_dice`. `ad`, `lvc` and `loaded_dice` read the weighted
    advantage, whose mean given the past is ρ_t times that of the on-policy one, at λ = 1. An estimator with
    `ratio_clip` (`vtrace`, `loaded_dice+vtrace`) gets its `vtrace` form with ρ̄ = c̄ = `ratio_clip` instead, one with
    `self_normalise` (`dice+selfnorm`) divides ratios by their mean whatever the trajectories say.

    Args:
        estimator: an on-policy estimator.

    Returns:
        An estimator that reads `OffPolicyTrajectories`.

    Raises:
        EstimatorError: if it has a τ of its own.
    """
    if estimator.gae_lambda is not None:
        raise EstimatorError(
            f"estimator {estimator.name}: expected advantages without a τ, which have λ = 1 off-policy"
        )
    if estimator.ratio_clip is not None:
        return vtrace(estimator, ratio_clip=estimator.ratio_clip, trace_clip=estimator.ratio_clip)

    of_dice = getattr(estimator.surrogate, "func", estimator.surrogate) is dice
    kind = "self-normalised off-policy" if estimator.self_normalise else "off-policy"

    def seen(trajectories: Trajectories) -> OffPolicyTrajectories:
        found = _require(trajectories)
        return replace(found, self_normalise=found.self_normalise or estimator.self_normalise)

    def surrogate(trajectories: Trajectories) -> Tensor:
        if of_dice:
            return off_policy_dice(seen(trajectories))
        return estimator.surrogate(weighted(seen(trajectories)))

    def derivatives(trajectories: Trajectories) -> LogProbDerivatives:
        return estimator.derivatives(weighted(seen(trajectories)))

    return replace(
        estimator,
        name=f"off-policy {estimator.name}",
        surrogate=surrogate,
        gradient_family=f"{kind} {estimator.gradient_family}",
        closed_form=derivatives,
    )


def vtrace(estimator: Estimator, *, ratio_clip: float = 1.0, trace_clip: float = 1.0, decay: float = 1.0) -> Estimator:
    """An estimator that reads V-trace advantages (Espeholt et al. 2018, "IMPALA", Eq. 1).

        v_t = V(s_t) + Σ_{u≥t} γ^{u−t} (Π_{t≤i<u} c_i) ρ̄_u δ_u,   δ_u = r_u + γ V(s_{u+1}) − V(s_u)
        A_t = ρ̄_t (r_t + γ v_{t+1} − V(s_t)),   ρ̄_t = min(clip, π_t/μ_t),   c_t = λ min(trace clip, π_t/μ_t)

    Only the ratio of step t weighs its score: states count as often as μ visits them, which is what keeps the variance
    low and biases the gradient even without clipping. On-policy A_t is the return to the horizon, bootstrapped with
    V(s_T), minus V(s_t), if both bounds are at least 1. For estimators that read advantages, not `dice` or `tmaml`.

    Args:
        estimator: an on-policy estimator.
        ratio_clip: bound of ρ̄.
        trace_clip: bound of c.
        decay: λ.

    Returns:
        An estimator that reads `OffPolicyTrajectories`.

    Raises:
        ValueError: if a bound is not positive, the estimator reads rewards, or the trajectories come with a clip or
            self-normalisation, which are for cumulative ratios.
    """
    reads_advantages(estimator)
    if not (ratio_clip > 0 and trace_clip > 0):
        raise ValueError(f"ratio_clip, trace_clip: expected positive numbers, got {ratio_clip} and {trace_clip}")

    def seen(trajectories: Trajectories) -> Trajectories:
        found = _require(trajectories)
        if found.clip < float("inf") or found.self_normalise:
            raise EstimatorError(
                f"estimator {estimator.name}: V-trace has bounds of its own, expected neither clip nor self_normalise, "
                f"got {found.clip} and {found.self_normalise}"
            )
        return _vtrace(found, ratio_clip, trace_clip, decay)

    return replace(
        estimator,
        name=f"v-trace {estimator.name}",
        surrogate=lambda trajectories: estimator.surrogate(seen(trajectories)),
        gradient_family=f"v-trace {estimator.gradient_family} {ratio_clip} {trace_clip} {decay}",
        closed_form=lambda trajectories: estimator.derivatives(seen(trajectories)),
    )


def _vtrace(trajectories: OffPolicyTrajectories, ratio_clip: float, trace_clip: float, decay: float) -> Trajectories:
    """Discounts spent, as `weighted` does: x_t = d_t (v_t − V(s_t)) = ρ̄_t d_t δ_t + c_t x_{t+1}."""
    ratio = _log_ratio(trajectories).exp()
    clipped = ratio.clamp(max=ratio_clip)
    discounted = trajectories.discount * trajectories.value
    difference = trajectories.discount[..., :-1] * trajectories.reward + discounted[..., 1:] - discounted[..., :-1]
    excess = returns_to_go(clipped * difference, decay * ratio.clamp(max=trace_clip))
    after = torch.nn.functional.pad(excess[..., 1:], (0, 1))
    return Trajectories(
        log_prob=trajectories.log_prob,
        reward=trajectories.discount[..., :-1] * trajectories.reward,
        value=discounted,
        advantage=clipped * (difference + after),
        discount=torch.ones_like(trajectories.discount),
    )


def _require(trajectories: Trajectories) -> OffPolicyTrajectories:
    if not isinstance(trajectories, OffPolicyTrajectories):
        raise TypeError(f"expected OffPolicyTrajectories, got {type(trajectories).__name__}")
    return trajectories


def _log_ratio(trajectories: OffPolicyTrajectories) -> Tensor:
    return trajectories.log_prob.detach() - trajectories.behaviour_log_prob
