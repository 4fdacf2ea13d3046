"""TMAML (Liu, Socher and Xiong 2019, "Taming MAML: Efficient Unbiased Meta-Reinforcement Learning")."""

from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import magic_box
from gm_estimators.surrogates.dice import dice
from gm_estimators.surrogates.shared import product_by_later_step, reward_to_go, through_rewards
from gm_estimators.surrogates.trajectories import LogProbDerivatives, Trajectories


def tmaml(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """TMAML gives `dice` a control variate for its Hessian, too: dice − Σ_t γᵗ V(s_t) (1 − □_{<t}) (1 − □_t).

    Also Mao et al. 2019, "A Baseline for Any Order Gradient Estimation in Stochastic Computation Graphs". Given the
    past, (1 − □_t) and its derivatives have mean zero, so that nothing is biased. All terms together are

        Σ_t γᵗ r_t □_{≤t} + γᵀ V(s_T) □_{<T} − Σ_t γᵗ V(s_t) (□_{≤t} − □_{<t})

    and have the first two derivatives of `loaded_dice` with advantages Σ_{u≥t} γ^{u−t} r_u + γ^{T−t} V(s_T) − V(s_t).

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, tmaml
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> tmaml(seen).shape
        torch.Size([1])
    """
    discount, value = trajectories.discount, trajectories.value
    before = trajectories.log_prob.cumsum(-1) - trajectories.log_prob
    control = (1 - magic_box(before)) * (1 - magic_box(trajectories.log_prob))
    return dice(trajectories) - (discount[..., :-1] * value[..., :-1] * control).sum(-1)


def tmaml_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """The derivatives of `tmaml` are w_t = c_t and F_tu = c_max(t,u), c_t = Σ_{u≥t} γᵘ r_u + γᵀ V(s_T) − γᵗ V(s_t).

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, tmaml_derivatives
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> tmaml_derivatives(seen).first
        tensor([[2., 1.]])
    """
    weight = reward_to_go(trajectories) - trajectories.discount[..., :-1] * trajectories.value[..., :-1]
    return LogProbDerivatives(weight, None, product_by_later_step(weight), through_rewards(trajectories))
