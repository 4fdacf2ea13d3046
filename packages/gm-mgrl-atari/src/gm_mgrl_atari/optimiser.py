"""Adam as a differentiable function, with gradient clipping and a learning rate that decays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

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


def global_norm(tensors: Tensors) -> Float[Tensor, ""]:
    """√(Σ x²) over all entries of all tensors, with derivative 0 where that is 0."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x) for x in tensors.values()]))
    return norm


def clip_coefficient(gradient: Tensors, max_norm: float) -> Float[Tensor, ""]:
    """min(1, c / ‖g‖)."""
    return (max_norm / (global_norm(gradient) + 1e-6)).clamp(max=1)


class _AdamStep(torch.autograd.Function):
    """m′ = β₁ m + (1 − β₁) g, v′ = β₂ v + (1 − β₂) g², θ′ = θ + s m′ / (√v′ + c), and derivatives in few passes.

    d√v/dv is taken as 0 at v = 0, where every gradient so far was 0 and Adam's own derivative would be 0 · ∞.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        g: Tensor,
        first: Tensor,
        second: Tensor,
        betas: tuple[float, float],
        scale: float,
        shift: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        first = torch.lerp(first, g, 1 - betas[0])
        second = (second * betas[1]).addcmul_(g, g, value=1 - betas[1])
        ctx.save_for_backward(g, first, second)
        ctx.betas, ctx.scale, ctx.shift = betas, scale, shift
        return torch.addcdiv(value, first, second.sqrt().add_(shift), value=scale), first, second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (by_value, by_first, by_second), (g, first, second) = grads, ctx.saved_tensors
        root = second.sqrt()
        ratio = by_value * ctx.scale / (root + ctx.shift)
        by_first = by_first + ratio
        slope = (ratio.mul_(first) / (root + ctx.shift)).div_(2 * root).masked_fill_(root == 0, 0)
        by_second = by_second - slope
        by_g = (by_first * (1 - ctx.betas[0])).addcmul_(by_second, g, value=2 * (1 - ctx.betas[1]))
        return by_value, by_g, by_first.mul_(ctx.betas[0]), by_second.mul_(ctx.betas[1]), None, None, None


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
            coefficient = clip_coefficient(detached(gradient) if detach_clip else gradient, max_norm)
            gradient = {name: g * coefficient for name, g in gradient.items()}
        i = state.step + 1
        root = (1 - beta2**i) ** 0.5  # √(v / root²) + ε = (√v + ε root) / root
        scale, shift = learning_rate(state.step) * root / (1 - beta1**i), eps * root
        stepped: list[Tensors] = [{}, {}, {}]
        for name, value in params.items():
            found = _AdamStep.apply(value, gradient[name], state.first[name], state.second[name], betas, scale, shift)
            for tensors, tensor in zip(stepped, found, strict=True):
                tensors[name] = tensor
        return stepped[0], AdamState(i, *stepped[1:])

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
