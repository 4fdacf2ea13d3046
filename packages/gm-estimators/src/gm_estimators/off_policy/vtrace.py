"""V-trace (Espeholt et al. 2018, "IMPALA")."""

from dataclasses import replace

import torch

from gm_estimators.estimator import Estimator, EstimatorError, require_advantages
from gm_estimators.off_policy.trajectories import (
    OffPolicyTrajectories,
    finite,
    possible_log_prob,
    require_off_policy,
    step_log_ratio,
)
from gm_estimators.returns import returns_to_go
from gm_estimators.surrogates import Trajectories


def vtrace(estimator: Estimator, *, ratio_clip: float = 1.0, trace_clip: float = 1.0, decay: float = 1.0) -> Estimator:
    """The off-policy form of an estimator reads V-trace advantages (Espeholt et al. 2018, Eq. 1).

        v_t = V(s_t) + Σ_{u≥t} γ^{u−t} (Π_{t≤i<u} c_i) ρ̄_u δ_u,   δ_u = r_u + γ V(s_{u+1}) − V(s_u)
        A_t = ρ̄_t (r_t + γ v_{t+1} − V(s_t)),   ρ̄_t = min(ratio clip, π_t/μ_t),   c_t = λ min(trace clip, π_t/μ_t)

    Only the ratio of step t weighs its score: states count as often as μ visits them, which is what keeps the variance
    low and biases the gradient even without clipping. On-policy A_t is the return to the horizon, bootstrapped with
    V(s_T), minus V(s_t), if both bounds are at least 1. λ is `decay`. The form reads `OffPolicyTrajectories`.

    Raises:
        ValueError: if a bound is not positive, the estimator reads rewards as `dice` and `tmaml`, or the trajectories
            come with a clip or self-normalisation, which are for cumulative ratios, or a ratio is infinite or NaN.

    Examples:
        >>> import torch
        >>> from gm_estimators.off_policy import OffPolicyTrajectories, vtrace
        >>> log_prob, behaviour = torch.tensor([[0.8, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> reward, value, discount = torch.ones(1, 2), torch.zeros(1, 3), torch.ones(3)
        >>> seen = OffPolicyTrajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), discount, behaviour)
        >>> from gm_estimators import load
        >>> vtrace(load("ad")).surrogate(seen).shape
        torch.Size([1])
    """
    require_advantages(estimator)
    if not (ratio_clip > 0 and trace_clip > 0):
        raise ValueError(f"ratio_clip, trace_clip: expected positive numbers, got {ratio_clip} and {trace_clip}")

    def seen(trajectories: Trajectories) -> Trajectories:
        read = require_off_policy(trajectories)
        if read.clip < float("inf") or read.self_normalise:
            raise EstimatorError(
                f"estimator {estimator.name}: V-trace has bounds of its own, expected neither clip nor self_normalise, "
                f"got {read.clip} and {read.self_normalise}"
            )
        return _with_advantages(read, ratio_clip, trace_clip, decay)

    return replace(
        estimator,
        name=f"v-trace {estimator.name}",
        surrogate=lambda trajectories: estimator.surrogate(seen(trajectories)),
        gradient_family=f"v-trace {estimator.gradient_family} {ratio_clip} {trace_clip} {decay}",
        closed_form=lambda trajectories: replace(estimator.derivatives(seen(trajectories)), mixed=None),
    )


def _with_advantages(
    trajectories: OffPolicyTrajectories, ratio_clip: float, trace_clip: float, decay: float
) -> Trajectories:
    """Discounts are spent, as in `weighted`: x_t = γᵗ (v_t − V(s_t)) = ρ̄_t γᵗ δ_t + c_t x_{t+1}."""
    ratio = step_log_ratio(trajectories).exp()
    clipped, traced = (finite(ratio.clamp(max=bound)) for bound in (ratio_clip, trace_clip))
    discounted = trajectories.discount * trajectories.value
    difference = trajectories.discount[..., :-1] * trajectories.reward + discounted[..., 1:] - discounted[..., :-1]
    excess = returns_to_go(clipped * difference, decay * traced)
    after = torch.nn.functional.pad(excess[..., 1:], (0, 1))
    return Trajectories(
        log_prob=possible_log_prob(trajectories),
        reward=trajectories.discount[..., :-1] * trajectories.reward,
        value=discounted,
        advantage=clipped * (difference + after),
        discount=torch.ones_like(trajectories.discount),
    )
