import pytest
import torch
from torch.testing import assert_close

from gm_estimators import ascent, inner_loop

F64 = torch.float64
CURVATURE = torch.tensor([[-2.0, 0.5], [0.5, -1.0]], dtype=F64)
START = torch.tensor([1.0, -1.0], dtype=F64)


def quadratic(meta_params, params, step):
    """½ θᵀHθ + φᵀθ, with gradient Hθ + φ."""
    return 0.5 * params @ CURVATURE @ params + meta_params @ params


@pytest.mark.parametrize("inner_steps", [1, 2, 3, 4])
def test_steps_on_a_quadratic_have_a_closed_form(inner_steps):
    # θᴷ = Mᴷθ⁰ + α Σ_{i<K} Mⁱφ, M = I + αH;  dθᴷ/dφ = α Σ Mⁱ, dθᴷ/dθ⁰ = Mᴷ
    phi = torch.tensor([0.3, 0.7], dtype=F64)
    step = torch.eye(2, dtype=F64) + 0.1 * CURVATURE
    powers = [torch.linalg.matrix_power(step, i) for i in range(inner_steps + 1)]
    total = 0.1 * sum(powers[:-1])

    def last(meta_params, params):
        return inner_loop(quadratic, meta_params, params, inner_steps=inner_steps, inner_lr=0.1)

    assert_close(last(phi.clone().requires_grad_(), START), powers[-1] @ START + total @ phi, rtol=0, atol=1e-12)
    by_phi, by_theta = torch.autograd.functional.jacobian(last, (phi, START))
    assert_close(by_phi, total, rtol=0, atol=1e-12)
    assert_close(by_theta, powers[-1], rtol=0, atol=1e-12)


def test_value_from_one_objective_and_jacobian_from_another():
    # θ¹ = ⊥(θ + α(2θ + φ)) in value, d/dθ = 1 + α·12θ², d/dφ = α·5 from J_II = θ⁴ + 5φθ
    phi, theta = (torch.tensor([x], dtype=F64, requires_grad=True) for x in (3.0, 2.0))
    last = inner_loop(
        lambda meta, params, step: (params**2 + meta * params).sum(),
        phi,
        theta,
        hessian=lambda meta, params, step: (params**4 + 5 * meta * params).sum(),
        inner_steps=1,
        inner_lr=0.1,
    )
    assert last.item() == pytest.approx(2 + 0.1 * 7)
    by_theta, by_phi = torch.autograd.grad(last.sum(), (theta, phi))
    assert by_theta.item() == pytest.approx(1 + 0.1 * 48)
    assert by_phi.item() == pytest.approx(0.1 * 5)


def test_every_step_gets_its_number_and_is_shown():
    seen, shown = [], []

    def objective(meta_params, params, step):
        seen.append(step)
        return (step + 1) * params.sum()

    last = inner_loop(
        objective, START, START, inner_steps=3, inner_lr=1.0, on_step=lambda i, params: shown.append((i, params))
    )
    assert seen == [0, 1, 2]
    assert [i for i, _ in shown] == [1, 2, 3]
    assert_close(torch.stack([params for _, params in shown]), START + torch.tensor([[1.0], [3.0], [6.0]], dtype=F64))
    assert torch.equal(shown[-1][1], last)


def test_dictionaries_and_a_stateful_rule():
    """Momentum: m′ = ½ m + g, θ′ = θ + m′."""

    def momentum(params, gradient, state):
        state = {name: 0.5 * state[name] + gradient[name] for name in params}
        return {name: params[name] + state[name] for name in params}, state

    params = {"w": torch.tensor([1.0, 2.0], dtype=F64), "unused": torch.tensor([5.0], dtype=F64)}
    start = {name: torch.zeros_like(value) for name, value in params.items()}
    # g = 3: m = 3, 4.5, so that θ moves by 7.5
    last = inner_loop(
        lambda meta, theta, step: 3 * theta["w"].sum(), {}, params, inner_steps=2, update=momentum, state=start
    )
    assert last["w"].tolist() == [8.5, 9.5]
    assert last["unused"].tolist() == [5.0]


def test_ascent_goes_up():
    params, _ = ascent(0.5)({"": START}, {"": START}, None)
    assert params[""].tolist() == [1.5, -1.5]


def test_the_callers_tensors_are_left_alone():
    phi, theta = START.clone(), START.clone()
    inner_loop(quadratic, phi, theta, inner_steps=2, inner_lr=0.1)
    for tensor in (phi, theta):
        assert not tensor.requires_grad
        assert torch.equal(tensor, START)
    leaf = START.clone().requires_grad_()
    inner_loop(quadratic, phi, leaf, inner_steps=2, inner_lr=0.1)
    assert leaf.grad is None


def test_a_constant_objective_moves_nothing():
    last = inner_loop(lambda meta, params, step: torch.zeros(2), START, START, inner_steps=2, inner_lr=0.1)
    assert torch.equal(last.detach(), START)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="inner_steps: expected at least 1, got 0"):
        inner_loop(quadratic, START, START, inner_steps=0, inner_lr=0.1)
    for settings in ({}, {"inner_lr": 0.1, "update": ascent(0.1)}):
        with pytest.raises(ValueError, match="inner_lr, update: expected exactly one of the two"):
            inner_loop(quadratic, START, START, inner_steps=1, **settings)
