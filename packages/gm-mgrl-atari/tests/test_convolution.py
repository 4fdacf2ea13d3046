from functools import partial

import pytest
import torch
from torch.nn.functional import conv2d
from torch.testing import assert_close

from gm_mgrl_atari.convolution import convolution, rectified

F64 = torch.float64


@pytest.fixture(params=[torch.channels_last, torch.contiguous_format])
def inputs(request):
    """Images whose last row and column a stride of 2 leaves out, filters, biases."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, 2, 5, 5), (2, 2, 2, 2), (2,))
    x, weight, bias = (torch.randn(shape, generator=draw, dtype=F64) for shape in shapes)
    return [
        x.contiguous(memory_format=request.param).requires_grad_(),
        weight.contiguous(memory_format=request.param).requires_grad_(),
        bias.requires_grad_(),
    ]


def test_values_are_those_of_torch(inputs):
    assert_close(convolution(*inputs, 2), conv2d(*inputs, stride=2), rtol=0, atol=0)


def test_first_second_and_third_derivatives(inputs):
    function = partial(convolution, stride=2)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)

    def first(*tensors):
        return torch.autograd.grad(function(*tensors).pow(3).sum(), tensors, create_graph=True)

    assert torch.autograd.gradgradcheck(first, inputs, fast_mode=True)


def test_only_what_is_asked_for_is_computed(inputs, monkeypatch):
    """Frames need no derivative, neither in the first nor in the second order."""
    masks = []
    computed = torch.ops.aten.convolution_backward

    def recorded(*arguments):
        masks.append(arguments[-1])
        return computed(*arguments)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", recorded)
    x, weight, bias = inputs
    y = convolution(x.detach(), weight, bias, 2)
    (by_weight,) = torch.autograd.grad(y.pow(3).sum(), weight, create_graph=True)
    torch.autograd.grad(by_weight.pow(2).sum(), weight)
    assert masks == [[False, True, True]] * 2


def test_first_order_leaves_out_what_moves_filters_and_images(inputs):
    """∇g⟨∂y, h⟩ is kept, for coefficients that scale the objective; the derivative in w of the derivative isn't."""
    scale = torch.tensor(0.7, dtype=F64, requires_grad=True)

    def derivatives(first_order):
        y = convolution(*inputs, 2, first_order=first_order)
        grads = torch.autograd.grad((scale * y.pow(3)).sum(), inputs, create_graph=True)
        return grads, torch.autograd.grad(sum(g.pow(2).sum() for g in grads), [scale, inputs[1]])

    (whole, (by_scale, by_weight)), (lean, (lean_by_scale, lean_by_weight)) = (derivatives(x) for x in (False, True))
    assert_close(whole, lean, rtol=0, atol=0)
    assert_close(by_scale, lean_by_scale)
    assert (by_weight - lean_by_weight).abs().max() > 1e-3


@pytest.mark.parametrize("known", [False, True])
def test_rectified_has_the_derivatives_of_relu(known):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, generator=draw, dtype=F64)
    weight = torch.randn(3, generator=draw, dtype=F64, requires_grad=True)

    def derivatives(function):
        leaf = (x.relu() if known else x).clone().requires_grad_()
        first = torch.autograd.grad(function(leaf * weight.abs()).pow(3).sum(), [leaf, weight], create_graph=True)
        return first, torch.autograd.grad(first[0].pow(2).sum() + first[1].pow(2).sum(), [leaf, weight])

    assert_close(derivatives(partial(rectified, known=known)), derivatives(torch.relu), rtol=0, atol=1e-12)
    negative = torch.tensor([-1.0, 2.0])
    assert torch.equal(rectified(negative.clone(), known=known), negative if known else negative.relu())
