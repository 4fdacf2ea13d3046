"""Eq. 3 with every Jacobian written out, for objectives that depend on φ and θ in every way."""

import pytest
import torch
from torch.autograd.functional import hessian, jacobian
from torch.testing import assert_close

from gm_estimators import meta_gradient

F64 = torch.float64
ALPHA = 0.3
PHI = torch.tensor([0.4, -0.2, 0.7], dtype=F64)
THETA = torch.tensor([-0.5, 0.1, 0.3], dtype=F64)


def inner(phi, theta, step):
    """Not symmetric in φ and θ, and another one at each step."""
    return (torch.sin(phi * theta) + theta**3 / 3 + (step + 1) * phi.roll(1) ** 2 * theta).sum()


def other(phi, theta, step):
    return (torch.cos(theta + phi) * theta.roll(1)).sum() * (step + 2)


def outer(phi, theta):
    return (theta.exp() * phi.roll(1) + theta.roll(1) * theta).sum()


def explicit(phi, theta, inner_steps, move=inner, bend=inner, maml=False):
    """Eq. 3: the Jacobian dθᴷ/dφ as a product, θ moved by one objective and its Jacobian taken from another."""
    path = torch.eye(3, dtype=F64) if maml else torch.zeros(3, 3, dtype=F64)  # dθ⁰/dφ
    for i in range(inner_steps):
        blocks = hessian(lambda f, t, i=i: bend(f, t, i), (phi, theta))
        path = path + ALPHA * (blocks[1][1] @ path + blocks[1][0])
        theta = theta + ALPHA * jacobian(lambda t, i=i: move(phi, t, i), theta)
    by_phi, by_theta = jacobian(outer, (phi, theta))
    return by_phi + path.T @ by_theta


@pytest.mark.parametrize("inner_steps", [1, 2, 3, 4])
@pytest.mark.parametrize("maml", [False, True])
def test_it_is_equation_3(inner_steps, maml):
    start = PHI if maml else THETA
    found = meta_gradient(
        PHI, None if maml else THETA, inner=inner, outer=outer, inner_steps=inner_steps, inner_lr=ALPHA
    )
    assert_close(found, explicit(PHI, start, inner_steps, maml=maml), rtol=0, atol=1e-12)
    assert not found.requires_grad


@pytest.mark.parametrize("inner_steps", [1, 2, 3])
@pytest.mark.parametrize("maml", [False, True])
def test_value_and_jacobian_may_come_from_different_objectives(inner_steps, maml):
    start = PHI if maml else THETA
    settings = {"outer": outer, "inner_steps": inner_steps, "inner_lr": ALPHA}
    found = meta_gradient(PHI, None if maml else THETA, inner=inner, hessian=other, **settings)
    assert_close(found, explicit(PHI, start, inner_steps, bend=other, maml=maml), rtol=0, atol=1e-12)
    undivided = meta_gradient(PHI, None if maml else THETA, inner=inner, **settings)
    assert (found - undivided).abs().max() > 1e-2


def test_a_hessian_equal_to_the_inner_objective_changes_nothing():
    settings = {"outer": outer, "inner_steps": 3, "inner_lr": ALPHA}
    whole = meta_gradient(PHI, THETA, inner=inner, **settings)
    assert_close(meta_gradient(PHI, THETA, inner=inner, hessian=inner, **settings), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("maml", [False, True])
def test_it_agrees_with_central_differences(maml):
    """The oracle of the oracle: K-step objective by plain gradient ascent, differentiated numerically."""

    def value(phi):
        theta = phi if maml else THETA
        for i in range(2):
            theta = theta + ALPHA * jacobian(lambda t, theta=theta, i=i: inner(phi, t, i), theta)
        return outer(phi, theta).item()

    eye = 1e-5 * torch.eye(3, dtype=F64)
    slopes = torch.tensor([(value(PHI + row) - value(PHI - row)) / 2e-5 for row in eye], dtype=F64)
    found = meta_gradient(PHI, None if maml else THETA, inner=inner, outer=outer, inner_steps=2, inner_lr=ALPHA)
    assert_close(found, slopes, rtol=1e-7, atol=1e-8)


def test_dictionaries_of_parameters():
    flat = meta_gradient(PHI, THETA, inner=inner, outer=outer, inner_steps=2, inner_lr=ALPHA)

    def join(parts):
        return torch.cat([parts["b"], parts["a"]])

    def split(whole):
        return {"a": whole[1:], "b": whole[:1]}

    found = meta_gradient(
        split(PHI),
        split(THETA),
        inner=lambda phi, theta, step: inner(join(phi), join(theta), step),
        outer=lambda phi, theta: outer(join(phi), join(theta)),
        inner_steps=2,
        inner_lr=ALPHA,
    )
    assert set(found) == {"a", "b"}
    assert_close(join(found), flat, rtol=0, atol=1e-14)


def test_batch_elements_are_independent():
    phi, theta = torch.stack([PHI, THETA]), torch.stack([THETA, PHI])

    def rows(objective):
        return lambda f, t, *step: torch.stack([objective(a, b, *step) for a, b in zip(f, t, strict=True)])

    settings = {"inner_steps": 2, "inner_lr": ALPHA}
    found = meta_gradient(phi, theta, inner=rows(inner), outer=rows(outer), **settings)
    alone = [meta_gradient(a, b, inner=inner, outer=outer, **settings) for a, b in zip(phi, theta, strict=True)]
    assert_close(found, torch.stack(alone), rtol=0, atol=1e-14)


def test_the_callers_tensors_are_left_alone():
    phi, theta = PHI.clone(), THETA.clone().requires_grad_()
    for start in (theta, None):
        meta_gradient(phi, start, inner=inner, outer=outer, inner_steps=2, inner_lr=ALPHA)
    assert (phi.requires_grad, theta.requires_grad) == (False, True)
    assert phi.grad is None
    assert theta.grad is None
    assert torch.equal(phi, PHI)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="outer: expected an objective that depends on the parameters or meta-par"):
        meta_gradient(PHI, inner=inner, outer=lambda f, t: torch.zeros(()), inner_steps=1, inner_lr=ALPHA)
    with pytest.raises(ValueError, match="inner_steps: expected at least 1, got 0"):
        meta_gradient(PHI, inner=inner, outer=outer, inner_steps=0, inner_lr=ALPHA)
