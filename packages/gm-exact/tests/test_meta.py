import inspect

import pytest
import torch
from torch.testing import assert_close

from gm_exact import gradient, hessian, inner_path, lirpg_meta_gradient, maml_meta_gradient, value

F64 = torch.float64
INNER_LR = 0.7
HORIZONS = [None, 3]


def adapted(mdp, params, inner_steps, horizon=None, terminal=None):
    """θᴷ by autograd of the value alone, so that no closed form of the package judges itself."""
    theta = params.expand(*mdp.batch_shape, *params.shape[-2:]) if mdp.batch_shape else params
    theta = theta if theta.requires_grad else theta.clone().requires_grad_()
    for _ in range(inner_steps):
        objective = value(mdp, theta, horizon, terminal).sum()
        theta = theta + INNER_LR * torch.autograd.grad(objective, theta, create_graph=True)[0]
    return theta


def central_difference(function, point, step=1e-4):
    shifts = step * torch.eye(point.numel(), dtype=F64).reshape(-1, *point.shape)
    return ((function(point + shifts) - function(point - shifts)) / (2 * step)).reshape(point.shape).detach()


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("inner_steps", [0, 1, 2, 3, 4])
def test_maml_against_autograd_and_central_differences(make_mdp, normal, inner_steps, horizon):
    mdp, params = make_mdp(), normal(3, 2).requires_grad_()
    terminal = normal(3, seed=2) if horizon else None
    actual = maml_meta_gradient(
        mdp, params.detach(), inner_lr=INNER_LR, inner_steps=inner_steps, horizon=horizon, terminal_value=terminal
    )

    def outer(phi):
        return value(mdp, adapted(mdp, phi, inner_steps, horizon, terminal), horizon, terminal)

    assert_close(actual, torch.autograd.grad(outer(params), params)[0])
    assert_close(actual, central_difference(outer, params.detach()), rtol=1e-6, atol=1e-8)


def test_maml_is_the_product_of_equation_3(make_mdp, normal):
    mdp, params = make_mdp(), normal(3, 2)
    path = inner_path(mdp, params, inner_lr=INNER_LR, inner_steps=2)
    jacobians = [torch.eye(6, dtype=F64) + INNER_LR * hessian(mdp, theta).reshape(6, 6) for theta in path[:-1]]
    expected = jacobians[0] @ jacobians[1] @ gradient(mdp, path[-1]).flatten()
    actual = maml_meta_gradient(mdp, params, inner_lr=INNER_LR, inner_steps=2)
    assert_close(actual.flatten(), expected)
    backwards = jacobians[1] @ jacobians[0] @ gradient(mdp, path[-1]).flatten()
    assert (actual.flatten() - backwards).abs().max() > 1e-4  # the order of the factors matters


def test_maml_with_an_outer_mdp_of_its_own(make_mdp, normal):
    inner, outer, params = make_mdp(), make_mdp(seed=7), normal(3, 2).requires_grad_()
    actual = maml_meta_gradient(inner, params.detach(), inner_lr=INNER_LR, inner_steps=2, outer_mdp=outer)
    assert_close(actual, torch.autograd.grad(value(outer, adapted(inner, params, 2)), params)[0])


def test_a_batch_of_problems_and_step_sizes(make_mdp, normal):
    mdps, params = make_mdp(4), normal(4, 3, 2)
    rates = torch.tensor([0.1, 1, 3, 10], dtype=F64).reshape(4, 1, 1)
    together = maml_meta_gradient(mdps, params, inner_lr=rates, inner_steps=3)
    for i, rate in enumerate(rates.flatten().tolist()):
        alone = type(mdps)(mdps.transition[i], mdps.reward[i], mdps.start[i], mdps.discount)
        assert_close(together[i], maml_meta_gradient(alone, params[i], inner_lr=rate, inner_steps=3))


def test_inner_path_takes_exact_gradient_steps(make_mdp, normal):
    mdp, params = make_mdp(), normal(3, 2)
    path = inner_path(mdp, params, inner_lr=INNER_LR, inner_steps=3)
    assert len(path) == 4
    for inner_steps, theta in enumerate(path):
        assert_close(theta, adapted(mdp, params, inner_steps).detach())


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("inner_steps", [0, 1, 2, 4])
def test_lirpg_against_autograd_and_central_differences(make_mdp, normal, inner_steps, horizon):
    mdp, params, intrinsic = make_mdp(), normal(3, 2), normal(3, 2, seed=3).requires_grad_()
    terminal = normal(3, seed=2) if horizon else None
    actual = lirpg_meta_gradient(
        mdp,
        params,
        intrinsic.detach(),
        inner_lr=INNER_LR,
        inner_steps=inner_steps,
        horizon=horizon,
        terminal_value=terminal,
    )

    def outer(phi):
        inner = mdp.with_reward(mdp.reward + phi)
        return value(mdp, adapted(inner, params, inner_steps, horizon, terminal), horizon, terminal)

    (expected,) = torch.autograd.grad(outer(intrinsic), intrinsic, materialize_grads=True, allow_unused=True)
    assert_close(actual, expected)
    assert_close(actual, central_difference(outer, intrinsic.detach()), rtol=1e-6, atol=1e-8)


def test_lirpg_with_one_mdp_and_many_intrinsic_rewards(make_mdp, normal):
    mdp, params, intrinsic = make_mdp(), normal(3, 2), normal(5, 3, 2, seed=3)
    settings = {"inner_lr": INNER_LR, "inner_steps": 3}
    together = lirpg_meta_gradient(mdp, params, intrinsic, **settings)
    assert_close(together, torch.stack([lirpg_meta_gradient(mdp, params, phi, **settings) for phi in intrinsic]))


def test_meta_gradients_are_themselves_differentiable(make_mdp, normal):
    mdp, params, intrinsic = make_mdp(n_states=2), normal(2, 2).requires_grad_(), normal(2, 2, seed=3).requires_grad_()
    settings = {"inner_lr": INNER_LR, "inner_steps": 2}
    assert torch.autograd.gradcheck(lambda theta: maml_meta_gradient(mdp, theta, **settings), params, fast_mode=True)
    assert torch.autograd.gradcheck(
        lambda *x: lirpg_meta_gradient(mdp, *x, **settings), (params, intrinsic), fast_mode=True
    )


@pytest.mark.parametrize("inner_steps", [-1, True])
def test_a_bad_number_of_steps_is_refused(make_mdp, normal, inner_steps):
    with pytest.raises(ValueError, match=f"inner_steps: expected an integer of at least 0, got {inner_steps}"):
        maml_meta_gradient(make_mdp(), normal(3, 2), inner_lr=1.0, inner_steps=inner_steps)


def test_an_intrinsic_reward_of_the_wrong_shape_is_refused(make_mdp, normal):
    with pytest.raises(ValueError, match=r"intrinsic_reward: expected last two axes \(3, 2\), got shape \(2, 3\)"):
        # unwrapped: beartype, which the tests have and a user has not, would speak first
        inspect.unwrap(lirpg_meta_gradient)(make_mdp(), normal(3, 2), normal(2, 3), inner_lr=1.0, inner_steps=1)
