"""DiCE (Foerster et al. 2018, "DiCE: The Infinitely Differentiable Monte Carlo Estimator")."""

from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import magic_box
from gm_estimators.surrogates.shared import product_by_later_step, reward_to_go, through_rewards
from gm_estimators.surrogates.trajectories import LogProbDerivatives, Trajectories


def dice(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """DiCE weighs every reward with the ratios of all steps up to it, and has a baseline of single steps.

        Σ_t γᵗ r_t □_{≤t} + γᵀ V(s_T) □_{<T} + Σ_t γᵗ V(s_t) (1 − □_t),   □_t of step t alone

    The middle term bootstraps at the horizon. With a critic of zeros only the first term is left, whose derivatives are
    unbiased at any order.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, dice
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> dice(seen)  # the return, as every box is 1
        tensor([2.])
    """
    discount, value = trajectories.discount, trajectories.value
    box = magic_box(trajectories.log_prob.cumsum(-1))
    baseline = discount[..., :-1] * value[..., :-1] * (1 - magic_box(trajectories.log_prob))
    last = discount[..., -1] * value[..., -1] * box[..., -1]
    return (discount[..., :-1] * trajectories.reward * box + baseline).sum(-1) + last


def dice_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """The derivatives of `dice` in the log-probabilities have the rewards that follow a step, less its baseline.

        w_t = R_t − γᵗ V(s_t),   (F d)_t = Σ_{u≥t} ρ_u Σ_{v≤u} d_v − γᵗ V(s_t) d_t,   R_t = Σ_{u≥t} ρ_u

    ρ_u is γᵘ r_u, with γᵀ V(s_T) added at the last step.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, dice_derivatives
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> dice_derivatives(seen).first
        tensor([[2., 1.]])
    """
    baseline = trajectories.discount[..., :-1] * trajectories.value[..., :-1]
    to_go = reward_to_go(trajectories)
    of_rewards = product_by_later_step(to_go)  # Σ_{u≥t} ρ_u Σ_{v≤u} d_v, summed by parts

    def product(direction: Tensor) -> Tensor:
        return of_rewards(direction) - baseline * direction

    return LogProbDerivatives(to_go - baseline, None, product, through_rewards(trajectories))
