"""Surrogates for trajectories that other policies drew (paper, Section 5.2).

With ρ_t = Π_{u≤t} π_u / μ_u the cumulative ratio to the behaviour policy, in a game the joint one of all players,

    E_μ[ρ_t f(s_0, a_0, …, s_t, a_t)] = E_π[f(s_0, a_0, …, s_t, a_t)],

so that a surrogate is made off-policy by weighing each reward with ρ_t: the sum over the rewards that follow a step
then carries that step's ratio, too. `off_policy` takes an estimator to its off-policy form:

- DiCE to `off_policy_dice` and its derivatives;
- AD, LVC, Loaded-DiCE, TMAML and one's own to themselves on `weighted` trajectories, where the derivatives of the first
  three keep the means that they have on-policy;
- one whose name ends in `+vtrace` to itself on the advantages of `vtrace`.
"""

from gm_estimators.off_policy.dice import off_policy_dice, off_policy_dice_derivatives
from gm_estimators.off_policy.form import off_policy
from gm_estimators.off_policy.trajectories import (
    OffPolicyTrajectories,
    cumulative_ratio,
    effective_sample_size,
    weighted,
)
from gm_estimators.off_policy.vtrace import vtrace

__all__ = [
    "OffPolicyTrajectories", "cumulative_ratio", "effective_sample_size", "off_policy", "off_policy_dice",
    "off_policy_dice_derivatives", "vtrace", "weighted",
]  # fmt: skip
