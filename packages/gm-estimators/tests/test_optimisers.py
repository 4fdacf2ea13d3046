import pytest
import torch
from torch.testing import assert_close

from gm_estimators import ascent
from gm_estimators.optimisers import adam, adam_state, constant, global_norm, linear_decay

F64 = torch.float64


def sequence(steps):
    draw = torch.Generator().manual_seed(0)
    return [
        {"w": torch.randn(3, 2, generator=draw, dtype=F64), "b": torch.randn(2, generator=draw, dtype=F64)}
        for _ in range(steps)
    ]


def test_the_same_steps_as_torch_with_its_clipping():
    grads, rule = sequence(6), adam(linear_decay(0.1, 4), max_norm=0.5)
    params = {"w": torch.ones(3, 2, dtype=F64), "b": torch.zeros(2, dtype=F64)}
    state = adam_state(params)
    theirs = {name: torch.nn.Parameter(value.clone()) for name, value in params.items()}
    optimiser = torch.optim.Adam(theirs.values(), lr=0.1, maximize=True)
    for i, gradient in enumerate(grads):
        params, state = rule(params, gradient, state)
        optimiser.param_groups[0]["lr"] = 0.1 * max(0, 1 - i / 4)
        for name, value in theirs.items():
            value.grad = gradient[name].clone()
        torch.nn.utils.clip_grad_norm_(theirs.values(), 0.5)
        optimiser.step()
        assert_close(params, {name: value.data for name, value in theirs.items()}, rtol=0, atol=1e-12)
    assert state.step == 6


def test_derivatives_agree_with_differences():
    rule = adam(constant(0.1), max_norm=0.5, detach_clip=False)

    def twice(first, second):
        params = {"w": torch.zeros(3, dtype=F64)}
        params, state = rule(params, {"w": first}, adam_state(params))
        return rule(params, {"w": second}, state)[0]["w"]

    draw = torch.Generator().manual_seed(1)
    inputs = [torch.randn(3, generator=draw, dtype=F64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(twice, inputs)


def test_a_gradient_of_zero_has_a_finite_derivative():
    """θ′ = α g / (|g| + ε) in the first step, so that dθ′/dg = α/ε at 0; √v alone would give NaN there."""
    gradient = torch.tensor([0.0, 2.0], dtype=F64, requires_grad=True)
    params = {"w": torch.zeros(2, dtype=F64)}
    stepped, _ = adam(constant(0.1), eps=1e-3)(params, {"w": gradient}, adam_state(params))
    (found,) = torch.autograd.grad(stepped["w"].sum(), gradient)
    assert found[0].item() == pytest.approx(0.1 / 1e-3)
    assert found[1].item() == pytest.approx(0.1 * 1e-3 / 2.001**2, rel=1e-6)


def test_a_norm_of_zero_has_a_derivative_of_zero():
    x = torch.zeros(2, dtype=F64, requires_grad=True)
    assert torch.autograd.grad(global_norm({"x": x}), x)[0].tolist() == [0.0, 0.0]


def test_clipping_shortens_long_gradients_only():
    params = {"a": torch.zeros(1, dtype=F64), "b": torch.zeros(1, dtype=F64)}
    gradient = {"a": torch.tensor([3.0], dtype=F64), "b": torch.tensor([4.0], dtype=F64)}
    assert global_norm(gradient).item() == 5
    for max_norm, expected in ((1.0, (0.6, 0.8)), (6.0, (3.0, 4.0)), (None, (3.0, 4.0))):
        stepped, _ = ascent(1.0, max_norm=max_norm)(params, gradient, None)
        assert [value.item() for value in stepped.values()] == pytest.approx(expected, rel=1e-6)


def test_linear_decay_ends_at_zero():
    assert [linear_decay(2.0, 4)(i) for i in (0, 1, 4, 5)] == [2.0, 1.5, 0.0, 0.0]


def test_another_optimisers_state_is_refused():
    with pytest.raises(TypeError, match="state: expected an AdamState, got dict"):
        adam(constant(0.1))({}, {}, {"step": 3})


def test_adam_begins_with_moments_of_zero_and_takes_a_number_for_its_rate():
    params, gradient = {"x": torch.tensor([1.0, 2.0])}, {"x": torch.tensor([3.0, -4.0])}
    (stepped, state), (same, other) = (
        adam(0.1)(params, gradient, None),
        adam(constant(0.1))(params, gradient, adam_state(params)),
    )
    assert torch.equal(stepped["x"], same["x"])
    assert state.step == other.step == 1
