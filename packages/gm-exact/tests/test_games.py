import re

import pytest
import torch
from torch.testing import assert_close

from gm_exact import evaluate_game, game_value, lola_meta_gradient

F64 = torch.float64
IPD = torch.tensor([[[-2.0, 0.0], [-3.0, -1.0]], [[-2.0, -3.0], [0.0, -1.0]]], dtype=F64)


@pytest.fixture
def payoffs(normal):
    return normal(2, 2, 2, seed=5)


@pytest.fixture(params=[None, 1, 2, 7], ids=lambda horizon: f"T={horizon}")
def horizon(request):
    return request.param


def jacobian(function, x):
    return torch.autograd.functional.jacobian(function, x)


def constant(action_0: float) -> torch.Tensor:
    return torch.full((5,), torch.logit(torch.tensor(action_0, dtype=F64)).item(), dtype=F64)


def test_players_who_ignore_the_past_earn_the_mean_payoff_of_every_round():
    p, q = 0.3, 0.9
    params = torch.stack((constant(p), constant(q)))
    joint = torch.tensor([[p * q, p * (1 - q)], [(1 - p) * q, (1 - p) * (1 - q)]], dtype=F64)
    mean = (IPD * joint).sum((-2, -1))
    assert_close(game_value(IPD, params, discount=0.5), 2 * mean)
    assert_close(game_value(IPD, params, discount=0.5, horizon=3), 1.75 * mean)
    assert_close(game_value(IPD, params, discount=1.0, horizon=3), 3 * mean)


def test_the_states_are_named_by_own_then_other():
    # player 1 defects (action 0) once, player 2 repeats what player 1 did: exploited in round 0, then both defect
    inf = torch.inf
    always_0, tit_for_tat = [inf] * 5, [-inf, inf, -inf, inf, -inf]
    params = torch.tensor([always_0, tit_for_tat], dtype=F64)
    assert_close(game_value(IPD, params, discount=0.5), torch.tensor([0 - 2.0, -3 - 2.0], dtype=F64))
    assert_close(game_value(IPD, params.flip(0), discount=0.5), torch.tensor([-5.0, -2.0], dtype=F64))


def test_values_are_those_of_the_power_series(payoffs, normal):
    params = normal(3, 2, 5)
    long = game_value(payoffs, params, discount=0.7, horizon=200)
    assert_close(game_value(payoffs, params, discount=0.7), long, rtol=0, atol=1e-12)


def test_gradients_and_second_derivatives_are_those_of_automatic_differentiation(payoffs, normal, horizon):
    params = normal(2, 5)

    def value(theta):
        return game_value(payoffs, theta, discount=0.8, horizon=horizon)

    found = evaluate_game(payoffs, params, discount=0.8, horizon=horizon)
    assert_close(found.gradient, jacobian(value, params))

    def slope(theta):
        return evaluate_game(payoffs, theta, discount=0.8, horizon=horizon).gradient

    assert_close(found.hessian, jacobian(slope, params), rtol=0, atol=1e-12)
    assert found.hessian.abs().max() > 0.01


def test_gradients_are_central_differences(payoffs, normal, horizon):
    params, step = normal(2, 5), 1e-5

    def value(theta):
        return game_value(payoffs, theta, discount=0.8, horizon=horizon)

    found = evaluate_game(payoffs, params, discount=0.8, horizon=horizon)
    for j in range(2):
        for s in range(5):
            shift = torch.zeros_like(params)
            shift[j, s] = step
            difference = (value(params + shift) - value(params - shift)) / (2 * step)
            assert_close(found.gradient[:, j, s], difference, rtol=0, atol=1e-9)


