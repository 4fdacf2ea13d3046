"""Convolution whose derivatives of every order are three operations, each computed only where it is needed.

Torch's own second derivative of a convolution also computes that of the frames, which nothing asks for and which costs
more than all the rest, and moves its tensors between memory orders.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, linear


def convolution(
    x: Float[Tensor, "batch channel height width"], weight: Float[Tensor, "out channel side side"],
    bias: Float[Tensor, "out"], stride: int, *, first_order: bool = False,
    known: Float[Tensor, "batch out height_out width_out"] | None = None,
) -> Float[Tensor, "batch out height_out width_out"]:  # fmt: skip
    """The map (x, w, b) → x ∗ w + b, without padding; with its two adjoints it is closed under differentiation.

        ⟨g, x ∗ w⟩ = ⟨g ∗ᵀ w, x⟩ = ⟨g ⋆ x, w⟩

    A `known` result isn't computed again. With `first_order` the adjoints count w and x as constants: right if nothing
    but g depends on what they are differentiated by next, and half the cost of the second derivative.
    """
    if known is None and not torch.is_grad_enabled():  # acting, for which the bookkeeping costs as much as the work
        return conv2d(x, weight, bias, stride)
    y: Tensor = _Convolution.apply(x, weight, bias, stride, first_order, known)
    return y


def dense(
    x: Float[Tensor, "batch in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, "out"],
    known: Float[Tensor, "batch out"] | None = None,
) -> Float[Tensor, "batch out"]:  # fmt: skip
    """The map (x, W, b) → W x + b; a `known` result isn't computed again."""
    if known is None:
        return linear(x, weight, bias)
    y: Tensor = _KnownLinear.apply(x, weight, bias, known)
    return y


def rectified(x: Float[Tensor, "*shape"], *, known: bool = False) -> Float[Tensor, "*shape"]:
    """The map x → max(x, 0), in place, of a tensor that nothing else needs; a `known` one has been rectified before.

    Its second derivative is zero where there is one; torch's own fills tensors with these zeros and adds them up.
    """
    if not torch.is_grad_enabled():
        return x if known else x.relu_()
    y: Tensor = _Rectified.apply(x, known)
    return y


def _adjoints(g: Tensor, x: Tensor, weight: Tensor, stride: int, mask: list[bool]) -> Any:
    """(g ∗ᵀ w, g ⋆ x, Σ g), `None` where the mask is false."""
    zeros, ones = [0, 0], [1, 1]
    return torch.ops.aten.convolution_backward(
        g, x, weight, [weight.shape[0]], [stride, stride], zeros, ones, False, zeros, 1, mask
    )


class _Convolution(torch.autograd.Function):
    """x ∗ w + b."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, first_order: bool = False,
        known: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.first_order = stride, first_order
        return conv2d(x, weight, bias, stride) if known is None else known.view_as(known)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (x, weight) = grads, ctx.saved_tensors
        if ctx.first_order:
            x, weight = x.detach(), weight.detach()
        by_x = _ByImages.apply(g, weight, x.detach(), ctx.stride) if ctx.needs_input_grad[0] else None
        by_weight, by_bias = _ByFilters.apply(g, x, weight.detach(), ctx.stride)
        return by_x, by_weight, by_bias if ctx.needs_input_grad[2] else None, None, None, None


class _ByImages(torch.autograd.Function):
    """g ∗ᵀ w, of the shape of x."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, x: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(g, weight)
        ctx.stride = stride
        by_x: Tensor = _adjoints(g, x, weight, stride, [True, False, False])[0]
        return by_x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (h,), (g, weight) = grads, ctx.saved_tensors
        by_g = _Convolution.apply(h, weight, None, ctx.stride) if ctx.needs_input_grad[0] else None
        by_weight = _ByFilters.apply(g, h, weight.detach(), ctx.stride)[0] if ctx.needs_input_grad[1] else None
        return by_g, by_weight, None, None


class _ByFilters(torch.autograd.Function):
    """(g ⋆ x, Σ g), of the shapes of w and b."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(g, x)
        ctx.stride = stride
        _, by_weight, by_bias = _adjoints(g, x, weight, stride, [False, True, True])
        return by_weight, by_bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (h, by_sum), (g, x) = grads, ctx.saved_tensors
        by_g = _Convolution.apply(x, h, by_sum, ctx.stride) if ctx.needs_input_grad[0] else None
        by_x = _ByImages.apply(g, h, x.detach(), ctx.stride) if ctx.needs_input_grad[1] else None
        return by_g, by_x, None, None


class _Rectified(torch.autograd.Function):
    """max(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, known: bool) -> Tensor:
        if known:
            y = x.view_as(x)
        else:
            ctx.mark_dirty(x)
            y = x.relu_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return _Gated.apply(grads[0], y.detach()), None


class _Gated(torch.autograd.Function):
    """g where y > 0, else 0."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        gated: Tensor = torch.ops.aten.threshold_backward(g, y, 0)
        return gated

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return _Gated.apply(grads[0], y), None


class _KnownLinear(torch.autograd.Function):
    """W x + b, of which the value is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, _bias: Tensor, known: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return known.view_as(known)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (x, weight) = grads, ctx.saved_tensors
        by_x = g @ weight if ctx.needs_input_grad[0] else None
        return by_x, g.mT @ x, g.sum(0), None
