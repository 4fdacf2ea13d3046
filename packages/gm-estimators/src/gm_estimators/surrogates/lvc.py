"""LVC: low-variance curvature (Rothfuss et al. 2019, "ProMP: Proximal Meta-Policy Search")."""

from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import magic_box
from gm_estimators.surrogates.shared import through_advantages
from gm_estimators.surrogates.trajectories import LogProbDerivatives, Trajectories


def lvc(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """LVC weighs every advantage with the probability ratio of its own step: Σ_t γᵗ A_t π_t / ⊥π_t.

    Its Hessian lacks the products of scores at different times.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, lvc
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> lvc(seen)  # the ratios are 1
        tensor([3.])
    """
    return (trajectories.discount[..., :-1] * trajectories.advantage * magic_box(trajectories.log_prob)).sum(-1)


def lvc_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """The derivatives of `lvc` in the log-probabilities are w_t = F_tt = γᵗ A_t, with nothing off the diagonal.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, lvc_derivatives
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> lvc_derivatives(seen).first, lvc_derivatives(seen).diagonal
        (tensor([[2., 1.]]), tensor([[2., 1.]]))
    """
    weight = trajectories.discount[..., :-1] * trajectories.advantage
    return LogProbDerivatives(weight, weight, mixed=through_advantages(trajectories))