def test_everything_is_differentiable_twice(normal):
    def value(theta):
        return game_value(IPD, theta, discount=0.8).sum() + game_value(IPD, theta, discount=0.8, horizon=3)[0]

    theta = normal(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(value, theta)
    assert torch.autograd.gradgradcheck(value, theta)


def test_batches_are_independent_and_payoffs_broadcast(payoffs, normal, horizon):
    params = normal(3, 4, 2, 5)
    many = evaluate_game(payoffs, params, discount=0.9, horizon=horizon)
    one = evaluate_game(payoffs, params[1, 2], discount=0.9, horizon=horizon)
    for name in ("value", "gradient", "hessian"):
        assert_close(getattr(many, name)[1, 2], getattr(one, name))
    games = normal(4, 2, 2, 2, seed=9)
    assert_close(
        evaluate_game(games, params, discount=0.9, horizon=horizon).hessian[2, 3],
        evaluate_game(games[3], params[2, 3], discount=0.9, horizon=horizon).hessian,
    )


def test_exchanging_the_players_exchanges_everything(payoffs, normal, horizon):
    params = normal(2, 5)
    here = evaluate_game(payoffs, params, discount=0.9, horizon=horizon)
    there = evaluate_game(payoffs.flip(0).mT, params.flip(0), discount=0.9, horizon=horizon)
    assert_close(there.value, here.value.flip(0))
    assert_close(there.gradient, here.gradient.flip(0, 1))
    assert_close(there.hessian, here.hessian.flip(0, 1, 3))


@pytest.mark.parametrize("inner_steps", [0, 1, 3])
def test_the_meta_gradient_is_that_of_automatic_differentiation(payoffs, normal, horizon, inner_steps):
    params, lr = normal(2, 5), 0.7
    found = lola_meta_gradient(payoffs, params, discount=0.8, inner_lr=lr, inner_steps=inner_steps, horizon=horizon)

    def objective(learner: int, phi):
        def value(theta):
            pair = (phi, theta) if learner == 0 else (theta, phi)
            return game_value(payoffs, torch.stack(pair), discount=0.8, horizon=horizon)

        theta = params[1 - learner].clone().requires_grad_()
        for _ in range(inner_steps):
            (slope,) = torch.autograd.grad(value(theta)[1 - learner], theta, create_graph=True)
            theta = theta + lr * slope
        return value(theta)[learner], theta

    for learner in (0, 1):
        phi = params[learner].clone().requires_grad_()
        value, theta = objective(learner, phi)
        (expected,) = torch.autograd.grad(value, phi)
        assert_close(found.gradient[learner], expected, rtol=0, atol=1e-10)
        assert_close(found.look_ahead[learner], theta.detach(), rtol=0, atol=1e-10)


def test_the_meta_gradient_is_a_central_difference(normal):
    params, step = normal(2, 5), 1e-5

    def value_after_look_ahead(phi):
        pair = torch.stack((phi, params[1]))
        theta = params[1] + 0.3 * evaluate_game(IPD, pair, discount=0.9).gradient[1, 1]
        return game_value(IPD, torch.stack((phi, theta)), discount=0.9)[0]

    found = lola_meta_gradient(IPD, params, discount=0.9, inner_lr=0.3).gradient[0]
    for s in range(5):
        shift = torch.zeros(5, dtype=F64)
        shift[s] = step
        difference = (value_after_look_ahead(params[0] + shift) - value_after_look_ahead(params[0] - shift)) / (
            2 * step
        )
        assert_close(found[s], difference, rtol=0, atol=1e-8)


def test_batched_meta_gradients_equal_single_ones(normal):
    params = normal(4, 3, 2, 5)
    many = lola_meta_gradient(IPD, params, discount=0.96, inner_lr=0.3, inner_steps=2)
    one = lola_meta_gradient(IPD, params[2, 1], discount=0.96, inner_lr=0.3, inner_steps=2)
    assert_close(many.gradient[2, 1], one.gradient)
    assert_close(many.look_ahead[2, 1], one.look_ahead)


def test_lola_learns_tit_for_tat_like_cooperation_in_the_prisoners_dilemma():
    # exact LOLA from the uniform policy ends near mutual cooperation (paper, Fig. 2a, exact/exact)
    def learn(inner_steps: int):
        params = torch.zeros(2, 5, dtype=F64)
        for _ in range(25):
            found = lola_meta_gradient(IPD, params, discount=0.96, inner_lr=1.0, inner_steps=inner_steps)
            params = params + 2 * found.gradient
        return 0.04 * game_value(IPD, params, discount=0.96)

    assert (learn(inner_steps=1) > -1.2).all()
    assert (learn(inner_steps=0) < -1.9).all()


@pytest.mark.parametrize("logit", [27.7, 800.0, torch.inf])
@pytest.mark.parametrize("discount", [0.0, 1 - 1e-9])
def test_saturated_policies_and_extreme_discounts_stay_finite(logit, discount):
    params = torch.tensor([[logit, -logit, logit, -logit, logit], [-logit] * 5], dtype=F64)
    found = evaluate_game(IPD, params, discount=discount)
    assert all(bool(x.isfinite().all()) for x in (found.value, found.gradient, found.hessian))
    if logit < torch.inf:
        meta = lola_meta_gradient(IPD, params, discount=discount, inner_lr=0.3)
        assert all(bool(x.isfinite().all()) for x in meta)


def test_without_a_future_only_the_first_round_counts(normal):
    params = normal(2, 5)
    found = evaluate_game(IPD, params, discount=0.0)
    assert_close(found.value, game_value(IPD, params, discount=0.9, horizon=1))
    assert (found.gradient[..., 1:] == 0).all()


def test_kinds(kind, normal):
    device, dtype = kind
    params = normal(3, 2, 5).to(device, dtype)
    found = lola_meta_gradient(IPD.to(device, dtype), params, discount=0.9, inner_lr=0.3)
    assert found.gradient.dtype == dtype
    assert found.gradient.device.type == device
    expected = lola_meta_gradient(IPD, normal(3, 2, 5), discount=0.9, inner_lr=0.3).gradient
    assert_close(found.gradient.cpu().double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discount": 1.0}, "discount: expected 0 ≤ γ ≤ 1, and γ < 1 for the infinite horizon, got 1.0"),
        ({"discount": -0.1, "horizon": 2}, "got -0.1"),
        ({"discount": float("nan")}, "got nan"),
        ({"discount": 0.9, "horizon": 0}, "horizon: expected a positive integer or None, got 0"),
        ({"discount": 0.9, "inner_steps": -1}, "inner_steps: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_settings_are_refused(settings, message, normal):
    with pytest.raises(ValueError, match=re.escape(message)):
        lola_meta_gradient(IPD, normal(2, 5), **{"inner_lr": 0.3, **settings})


def test_nan_is_refused(normal):
    with pytest.raises(ValueError, match="expected finite payoffs and log-odds, got NaN or infinity"):
        evaluate_game(IPD, normal(2, 5) * torch.nan, discount=0.9)
    with pytest.raises(ValueError, match="expected finite payoffs and log-odds, got NaN or infinity"):
        evaluate_game(IPD * torch.inf, normal(2, 5), discount=0.9)
