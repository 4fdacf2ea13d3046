"""Adam as a differentiable function, with gradient clipping and a learning rate that decays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.inner_loop import Update

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class AdamState:
    """What Adam remembers.

    Attributes:
        step: updates so far.
        first: m, decaying mean of gradients.
        second: v, decaying mean of their squares.
    """

    step: int
    first: Tensors
    second: Tensors

    def detached(self) -> "AdamState":
        """The same state without its history."""
        return AdamState(self.step, detached(self.first), detached(self.second))


def detached(tensors: Tensors) -> Tensors:
    """The same tensors without their history."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def adam_state(params: Tensors) -> AdamState:
    """The state before the first update."""
    return AdamState(0, *({name: torch.zeros_like(value) for name, value in params.items()} for _ in range(2)))


def linear_decay(initial: float, updates: int) -> Callable[[int], float]:
    """α_i = α_0 max(0, 1 − i / N)."""
    return lambda step: initial * max(0.0, 1 - step / updates)


def constant(value: float) -> Callable[[int], float]:
    """α_i = α_0."""
    return lambda _step: value


class _SafeSqrt(torch.autograd.Function):
    """√x, d√x/dx = 1 / (2 √x), 0 at 0: one pass each way over what may be millions of entries."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        slope: Tensor = grads[0] / (2 * root)
        return slope.masked_fill_(root == 0, 0)


def safe_sqrt(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """√x with derivative 0 at 0, where Adam's own is 0 · ∞: v = 0 only where every gradient so far was 0."""
    root: Tensor = _SafeSqrt.apply(x)
    return root


def global_norm(tensors: Tensors) -> Float[Tensor, ""]:
    """√(Σ x²) over all entries of all tensors."""
    return safe_sqrt(torch.stack([tensor.square().sum() for tensor in tensors.values()]).sum())


def clip_coefficient(gradient: Tensors, max_norm: float) -> Float[Tensor, ""]:
    """min(1, c / ‖g‖)."""
    return (max_norm / (global_norm(gradient) + 1e-6)).clamp(max=1)


def adam(
    learning_rate: Callable[[int], float],
    *,
    max_norm: float | None = None,
    detach_clip: bool = True,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Update:
    """One ascent step of Adam, differentiable through its moments (Kingma and Ba 2015, "Adam", Algorithm 1).

        g ← g · min(1, c / ‖g‖),   m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
        θ ← θ + α_i (m / (1 − β₁ⁱ⁺¹)) / (√(v / (1 − β₂ⁱ⁺¹)) + ε)

    Args:
        learning_rate: α_i by the number i of updates before this one.
        max_norm: c; no clipping if `None`.
        detach_clip: whether the clipping coefficient counts as a constant in derivatives.
        betas: (β₁, β₂).
        eps: ε.

    Returns:
        The rule, for `gm_estimators.inner_loop`, whose state is an `AdamState`.
    """
    beta1, beta2 = betas

    def update(params: Tensors, gradient: Tensors, state: object) -> tuple[Tensors, AdamState]:
        if not isinstance(state, AdamState):
            raise TypeError(f"state: expected an AdamState, got {type(state).__name__}")
        if max_norm is not None:
            coefficient = clip_coefficient(gradient, max_norm)
            coefficient = coefficient.detach() if detach_clip else coefficient
            gradient = {name: g * coefficient for name, g in gradient.items()}
        alpha, i = learning_rate(state.step), state.step + 1
        first = {name: torch.add(beta1 * state.first[name], g, alpha=1 - beta1) for name, g in gradient.items()}
        second = {
            name: torch.addcmul(beta2 * state.second[name], g, g, value=1 - beta2) for name, g in gradient.items()
        }
        root = (1 - beta2**i) ** 0.5  # √(v / root²) + ε = (√v + ε root) / root
        scale = alpha * root / (1 - beta1**i)
        stepped = {
            name: torch.addcdiv(value, first[name], safe_sqrt(second[name]) + eps * root, value=scale)
            for name, value in params.items()
        }
        return stepped, AdamState(i, first, second)

    return update


def clipped_ascent(learning_rate: float, *, max_norm: float | None = None, detach_clip: bool = True) -> Update:
    """θ ← θ + α g · min(1, c / ‖g‖): plain gradient ascent, its arguments as in `adam`."""

    def update(params: Tensors, gradient: Tensors, state: object) -> tuple[Tensors, object]:
        coefficient = torch.ones(()) if max_norm is None else clip_coefficient(gradient, max_norm)
        coefficient = coefficient.detach() if detach_clip else coefficient
        return {
            name: value + learning_rate * coefficient.to(value) * gradient[name] for name, value in params.items()
        }, state

    return update
