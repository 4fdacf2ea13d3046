"""Score-function surrogates: functions whose derivatives estimate those of the expected return.

Every surrogate maps `Trajectories` to one number per trajectory; an estimate is the mean over trajectories of its
derivative with respect to the policy parameters. Write d_t = γᵗ, A_t for the advantage, ⊥ for stop-gradient and
□_{≤t} = exp(Σ_{u≤t} log π_u − ⊥Σ_{u≤t} log π_u). On the same samples the gradients of `ad`, `lvc` and `loaded_dice` are
equal, Σ_t d_t A_t ∇log π_t; only their Hessians differ.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import magic_box
from gm_estimators.returns import returns_to_go


@dataclass(frozen=True)
class Trajectories:
    """What a surrogate may read of n trajectories of T steps.

    Attributes:
        log_prob: log π_θ(a_t | s_t), differentiable in θ, shape `[*batch, n, T]`.
        reward: r_t, same shape.
        value: critic V(s_0) … V(s_T), shape `[*batch, n, T + 1]`; zeros without a critic.
        advantage: A_t, same shape as `log_prob`, constant in θ.
        discount: γᵗ (zero after an episode's end), broadcasts to `log_prob`; `[T + 1]` last, so that γᵀ weights V(s_T).
    """

    log_prob: Float[Tensor, "*batch trajectory time"]
    reward: Float[Tensor, "*batch trajectory time"]
    value: Float[Tensor, "*batch trajectory time_plus_1"]
    advantage: Float[Tensor, "*batch trajectory time"]
    discount: Float[Tensor, "*any time_plus_1"]


@runtime_checkable
class Surrogate(Protocol):
    """A function from `Trajectories` to one number per trajectory, shape `[*batch, n]`."""

    def __call__(self, trajectories: Trajectories, /) -> Tensor:
        """One number per trajectory."""


def ad(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """Automatic differentiation of the policy-gradient loss: Σ_t d_t A_t log π_t.

    Its Hessian lacks the terms in ∇log π ∇log πᵀ (Finn et al. 2017, "Model-Agnostic Meta-Learning …"; paper,
    Section 4.2).
    """
    return (trajectories.discount[..., :-1] * trajectories.advantage * trajectories.log_prob).sum(-1)


def lvc(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """Low-variance curvature: Σ_t d_t A_t π_t / ⊥π_t (Rothfuss et al. 2019, "ProMP: Proximal Meta-Policy Search").

    Its Hessian lacks the products of scores at different times.
    """
    return (trajectories.discount[..., :-1] * trajectories.advantage * magic_box(trajectories.log_prob)).sum(-1)


def loaded_dice(trajectories: Trajectories, decay: float = 1.0) -> Float[Tensor, "*batch trajectory"]:
    """Loaded DiCE: Σ_t d_t A_t (□_{≤t} − □_{<t}).

    Farquhar, Whiteson and Foerster 2019, "Loaded DiCE: Trading off Bias and Variance in Any-Order Score Function
    Estimators for Reinforcement Learning".

    λ < 1 discounts what earlier actions have to do with later advantages, □_{≤t} = □(Σ_{u≤t} λ^{t−u} log π_u) and
    □_{<t} the same without log π_t: products of scores at times u < t count λ^{t−u}. At λ = 1 all derivatives are
    unbiased if the advantages are; λ = 0 has the Hessian of `lvc`. Their τ is the λ of `returns.gae`.

    Args:
        trajectories: the trajectories.
        decay: λ.

    Returns:
        One number per trajectory.
    """
    cumulative = decayed_cumsum(trajectories.log_prob, decay)
    difference = magic_box(cumulative) - magic_box(cumulative - trajectories.log_prob)
    return (trajectories.discount[..., :-1] * trajectories.advantage * difference).sum(-1)


def dice(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """DiCE: Σ_t d_t r_t □_{≤t} + d_T V(s_T) □_{<T} + Σ_t d_t V(s_t) (1 − □_t), with □_t of step t alone.

    Foerster et al. 2018, "DiCE: The Infinitely Differentiable Monte Carlo Estimator"; the middle term bootstraps at the
    horizon. With a critic of zeros only the first term is left, whose derivatives are unbiased at any order.
    """
    discount, value = trajectories.discount, trajectories.value
    box = magic_box(trajectories.log_prob.cumsum(-1))
    baseline = discount[..., :-1] * value[..., :-1] * (1 - magic_box(trajectories.log_prob))
    return (discount[..., :-1] * trajectories.reward * box + baseline).sum(-1) + discount[..., -1] * value[
        ..., -1
    ] * box[..., -1]


def decayed_cumsum(x: Float[Tensor, "*batch time"], decay: float) -> Float[Tensor, "*batch time"]:
    """y_t = Σ_{u≤t} λ^{t−u} x_u."""
    return x.cumsum(-1) if decay == 1 else returns_to_go(x.flip(-1), decay).flip(-1)


def tmaml(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """DiCE with a control variate for its Hessian, too: `dice` − Σ_t d_t V(s_t) (1 − □_{<t}) (1 − □_t).

    Liu, Socher and Xiong 2019, "Taming MAML: Efficient Unbiased Meta-Reinforcement Learning"; Mao et al. 2019, "A
    Baseline for Any Order Gradient Estimation in Stochastic Computation Graphs". Given the past, (1 − □_t) and its
    derivatives have mean zero, so that nothing is biased. All terms together are

        Σ_t d_t r_t □_{≤t} + d_T V(s_T) □_{<T} − Σ_t d_t V(s_t) (□_{≤t} − □_{<t})

    and have the first two derivatives of `loaded_dice` with advantages Σ_{u≥t} γ^{u−t} r_u + γ^{T−t} V(s_T) − V(s_t).
    """
    discount, value = trajectories.discount, trajectories.value
    before = trajectories.log_prob.cumsum(-1) - trajectories.log_prob
    control = (1 - magic_box(before)) * (1 - magic_box(trajectories.log_prob))
    return dice(trajectories) - (discount[..., :-1] * value[..., :-1] * control).sum(-1)


def discounted_return(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """Σ_t d_t r_t + d_T V(s_T)."""
    last = trajectories.discount[..., -1] * trajectories.value[..., -1]
    return (trajectories.discount[..., :-1] * trajectories.reward).sum(-1) + last


def reward_to_go(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory time"]:
    """Σ_{u≥t} d_u r_u + d_T V(s_T): the discounted return that step t shares in, seen from time 0."""
    discounted = trajectories.discount[..., :-1] * trajectories.reward
    last = trajectories.discount[..., -1] * trajectories.value[..., -1]
    return discounted.flip(-1).cumsum(-1).flip(-1) + last.unsqueeze(-1)


def mean_surrogate(surrogate: Surrogate, trajectories: Trajectories) -> Float[Tensor, "*batch"]:
    """(1/n) Σ_n surrogate: the objective whose derivatives are the estimates.

    Raises:
        ValueError: if the surrogate does not give one number per trajectory.
    """
    per_trajectory = surrogate(trajectories)
    expected = trajectories.log_prob.shape[:-1]
    got = getattr(per_trajectory, "shape", None)
    if not isinstance(per_trajectory, torch.Tensor) or per_trajectory.shape != expected:
        found = f"a {type(per_trajectory).__name__}" if got is None else f"shape {tuple(got)}"
        raise ValueError(f"surrogate: expected one number per trajectory, shape {tuple(expected)}, got {found}")
    return per_trajectory.mean(-1)
