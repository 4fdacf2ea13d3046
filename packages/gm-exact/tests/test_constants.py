"""The constants of Assumption 4.1: the proved ones against many policies, the local ones against the theorems."""

import inspect
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from gm_exact import TabularMDP, bounds, evaluate, gradient, hessian, inner_path, lirpg_meta_gradient, value
from gm_exact import maml_meta_gradient as maml
from gm_exact.constants import global_constants, local_c2, local_constants

F64 = torch.float64


def spectral(matrix):
    return torch.linalg.matrix_norm(matrix, 2)


def policies(mdp, draw, scales=(0.1, 1.0, 3.0)):
    shape = (*mdp.batch_shape, mdp.n_states, mdp.n_actions)
    return [scale * torch.randn(shape, generator=draw, dtype=F64) for scale in scales]


def occupancy_derivative(mdp, theta):
    """∇r∇θ J as a matrix."""
    n = mdp.n_states * mdp.n_actions
    basis = torch.eye(n, dtype=F64).reshape(n, *[1] * (theta.ndim - 2), mdp.n_states, mdp.n_actions)
    return evaluate(mdp, theta).tangent(basis).occupancy.flatten(-2).movedim(0, -1)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("size", [(1, 2), (3, 2), (4, 3)])
def test_the_proved_constants_hold_everywhere(make_mdp, size, discount):
    mdp = make_mdp(300, n_states=size[0], n_actions=size[1], discount=discount)
    draw = torch.Generator().manual_seed(1)
    phi = torch.randn(mdp.reward.shape, generator=draw, dtype=F64)
    k, n = global_constants(mdp, phi), size[0] * size[1]
    inner = mdp.with_reward(mdp.reward + phi)
    largest = 0.0
    for theta in policies(mdp, draw):
        step = 1e-4 * torch.randn(theta.shape, generator=draw, dtype=F64)
        distance = step.flatten(1).norm(dim=-1)
        h, h_next = (hessian(inner, t).reshape(300, n, n) for t in (theta, theta + step))
        j, j_next = (occupancy_derivative(mdp, t) for t in (theta, theta + step))
        assert (gradient(mdp, theta).flatten(1).norm(dim=-1) <= k.m2).all()
        assert (spectral(hessian(mdp, theta).reshape(300, n, n)) <= k.mu2).all()
        assert (spectral(h) <= k.c2).all()
        assert (spectral(h_next - h) <= k.rho2 * distance).all()
        assert (spectral(j) <= k.c1).all()
        assert (spectral(j_next - j) <= k.lambda2 * distance).all()
        largest = max(largest, (spectral(h) / k.c2).max().item(), (spectral(j) / k.c1).max().item())
    assert largest > 0.05  # not trivially large


def test_the_gradient_bound_is_attained_by_a_bandit_with_two_arms():
    bandit = TabularMDP(torch.ones(1, 2, 1, dtype=F64), torch.tensor([[0.0, 1.0]], dtype=F64), 0, 0.0)
    steepest = gradient(bandit, torch.zeros(1, 2, dtype=F64)).norm()
    assert_close(steepest, global_constants(bandit).m2)


def test_the_occupancy_bound_is_attained_by_a_bandit_with_two_arms():
    """∇π of two arms at ½ has norm ½ and c₁ = ½ at γ = 0."""
    bandit = TabularMDP(torch.ones(1, 2, 1, dtype=F64), torch.zeros(1, 2, dtype=F64), 0, 0.0)
    found = spectral(occupancy_derivative(bandit, torch.zeros(1, 2, dtype=F64)))
    assert_close(found.item(), global_constants(bandit, torch.zeros(1, 2, dtype=F64)).c1)


def test_a_constant_added_to_the_reward_changes_no_constant(make_mdp):
    mdp = make_mdp(5)
    shifted = global_constants(mdp.with_reward(mdp.reward + 100))
    for name, expected in vars(global_constants(mdp)).items():
        assert_close(torch.as_tensor(getattr(shifted, name)), torch.as_tensor(expected))


def test_global_constants_need_a_discount_below_one(make_mdp):
    with pytest.raises(ValueError, match=r"discount: expected less than 1, got 1\.0"):
        inspect.unwrap(global_constants)(make_mdp(discount=1.0))


def noisy_path(mdp, theta, inner_lr, inner_steps, std, draw):
    path = [theta]
    for _ in range(inner_steps):
        noise = std * torch.randn(theta.shape, generator=draw, dtype=F64)
        path.append(path[-1] + inner_lr * (gradient(mdp, path[-1]) + noise))
    return path


