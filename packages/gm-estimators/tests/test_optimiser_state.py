"""Whose history a step keeps: clipping coefficients, moments, and the state that goes from step to step."""

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import inner_loop, meta_gradient
from gm_estimators.optimisers import AdamState, adam, adam_state, ascent, constant

F64 = torch.float64
G = torch.tensor([3.0, -4.0], dtype=F64)
MOST = 2.0
ADAM = adam(constant(0.3))


def jacobian_of_clipping(detach):
    """∂(c g / ‖g‖) / ∂g = c / ‖g‖ (I − g gᵀ / ‖g‖²), the second term only if the coefficient counts."""
    norm = G.norm()
    projection = torch.zeros(2, 2, dtype=F64) if detach else torch.outer(G, G) / norm**2
    return MOST / norm * (torch.eye(2, dtype=F64) - projection)


@pytest.mark.parametrize("detach", [True, False])
def test_a_clipping_coefficient_counts_in_derivatives_or_not(detach):
    def moved(g):
        step = ascent(0.5, max_norm=MOST, detach_clip=detach)
        return step({"": torch.zeros(2, dtype=F64)}, {"": g}, None)[0][""]

    found = torch.autograd.functional.jacobian(moved, G)
    assert_close(found, 0.5 * jacobian_of_clipping(detach), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("detach", [True, False])
def test_so_it_does_in_adam(detach):
    """The first moment after one step is (1 − β₁) times the clipped gradient."""

    def first_moment(g):
        params = {"": torch.zeros(2, dtype=F64)}
        state = adam(constant(0.3), max_norm=MOST, detach_clip=detach)(params, {"": g}, adam_state(params))[1]
        assert isinstance(state, AdamState)
        return state.first[""]

    found = torch.autograd.functional.jacobian(first_moment, G)
    assert_close(found, 0.1 * jacobian_of_clipping(detach), rtol=1e-6, atol=1e-6)


def test_a_detached_state_has_no_history():
    params = {"": torch.zeros(2, dtype=F64)}
    g = G.clone().requires_grad_()
    state = ADAM(params, {"": g}, adam_state(params))[1]
    assert state.first[""].requires_grad
    assert state.second[""].requires_grad
    kept = state.detached()
    assert not kept.first[""].requires_grad
    assert not kept.second[""].requires_grad
    assert kept.step == state.step == 1
    assert_close(kept.second[""], state.second[""].detach())


def inner(phi, theta, step):
    return (torch.sin(phi * theta) + (step + 1) * phi.roll(1) * theta.square()).sum()


PHI, THETA = torch.tensor([0.4, -0.7], dtype=F64), torch.tensor([0.2, 0.9], dtype=F64)


def test_the_state_goes_from_step_to_step_also_with_a_hessian_of_its_own():
    settings = {"inner_steps": 3, "update": ADAM, "state": adam_state({"": THETA})}
    whole = inner_loop(inner, PHI, THETA, **settings)
    apart = inner_loop(inner, PHI, THETA, hessian=inner, **settings)
    assert_close(apart, whole, rtol=0, atol=1e-14)
    # by torch's own Adam, in the values
    theta = THETA.clone().requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=0.3, maximize=True)
    for step in range(3):
        optimiser.zero_grad()
        inner(PHI, theta, step).backward()
        optimiser.step()
    assert_close(whole.detach(), theta.detach(), rtol=1e-10, atol=1e-10)


def test_a_meta_gradient_begins_with_the_state_that_it_is_given():
    """After one step elsewhere, against automatic differentiation of the loop itself."""
    state = ADAM({"": THETA}, {"": G}, adam_state({"": THETA}))[1]
    settings = {"inner_steps": 2, "update": ADAM}

    def outer(phi, theta):
        return (theta.exp() * phi).sum()

    phi = PHI.clone().requires_grad_()
    end = inner_loop(inner, phi, THETA, state=state, **settings)
    (expected,) = torch.autograd.grad(outer(phi, end), phi)
    found = meta_gradient(PHI, THETA, inner=inner, outer=outer, state=state, **settings)
    assert_close(found, expected, rtol=0, atol=1e-13)
    fresh = meta_gradient(PHI, THETA, inner=inner, outer=outer, state=adam_state({"": THETA}), **settings)
    assert (found - fresh).abs().max() > 1e-3
