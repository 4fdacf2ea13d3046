"""Off-policy DiCE (paper, Section 5.2)."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from gm_estimators.off_policy.trajectories import require_off_policy, weighted
from gm_estimators.surrogates import LogProbDerivatives, Trajectories, dice, dice_derivatives


def off_policy_dice(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """Off-policy DiCE is DiCE with each reward weighed by ρ_t, each baseline by the ratio of its own step.

        Σ_t γᵗ ρ_t r_t + γᵀ ρ_{T−1} V(s_T) + Σ_t γᵗ V(s_t) (1 − π_t / μ_t),   ρ_t = Π_{u≤t} π_u / μ_u

    Value and derivatives of any order are unbiased whatever μ is, as long as μ can do all that π can. It takes
    `OffPolicyTrajectories`.
    """
    read = require_off_policy(trajectories)
    seen = weighted(read)
    baseline = read.discount[..., :-1] * read.value[..., :-1]
    return dice(seen) + (baseline - seen.value[..., :-1]).sum(-1)


def off_policy_dice_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """The derivatives of `off_policy_dice` are those of `dice` on weighted trajectories, without mixed ones.

        w_u = Σ_{t≥u} γᵗ ρ_t r_t − γᵘ (π_u/μ_u) V(s_u),
        (F d)_u = Σ_{t≥u} γᵗ ρ_t r_t Σ_{v≤t} d_v − γᵘ (π_u/μ_u) V(s_u) d_u

    since ρ_t, a constant, times □_{≤t} has the derivatives of Π_{u≤t} π_u / μ_u; γᵀ ρ_{T−1} V(s_T) counts as a reward
    at the last step.
    """
    return replace(dice_derivatives(weighted(require_off_policy(trajectories))), mixed=None)
