"""Loaded-DiCE (Farquhar, Whiteson and Foerster 2019).

"Loaded DiCE: Trading off Bias and Variance in Any-Order Score Function Estimators for Reinforcement Learning".
"""

from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import magic_box
from gm_estimators.surrogates.shared import decayed_cumsum, product_by_later_step, through_advantages
from gm_estimators.surrogates.trajectories import LogProbDerivatives, Trajectories


def loaded_dice(trajectories: Trajectories, decay: float = 1.0) -> Float[Tensor, "*batch trajectory"]:
    """Loaded-DiCE gives every advantage the ratios of its own and all earlier steps: Σ_t γᵗ A_t (□_{≤t} − □_{<t}).

    λ < 1 discounts what earlier actions have to do with later advantages, □_{≤t} = □(Σ_{u≤t} λ^{t−u} log π_u) and
    □_{<t} the same without log π_t: products of scores at times u < t count λ^{t−u}. At λ = 1 all derivatives are
    unbiased if the advantages are; λ = 0 has the Hessian of `lvc`. λ is `decay`; their τ is the λ of `returns.gae`.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, loaded_dice
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> loaded_dice(seen)  # differences of boxes: its value is 0, its derivatives count
        tensor([0.])
    """
    cumulative = decayed_cumsum(trajectories.log_prob, decay)
    difference = magic_box(cumulative) - magic_box(cumulative - trajectories.log_prob)
    return (trajectories.discount[..., :-1] * trajectories.advantage * difference).sum(-1)


def loaded_dice_derivatives(trajectories: Trajectories, decay: float = 1.0) -> LogProbDerivatives:
    """The derivatives of `loaded_dice` are w_t = c_t and F_tu = λ^{|t−u|} c_max(t,u), with weights c_t = γᵗ A_t.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, loaded_dice_derivatives
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> derivatives = loaded_dice_derivatives(seen)
        >>> derivatives.product(torch.tensor([[1.0, 0.0]]))  # a column of F
        tensor([[2., 1.]])
    """
    weight = trajectories.discount[..., :-1] * trajectories.advantage
    return LogProbDerivatives(weight, None, product_by_later_step(weight, decay), through_advantages(trajectories))
