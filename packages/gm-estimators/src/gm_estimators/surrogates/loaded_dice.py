"""Loaded DiCE (Farquhar, Whiteson and Foerster 2019).

"Loaded DiCE: Trading off Bias and Variance in Any-Order Score Function Estimators for Reinforcement Learning".
"""

from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import magic_box
from gm_estimators.surrogates.shared import decayed_cumsum, product_by_later_step, through_advantages
from gm_estimators.surrogates.trajectories import LogProbDerivatives, Trajectories


def loaded_dice(trajectories: Trajectories, decay: float = 1.0) -> Float[Tensor, "*batch trajectory"]:
    """Loaded DiCE gives every advantage the ratios of its own and all earlier steps: Σ_t γᵗ A_t (□_{≤t} − □_{<t}).

    λ < 1 discounts what earlier actions have to do with later advantages, □_{≤t} = □(Σ_{u≤t} λ^{t−u} log π_u) and
    □_{<t} the same without log π_t: products of scores at times u < t count λ^{t−u}. At λ = 1 all derivatives are
    unbiased if the advantages are; λ = 0 has the Hessian of `lvc`. λ is `decay`; their τ is the λ of `returns.gae`.
    """
    cumulative = decayed_cumsum(trajectories.log_prob, decay)
    difference = magic_box(cumulative) - magic_box(cumulative - trajectories.log_prob)
    return (trajectories.discount[..., :-1] * trajectories.advantage * difference).sum(-1)


def loaded_dice_derivatives(trajectories: Trajectories, decay: float = 1.0) -> LogProbDerivatives:
    """The derivatives of `loaded_dice` are w_t = c_t and F_tu = λ^{|t−u|} c_max(t,u), with weights c_t = γᵗ A_t."""
    weight = trajectories.discount[..., :-1] * trajectories.advantage
    return LogProbDerivatives(weight, None, product_by_later_step(weight, decay), through_advantages(trajectories))
