"""Steps of optimisers as differentiable functions: gradient ascent, Adam, clipping, learning rates that decay."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from gm_estimators.parameters import ParamsLike, as_dict, detached, read_params

__all__ = [
    "AdamState", "BatchedUpdate", "Update", "adam", "adam_state", "ascent", "clip_coefficient",
    "clipped_in_derivatives", "constant", "global_norm", "linear_decay",
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


def adam_state(params: ParamsLike) -> AdamState:
    """Adam begins with moments of zero; parameters are as in `parameters.read_params`.

    Examples:
        >>> import torch
        >>> from gm_estimators.optimisers import adam_state
        >>> adam_state({"x": torch.tensor([1.0])}).first
        {'x': tensor([0.])}
    """
    named = as_dict(read_params(params))
    return AdamState(0, *({name: torch.zeros_like(value) for name, value in named.items()} for _ in range(2)))


def linear_decay(initial: float, updates: int) -> Callable[[int], float]:
    """The learning rate falls to zero in N updates: α_i = α_0 max(0, 1 − i / N).

    Examples:
        >>> from gm_estimators.optimisers import linear_decay
        >>> rate = linear_decay(1.0, updates=4)
        >>> [rate(update) for update in range(5)]
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if not updates >= 1:
        raise ValueError(f"updates: expected at least 1, got {updates}")
    return lambda step: initial * max(0.0, 1 - step / updates)


def constant(value: float) -> Callable[[int], float]:
    """The learning rate stays as it is: α_i = α_0.

    Examples:
        >>> from gm_estimators.optimisers import constant
        >>> constant(0.1)(5)
        0.1
    """
    return lambda _step: value


def global_norm(tensors: Tensors, batch_axes: int = 0) -> Float[Tensor, "*batch"]:
    """All entries of all tensors have the norm √(Σ x²), with derivative 0 where that is 0.

    The first `batch_axes` axes stay: each element of a batch has a norm of its own.

    Examples:
        >>> import torch
        >>> from gm_estimators.optimisers import global_norm
        >>> global_norm({"weight": torch.tensor([3.0]), "bias": torch.tensor([4.0])})
        tensor(5.)
    """
    each = [_norm(x, batch_axes) for x in as_dict(tensors).values()]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(each, -1), dim=-1)
    return norm


def _norm(x: Tensor, batch_axes: int) -> Tensor:
    if x.ndim == batch_axes > 0:
        return x.abs()
    norm: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(batch_axes, x.ndim)) if batch_axes else None)
    return norm


def clip_coefficient(gradient: Tensors, max_norm: float, batch_axes: int = 0) -> Float[Tensor, "*batch"]:
    """A gradient longer than c is shortened by min(1, c / ‖g‖), in a batch each element's by itself.

    It is NaN where the norm overflows, not a step of zero.

    Examples:
        >>> import torch
        >>> from gm_estimators.optimisers import clip_coefficient
        >>> print(f"{clip_coefficient({'x': torch.tensor([3.0, 4.0])}, max_norm=1.0):.3f}")
        0.200
    """
    norm = global_norm(gradient, batch_axes)
    return (max_norm / (norm + 1e-6)).clamp(max=1).where(norm < math.inf, math.nan)


@runtime_checkable
class BatchedUpdate(Update, Protocol):
    """An update that can keep the elements of a batch apart, as `inner_loop` asks for where its objective has some."""

    def batched(self, axes: int, /) -> "BatchedUpdate":
        """The update of parameters whose first axes are those of a batch."""


@dataclass(frozen=True)
class _Clipping:
    """Clips by the norm of all tensors, or of one batch element's."""

    max_norm: float | None
    detach: bool
    batch_axes: int = 0

    def __post_init__(self) -> None:
        if self.max_norm is not None and not self.max_norm > 0:
            raise ValueError(f"max_norm: expected a positive number, got {self.max_norm}")

    def coefficients(self, gradient: Tensors) -> Tensors:
        """By name, of axes that broadcast."""
        assert self.max_norm is not None  # or there is nothing to clip
        axes = self.batch_axes
        shortened = clip_coefficient(detached(gradient) if self.detach else gradient, self.max_norm, axes)
        return {
            name: shortened.to(g).reshape((*shortened.shape, *[1] * (g.ndim - axes))) for name, g in gradient.items()
        }


@dataclass(frozen=True)
class _Ascent:
    """What `ascent` gives."""

    inner_lr: float | Tensor
    clipping: _Clipping

    def batched(self, axes: int) -> "_Ascent":
        """The same for parameters whose first axes are those of a batch."""
        return replace(self, clipping=replace(self.clipping, batch_axes=axes))

    def __call__(self, params: Tensors, gradient: Tensors, state: object) -> tuple[Tensors, object]:
        """θ′, and the state as it was."""
        if self.clipping.max_norm is None:
            stepped = {name: value + self.inner_lr * gradient[name] for name, value in params.items()}
        else:
            by = self.clipping.coefficients(gradient)
            stepped = {name: value + self.inner_lr * by[name] * gradient[name] for name, value in params.items()}
        for name, value in params.items():
            if stepped[name].shape != value.shape:
                shape, came = tuple(value.shape), tuple(stepped[name].shape)
                raise ValueError(
                    f"inner_lr: expected one that broadcasts to {name!r} of shape {shape}, got {came} by it"
                )
        return stepped, state