@pytest.mark.parametrize("inner_steps", [1, 2, 4])
def test_lemma_4_4_is_a_theorem_about_the_samples_themselves(make_mdp, inner_steps):
    """With c₂ and the noise as found on the samples, Eq. 6 holds for their mean without any assumption left."""
    draw, lr, samples = torch.Generator().manual_seed(2), 2.0, 8
    mdp = make_mdp(50, 1, n_states=4, n_actions=3)
    theta = torch.randn(50, 1, 4, 3, generator=draw, dtype=F64)
    exact = inner_path(mdp, theta, inner_lr=lr, inner_steps=inner_steps)
    sampled = noisy_path(mdp, theta.expand(50, samples, 4, 3), lr, inner_steps, 0.3, draw)
    errors = [((b - a) / lr - gradient(mdp, a)).flatten(-2).norm(dim=-1) for a, b in pairwise(sampled)]
    inner_std = torch.stack([e.square().mean(-1).sqrt() for e in errors]).amax(0)
    c2 = local_c2(mdp, exact, sampled)
    assert (c2 <= local_constants(mdp, exact, sampled).c2).all()
    limit = bounds.eq6_compositional_bias(c2, inner_std, inner_lr=lr, inner_steps=inner_steps)
    distance = (sampled[-1] - exact[-1]).flatten(-2).norm(dim=-1).mean(-1)
    assert (distance <= limit * (1 + 1e-12)).all()
    assert (limit / distance).min() < 10


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_the_bias_bound_holds_with_local_constants(make_mdp, inner_steps, mixed):
    """Exact gradients along sampled paths: all of the bias is composition, and it stays under Eq. 44."""
    draw, lr, samples = torch.Generator().manual_seed(3), 1.0, 6
    mdp = make_mdp(40, 1, n_states=4, n_actions=3)
    theta = torch.zeros(40, 1, 4, 3, dtype=F64)
    phi = torch.randn(40, 1, 4, 3, generator=draw, dtype=F64) if mixed else None
    inner = mdp if phi is None else mdp.with_reward(mdp.reward + phi)
    exact = inner_path(inner, theta, inner_lr=lr, inner_steps=inner_steps)
    sampled = noisy_path(inner, theta.expand(40, samples, 4, 3), lr, inner_steps, 0.5, draw)

    def backward(path):
        adjoint = gradient(mdp, path[-1])
        meta = torch.zeros_like(adjoint)
        for point in reversed(path[:-1]):
            tangent = evaluate(inner, point).tangent(lr * adjoint)
            meta, adjoint = meta + tangent.occupancy, adjoint + tangent.gradient
        return meta if mixed else adjoint

    terms = {"inner_lr": lr, "inner_steps": inner_steps}
    truth = lirpg_meta_gradient(mdp, theta, phi, **terms) if mixed else maml(mdp, theta, **terms)
    bias = (backward(sampled).mean(1) - truth[:, 0]).flatten(1).norm(dim=-1)
    noise = [
        ((b - a) / lr - gradient(inner, a)).flatten(-2).norm(dim=-1).square().mean(-1).sqrt()
        for a, b in pairwise(sampled)
    ]
    constants = local_constants(mdp, exact, sampled, phi)
    errors = bounds.Errors(inner_std=torch.stack(noise).amax(0))
    limit = bounds.eq44_bias(constants, errors, meta_is_params=not mixed, **terms)
    assert (bias <= limit).all()
    assert (limit / bias).min() < 30
    worst = global_constants(mdp, phi)
    for name in ("m2", "mu2", "c2", "rho2", "c1", "lambda2"):
        assert (getattr(constants, name) <= torch.as_tensor(getattr(worst, name)).squeeze(-1)).all()
    assert (constants.c1 > 0).all() == mixed


def test_without_samples_the_local_constants_are_norms_on_the_exact_path(make_mdp):
    mdp = make_mdp(1)
    exact = inner_path(mdp, torch.zeros(1, 3, 2, dtype=F64), inner_lr=1.0, inner_steps=2)
    k = local_constants(mdp, exact)
    h = torch.stack([spectral(hessian(mdp, theta).reshape(6, 6)) for theta in exact[:2]])
    assert_close(k.c2, h.max())
    assert_close(local_c2(mdp, exact, exact), k.c2)
    assert k.rho2 == k.mu2 == k.c1 == k.lambda2 == 0
    assert_close(k.m2, gradient(mdp, exact[-1]).norm())
    assert value(mdp, exact[-1]) > value(mdp, exact[0])


def test_difference_quotients_count_where_they_exceed_the_derivatives():
    """Two arms, θ = (0, 0) and θ̂ = (6, 0): the Hessian almost vanishes at both, but not between them."""
    bandit = TabularMDP(torch.ones(1, 1, 2, 1, dtype=F64), torch.tensor([[[0.0, 1.0]]], dtype=F64), 0, 0.0)
    middle, end = torch.zeros(1, 1, 2, dtype=F64), torch.tensor([[[6.0, 0.0]]], dtype=F64)
    k = local_constants(bandit, [middle, middle], [end, end], torch.zeros(1, 1, 2, dtype=F64))
    g, h, j = (
        [function(bandit, theta) for theta in (middle, end)]
        for function in (gradient, lambda *x: hessian(*x).reshape(2, 2), lambda *x: occupancy_derivative(*x).squeeze(0))
    )
    assert max(spectral(x) for x in h) < 0.02
    assert_close(k.c2, (g[1] - g[0]).norm() / 6)
    assert_close(local_c2(bandit, [middle, middle], [end, end]), k.c2)
    assert_close(k.mu2, (g[1] - g[0]).norm() / 6)
    assert_close(k.rho2, spectral(h[1] - h[0]) / 6)
    assert_close(k.lambda2, spectral(j[1] - j[0]) / 6)
    assert_close(k.c1, spectral(j[0]))


def test_paths_that_do_not_match_are_refused(make_mdp):
    mdp, theta = make_mdp(1), torch.zeros(1, 3, 2, dtype=F64)
    with pytest.raises(ValueError, match="paths: expected the same 2 or more points, got 2 and 1"):
        inspect.unwrap(local_constants)(mdp, [theta, theta], [theta])
