"""First and second derivatives of a surrogate with respect to the log-probabilities ℓ_t = log π(a_t | s_t).

A surrogate f depends on θ through ℓ alone, so that the chain rule splits its derivatives into a part that every
policy class shares and one that knows the policy:

    ∇f = Σ_t w_t ∇ℓ_t,                     w_t = ∂f/∂ℓ_t
    ∇²f v = Σ_t (F d)_t ∇ℓ_t + Σ_t w_t ∇²ℓ_t v,   F_tu = ∂²f/∂ℓ_t∂ℓ_u,  d_t = ∇ℓ_tᵀ v

The surrogates of this package have w and F in closed form; any other gets them by automatic differentiation. Where
rewards, values and advantages depend on meta-parameters φ, the same split gives the mixed derivative from

    ∇φ ⟨∇f, v⟩ = Σ_x (∂⟨w, d⟩/∂x) ∇φ x,   x = rewards, values, advantages
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.returns import returns_to_go, reverse_cumsum
from gm_estimators.surrogates import Surrogate, Trajectories, decayed_cumsum, mean_surrogate, reward_to_go


@dataclass(frozen=True)
class SignalCotangents:
    """∂⟨w, d⟩/∂x for what a surrogate reads beside log-probabilities; `None` where x does not enter.

    Attributes:
        reward: for r_t, shape `[*batch, n, T]`.
        value: for V(s_t), shape `[*batch, n, T + 1]`.
        advantage: for A_t, shape `[*batch, n, T]`.
    """

    reward: Float[Tensor, "*batch trajectory time"] | None = None
    value: Float[Tensor, "*batch trajectory time_plus_1"] | None = None
    advantage: Float[Tensor, "*batch trajectory time"] | None = None


@dataclass(frozen=True)
class LogProbDerivatives:
    """w and F of n surrogates, one per trajectory.

    Attributes:
        first: w_t, shape `[*batch, n, T]`.
        diagonal: F_tt, shape `[*batch, n, T]`, if F is diagonal; otherwise `None`.
        product: d ↦ F d, shape `[*batch, n, T]` to the same, if F is not diagonal.
        mixed: d ↦ ∂⟨w, d⟩/∂(rewards, values, advantages).
    """

    first: Float[Tensor, "*batch trajectory time"]
    diagonal: Float[Tensor, "*batch trajectory time"] | None
    product: Callable[[Tensor], Tensor] | None = None
    mixed: Callable[[Tensor], SignalCotangents] | None = None


DerivativesFunction = Callable[[Trajectories], LogProbDerivatives]


def ad_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """`ad`: w_t = d_t A_t, F = 0."""
    weight = trajectories.discount[..., :-1] * trajectories.advantage
    zero = torch.zeros((), dtype=weight.dtype, device=weight.device).expand_as(weight)
    return LogProbDerivatives(weight, zero, mixed=_through_advantages(trajectories))


def lvc_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """`lvc`: w_t = F_tt = d_t A_t."""
    weight = trajectories.discount[..., :-1] * trajectories.advantage
    return LogProbDerivatives(weight, weight, mixed=_through_advantages(trajectories))


def loaded_dice_derivatives(trajectories: Trajectories, decay: float = 1.0) -> LogProbDerivatives:
    """`loaded_dice`: w_t = c_t = d_t A_t, (F d)_t = c_t Σ_{u≤t} λ^{t−u} d_u + Σ_{u>t} λ^{u−t} c_u d_u."""
    weight = trajectories.discount[..., :-1] * trajectories.advantage
    return LogProbDerivatives(weight, None, _both_ways(weight, decay), _through_advantages(trajectories))


def _both_ways(weight: Tensor, decay: float = 1.0) -> Callable[[Tensor], Tensor]:
    """D ↦ F d with F_tu = λ^{|t−u|} c_max(t,u)."""

    def product(direction: Tensor) -> Tensor:
        cross = weight * direction
        after = (reverse_cumsum(cross) if decay == 1 else returns_to_go(cross, decay)) - cross
        return weight * decayed_cumsum(direction, decay) + after

    return product


def _through_advantages(trajectories: Trajectories) -> Callable[[Tensor], SignalCotangents]:
    """∂⟨w, d⟩/∂A_t = γᵗ d_t, because w_t = γᵗ A_t."""
    return lambda direction: SignalCotangents(advantage=trajectories.discount[..., :-1] * direction)


def dice_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """`dice`: w_t = Σ_{u≥t} d_u r_u + d_T V(s_T) − d_t V(s_t), (F d)_t = Σ_{u≥t} ρ_u Σ_{v≤u} d_v − d_t V(s_t) d_t.

    ρ_u is d_u r_u, with d_T V(s_T) added at the last step.
    """
    baseline = trajectories.discount[..., :-1] * trajectories.value[..., :-1]
    to_go = reward_to_go(trajectories)
    rewards = _both_ways(to_go)  # Σ_{u≥t} ρ_u Σ_{v≤u} d_v, summed by parts

    def product(direction: Tensor) -> Tensor:
        return rewards(direction) - baseline * direction

    return LogProbDerivatives(to_go - baseline, None, product, _through_rewards(trajectories))


def tmaml_derivatives(trajectories: Trajectories) -> LogProbDerivatives:
    """`tmaml`: w_t = c_t = Σ_{u≥t} d_u r_u + d_T V(s_T) − d_t V(s_t), F as that of `loaded_dice`."""
    weight = reward_to_go(trajectories) - trajectories.discount[..., :-1] * trajectories.value[..., :-1]
    return LogProbDerivatives(weight, None, _both_ways(weight), _through_rewards(trajectories))


def _through_rewards(trajectories: Trajectories) -> Callable[[Tensor], SignalCotangents]:
    """∂⟨w, d⟩/∂(r_t, V(s_t)) for w_t = Σ_{u≥t} d_u r_u + d_T V(s_T) − d_t V(s_t)."""

    def mixed(direction: Tensor) -> SignalCotangents:
        # ∂⟨w, d⟩/∂r_u = γᵘ Σ_{t≤u} d_t, ∂/∂V(s_t) = −γᵗ d_t, ∂/∂V(s_T) = γᵀ Σ_t d_t
        summed = direction.cumsum(-1)
        value = torch.cat([-direction, summed[..., -1:]], dim=-1)
        return SignalCotangents(reward=trajectories.discount[..., :-1] * summed, value=trajectories.discount * value)

    return mixed


def automatic_derivatives(surrogate: Surrogate, trajectories: Trajectories) -> LogProbDerivatives:
    """∂f/∂ℓ and ∂²f/∂ℓ² of any surrogate by automatic differentiation in the log-probabilities.

    Args:
        surrogate: the function.
        trajectories: its argument.

    Returns:
        Its derivatives.

    Raises:
        ValueError: if it gives another shape than one number per trajectory, does not depend on the
            log-probabilities, or has a gradient that is not finite.
    """
    leaf = trajectories.log_prob.detach().requires_grad_()
    mean = mean_surrogate(surrogate, replace(trajectories, log_prob=leaf))
    if not mean.requires_grad:
        raise ValueError("surrogate: expected a differentiable function of trajectories.log_prob, got a constant")
    total = mean.sum() * leaf.shape[-2]
    (first,) = torch.autograd.grad(total, leaf, create_graph=True)
    if not bool(first.isfinite().all()):
        raise ValueError("surrogate: expected a finite gradient in trajectories.log_prob, got NaN or infinity")

    def mixed(direction: Tensor) -> SignalCotangents:
        return _automatic_mixed(surrogate, trajectories, direction)

    if not first.requires_grad:
        return LogProbDerivatives(first, torch.zeros_like(first), mixed=mixed)

    def product(direction: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(
            (first * direction).sum(), leaf, retain_graph=True, materialize_grads=True, allow_unused=True
        )
        return result

    return LogProbDerivatives(first.detach(), None, product, mixed)


def _automatic_mixed(surrogate: Surrogate, trajectories: Trajectories, direction: Tensor) -> SignalCotangents:
    """∂⟨w, d⟩/∂(rewards, values, advantages), with a graph of its own so that others need not carry it."""
    leaf = trajectories.log_prob.detach().requires_grad_()
    names = ("reward", "value", "advantage")
    signals = {name: getattr(trajectories, name).detach().requires_grad_() for name in names}
    total = mean_surrogate(surrogate, replace(trajectories, log_prob=leaf, **signals)).sum() * leaf.shape[-2]
    (first,) = torch.autograd.grad(total, leaf, create_graph=True)
    if not first.requires_grad:
        return SignalCotangents()
    found = torch.autograd.grad((first * direction).sum(), list(signals.values()), allow_unused=True)
    return SignalCotangents(*found)
