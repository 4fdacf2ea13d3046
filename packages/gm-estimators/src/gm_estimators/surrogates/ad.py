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

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, ad
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> ad(seen)  # 2 · (−0.5) + 1 · (−1)
        tensor([-2.])
    """
    return (trajectories.discount[..., :-1] * trajectories.advantage * trajectories.log_prob).sum(-1)


def ad_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """The derivatives of `ad` in the log-probabilities are w_t = γᵗ A_t and F = 0.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, ad_derivatives
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> ad_derivatives(seen).first, ad_derivatives(seen).diagonal
        (tensor([[2., 1.]]), tensor([[0., 0.]]))
    """
    weight = trajectories.discount[..., :-1] * trajectories.advantage
    zero = torch.zeros((), dtype=weight.dtype, device=weight.device).expand_as(weight)
    return LogProbDerivatives(weight, zero, mixed=through_advantages(trajectories))
