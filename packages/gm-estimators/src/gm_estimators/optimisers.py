"""Steps of optimisers as differentiable functions: gradient ascent, Adam, clipping, learning rates that decay."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from gm_estimators.parameters import detached

__all__ = [
    "AdamState", "Update", "adam", "adam_state", "ascent", "clip_coefficient", "constant", "global_norm",
    "linear_decay",
]  # fmt: skip

Tensors = dict[str, Tensor]


@runtime_checkable
class Update(Protocol):
    """One step θ → θ′ of an optimiser that ascends; stateful ones (Adam) keep differentiable state in `state`."""

    def __call__(self, params: Tensors, gradient: Tensors, state: object, /) -> tuple[Tensors, object]:
        """The step gives (θ′, new state)."""


@dataclass(frozen=True)
class AdamState:
    """What Adam remembers: the updates so far and the decaying means m of gradients and v of their squares."""

    step: int
    first: Tensors
    second: Tensors

    def detached(self) -> "AdamState":
        """The state loses its history."""
        return AdamState(self.step, detached(self.first), detached(self.second))


def adam_state(params: Tensors) -> AdamState:
    """Adam begins with moments of zero."""
    return AdamState(0, *({name: torch.zeros_like(value) for name, value in params.items()} for _ in range(2)))


def linear_decay(initial: float, updates: int) -> Callable[[int], float]:
    """The learning rate falls to zero in N updates: α_i = α_0 max(0, 1 − i / N)."""
    return lambda step: initial * max(0.0, 1 - step / updates)


def constant(value: float) -> Callable[[int], float]:
    """The learning rate stays as it is: α_i = α_0."""
    return lambda _step: value


def global_norm(tensors: Tensors) -> Float[Tensor, ""]:
    """All entries of all tensors have the norm √(Σ x²), with derivative 0 where that is 0."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x) for x in tensors.values()]))
    return norm


def clip_coefficient(gradient: Tensors, max_norm: float) -> Float[Tensor, ""]:
    """A gradient longer than c is shortened by min(1, c / ‖g‖)."""
    return (max_norm / (global_norm(gradient) + 1e-6)).clamp(max=1)


def ascent(inner_lr: float | Tensor, *, max_norm: float | None = None, detach_clip: bool = True) -> Update:
    """Gradient ascent goes to θ′ = θ + α g, with clipping to θ′ = θ + α g · min(1, c / ‖g‖), c = `max_norm`; no state.

    With `detach_clip` the clipping coefficient counts as a constant in derivatives.
    """

    def update(params: Tensors, gradient: Tensors, state: object) -> tuple[Tensors, object]:
        if max_norm is None:
            return {name: value + inner_lr * gradient[name] for name, value in params.items()}, state
        coefficient = clip_coefficient(gradient, max_norm)
        coefficient = coefficient.detach() if detach_clip else coefficient
        stepped = {name: value + inner_lr * coefficient.to(value) * gradient[name] for name, value in params.items()}
        return stepped, state

    return update


class _AdamStep(torch.autograd.Function):
    """One step of Adam, whose derivatives take few passes.

        m′ = β₁ m + (1 − β₁) g,   v′ = β₂ v + (1 − β₂) g²,   θ′ = θ + s m′ / (√v′ + c)

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
    """Adam ascends, differentiable through its moments (Kingma and Ba 2015, "Adam", Algorithm 1), with an `AdamState`.

        g ← g · min(1, c / ‖g‖),   m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
        θ ← θ + α_i (m / (1 − β₁ⁱ⁺¹)) / (√(v / (1 − β₂ⁱ⁺¹)) + ε)

    `learning_rate` is α_i by the number i of updates before this one; clipping is as in `ascent`.
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
            moved = _AdamStep.apply(value, gradient[name], state.first[name], state.second[name], betas, scale, shift)
            for tensors, tensor in zip(stepped, moved, strict=True):
                tensors[name] = tensor
        return stepped[0], AdamState(i, *stepped[1:])

    return update
