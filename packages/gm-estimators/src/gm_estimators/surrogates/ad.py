"""AD: automatic differentiation of the policy-gradient loss, as most code has it."""

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.surrogates.shared import through_advantages
from gm_estimators.surrogates.trajectories import LogProbDerivatives, Trajectories


def ad(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """AD differentiates the loss of the policy gradient: Σ_t γᵗ A_t log π_t.

    Its Hessian lacks the terms in ∇log π ∇log πᵀ (Finn et al. 2017, "Model-Agnostic Meta-Learning …"; paper,
    Section 4.2).
    """
    return (trajectories.discount[..., :-1] * trajectories.advantage * trajectories.log_prob).sum(-1)


def ad_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """The derivatives of `ad` in the log-probabilities are w_t = γᵗ A_t and F = 0."""
    weight = trajectories.discount[..., :-1] * trajectories.advantage
    zero = torch.zeros((), dtype=weight.dtype, device=weight.device).expand_as(weight)
    return LogProbDerivatives(weight, zero, mixed=through_advantages(trajectories))
