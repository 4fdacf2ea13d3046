import pytest
import torch
from torch.testing import assert_close

from gm_estimators.operators import decomposed_step, likelihood_ratio, magic_box

X = torch.tensor([-2.0, 0.5, 30.0], dtype=torch.float64)


def test_magic_box_is_one_with_the_derivatives_of_the_exponential():
    # □(x²) = 1, d/dx = 2x, d²/dx² = 2 + 4x²
    x = X.clone().requires_grad_()
    box = magic_box(x**2)
    (first,) = torch.autograd.grad(box.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(box, torch.ones(3, dtype=torch.float64))
    assert_close(first, 2 * X)
    assert_close(second, 2 + 4 * X**2)


def test_likelihood_ratio_divides_by_a_constant_behaviour():
    log_prob = X.clone().requires_grad_()
    behaviour = (X - torch.tensor([0.0, 1.0, -1.0])).requires_grad_()
    ratio = likelihood_ratio(log_prob, behaviour)
    assert_close(ratio, torch.tensor([1.0, torch.e, 1 / torch.e], dtype=torch.float64))
    ratio.sum().backward()
    assert_close(log_prob.grad, ratio.detach())
    assert behaviour.grad is None
    assert torch.equal(likelihood_ratio(log_prob), magic_box(log_prob))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decomposed_step_has_one_value_and_another_derivative(dtype):
    x = torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    step = decomposed_step(7 * x, x**3)
    assert step.tolist() == [7.0, 14.0]
    (slope,) = torch.autograd.grad(step.sum(), x, create_graph=True)
    assert_close(slope, 3 * x**2)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert_close(curvature, 6 * x)
