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

    Examples:
        >>> import torch
        >>> from gm_estimators.off_policy import OffPolicyTrajectories, off_policy_dice
        >>> log_prob, behaviour = torch.tensor([[0.8, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> reward, value, discount = torch.ones(1, 2), torch.zeros(1, 3), torch.ones(3)
        >>> seen = OffPolicyTrajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), discount, behaviour)
        >>> off_policy_dice(seen)  # the first reward counts 1.6 times, the second too
        tensor([3.2000])
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

    Examples:
        >>> import torch
        >>> from gm_estimators.off_policy import OffPolicyTrajectories, off_policy_dice_derivatives
        >>> log_prob, behaviour = torch.tensor([[0.8, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> reward, value, discount = torch.ones(1, 2), torch.zeros(1, 3), torch.ones(3)
        >>> seen = OffPolicyTrajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), discount, behaviour)
        >>> off_policy_dice_derivatives(seen).first
        tensor([[3.2000, 1.6000]])
    """
    return replace(dice_derivatives(weighted(require_off_policy(trajectories))), mixed=None)