def ascent(inner_lr: float | Tensor, *, max_norm: float | None = None, detach_clip: bool = True) -> BatchedUpdate:
    """Gradient ascent goes to θ′ = θ + α g, with clipping to θ′ = θ + α g · min(1, c / ‖g‖), c = `max_norm`; no state.

    With `detach_clip` the clipping coefficient counts as a constant in derivatives.

    Examples:
        >>> import torch
        >>> from gm_estimators import ascent
        >>> stepped, _ = ascent(0.5)({"x": torch.tensor([1.0])}, {"x": torch.tensor([2.0])}, None)
        >>> stepped["x"]
        tensor([2.])
    """
    return _Ascent(inner_lr, _Clipping(max_norm, detach_clip))


def clipped_in_derivatives(update: Update) -> Update | None:
    """The same rule with a clipping coefficient that is differentiated; `None` if it holds none constant.

    Examples:
        >>> from gm_estimators.optimisers import ascent, clipped_in_derivatives
        >>> clipped_in_derivatives(ascent(0.1)) is None
        True
    """
    if not isinstance(update, _Ascent | _Adam) or update.clipping.max_norm is None or not update.clipping.detach:
        return None
    return replace(update, clipping=replace(update.clipping, detach=False))


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


@dataclass(frozen=True)
class _Adam:
    """What `adam` gives."""

    learning_rate: Callable[[int], float]
    clipping: _Clipping
    betas: tuple[float, float]
    eps: float

    def batched(self, axes: int) -> "_Adam":
        """The same for parameters whose first axes are those of a batch."""
        return replace(self, clipping=replace(self.clipping, batch_axes=axes))

    def __call__(self, params: Tensors, gradient: Tensors, state: object) -> tuple[Tensors, AdamState]:
        """θ′ and the new moments."""
        state = adam_state(params) if state is None else state
        if not isinstance(state, AdamState):
            raise TypeError(f"state: expected an AdamState, got {type(state).__name__}")
        if half := [name for name, value in params.items() if value.dtype == torch.float16]:
            raise TypeError(f"params: expected a type that holds g² and ε, got float16 in {half[0]!r}")
        if self.clipping.max_norm is not None:
            by = self.clipping.coefficients(gradient)
            gradient = {name: g * by[name] for name, g in gradient.items()}
        (beta1, beta2), i = self.betas, state.step + 1
        root = (1 - beta2**i) ** 0.5  # √(v / root²) + ε = (√v + ε root) / root
        scale, shift = self.learning_rate(state.step) * root / (1 - beta1**i), self.eps * root
        stepped: list[Tensors] = [{}, {}, {}]
        for name, value in params.items():
            moments = state.first[name].expand_as(value), state.second[name].expand_as(value)
            moved = _AdamStep.apply(value, gradient[name], *moments, self.betas, scale, shift)
            for tensors, tensor in zip(stepped, moved, strict=True):
                tensors[name] = tensor
        return stepped[0], AdamState(i, *stepped[1:])


def adam(
    learning_rate: float | Callable[[int], float],
    *,
    max_norm: float | None = None,
    detach_clip: bool = True,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> BatchedUpdate:
    """Adam ascends, differentiable through its moments (Kingma and Ba 2015, "Adam", Algorithm 1), with an `AdamState`.

    Without one it begins with moments of zero.

        g ← g · min(1, c / ‖g‖),   m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
        θ ← θ + α_i (m / (1 − β₁ⁱ⁺¹)) / (√(v / (1 − β₂ⁱ⁺¹)) + ε)

    `learning_rate` is α, or α_i as a function of the number i of updates before this one; clipping is as in `ascent`.

    Raises:
        ValueError: if a β is not in [0, 1), or ε is not positive.
        TypeError: if the learning rate is no number or function; at a step, if parameters are float16.

    Examples:
        >>> import torch
        >>> from gm_estimators.optimisers import adam
        >>> stepped, state = adam(0.1)({"x": torch.tensor([1.0])}, {"x": torch.tensor([5.0])}, None)
        >>> print(f"{stepped['x'].item():.2f}")
        1.10
    """
    if isinstance(learning_rate, int | float) and not isinstance(learning_rate, bool):
        learning_rate = constant(float(learning_rate))
    if not callable(learning_rate):
        raise TypeError(f"learning_rate: expected a number, or a function such as constant(0.1), got {learning_rate!r}")
    if not all(0 <= beta < 1 for beta in betas) or not eps > 0:
        raise ValueError(f"betas, eps: expected betas in [0, 1) and a positive eps, got {betas} and {eps}")
    return _Adam(learning_rate, _Clipping(max_norm, detach_clip), betas, eps)
