"""Masked actions, many digits lost, NumPy's integers, `torch.vmap`: right, or said."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_exact import (
    TabularMDP,
    eq6_compositional_bias,
    evaluate,
    evaluate_game,
    expectation,
    game_value,
    global_constants,
    gradient,
    hessian,
    inner_path,
    local_constants,
    lola_meta_gradient,
    maml_meta_gradient,
    trajectories,
    value,
)

F64, INF = torch.float64, float("inf")
PAYOFFS = torch.tensor([[[-1.0, -3.0], [0.0, -2.0]], [[-1.0, 0.0], [-3.0, -2.0]]], dtype=F64)
DRAWN = settings(max_examples=20, deadline=None, derandomize=True)


def dice(log_prob, every):
    past = log_prob.cumsum(-1)
    discount = 0.8 ** torch.arange(every.rewards.shape[-1], dtype=F64)
    return (discount * every.rewards * (past - past.detach()).exp()).sum(-1)


@DRAWN
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_trajectories_of_probability_zero_count_nothing(make_mdp, normal, data, seed):
    """With any actions masked, as long as one is left in each state, DiCE has the exact value and derivatives."""
    mdp, params = make_mdp(n_states=2, n_actions=3, seed=seed), normal(2, 3, seed=seed)
    masked = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=2, max_size=2)))
    params[:, :2][masked] = data.draw(st.sampled_from([-INF, -2000.0]))
    found = expectation(dice, mdp, params, 2)
    assert_close(found.value, value(mdp, params, 2), rtol=0, atol=1e-12)
    assert_close(found.gradient, gradient(mdp, params, 2), rtol=0, atol=1e-12)
    assert_close(found.hessian, hessian(mdp, params, 2), rtol=0, atol=1e-12)


def test_a_policy_that_is_none_is_refused(make_mdp, normal):
    for fill in (-INF, INF, float("nan")):
        params = normal(3, 2)
        params[0] = fill
        with pytest.raises(ValueError, match="params: expected logits without NaN or"):
            expectation(dice, make_mdp(), params, 2)


@pytest.mark.parametrize("horizon", [None, 3])
def test_a_masked_action_is_the_limit_of_an_unlikely_one(make_mdp, normal, horizon):
    """Values and derivatives to second order, by formula and by automatic differentiation."""
    mdp, likely = make_mdp(), normal(3, 2)
    likely[0, 1] = -800.0
    masked = likely.clone()
    masked[0, 1] = -INF

    def everything(params):
        theta = params.clone().requires_grad_()
        at = evaluate(mdp, theta, horizon)
        (slope,) = torch.autograd.grad(at.value, theta, create_graph=True)
        (curved,) = torch.autograd.grad(slope[1, 0], theta)
        step = maml_meta_gradient(mdp, params, inner_lr=0.5, inner_steps=2, horizon=horizon)
        every = trajectories(mdp, 2).probability(theta)
        return at.value, at.gradient, hessian(mdp, params, horizon), slope, curved, step, every

    for found, expected in zip(everything(masked), everything(likely), strict=True):
        assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_certain_players_are_the_limit_of_almost_certain_ones(normal):
    almost = normal(2, 5).clamp(-1, 1)
    almost[0, 0], almost[1, 3] = 800.0, -800.0
    certain = almost.where(almost.abs() < 2, almost * INF)
    for found, expected in zip(
        *(
            (lambda e: (e.value, e.gradient, e.hessian))(evaluate_game(PAYOFFS, x, discount=0.9))
            for x in (certain, almost)
        ),
        strict=True,
    ):
        assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found, expected = (lola_meta_gradient(PAYOFFS, x, discount=0.9, inner_lr=0.3).gradient for x in (certain, almost))
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_constants_between_paths_with_a_masked_action(make_mdp, normal):
    """The difference of two logits of −∞ is zero, so that the quotients of the others are not lost."""
    mdp = make_mdp(1)
    paths = {}
    for fill in (-800.0, -INF):
        theta, other = normal(1, 3, 2), normal(1, 3, 2, seed=5)
        theta[:, 0, 1] = other[:, 0, 1] = fill
        exact, sampled = (inner_path(mdp, x, inner_lr=0.5, inner_steps=2) for x in (theta, other))
        paths[fill] = local_constants(mdp, exact, sampled)
    for name, expected in vars(paths[-800.0]).items():
        assert_close(getattr(paths[-INF], name), expected, rtol=1e-9, atol=1e-12)
    assert paths[-INF].rho2 > 0


@DRAWN
@given(nines=st.integers(1, 7), horizon=st.none() | st.sampled_from([10, 300_000]), seed=st.integers(0, 99))
def test_float32_is_right_to_three_digits_or_says_so(make_mdp, normal, nines, horizon, seed):
    discount = 1 - 10.0**-nines
    double = make_mdp(discount=discount, seed=seed)
    single = TabularMDP(double.transition.float(), double.reward.float(), double.start.float(), discount)
    params, steps = normal(3, 2, seed=seed), None if horizon is None else min(horizon, 10)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = value(single, params.float(), steps).double()
        of_game = game_value(PAYOFFS.float(), torch.zeros(2, 5), discount=discount, horizon=steps)
    if not said:
        size = double.reward.abs().max() * min(10**nines, steps or INF)
        assert (found - value(double, params, steps)).abs() < 1e-3 * size
        exact = game_value(PAYOFFS, torch.zeros(2, 5).double(), discount=discount, horizon=steps)
        assert_close(of_game.double(), exact, rtol=1e-3, atol=1e-3)
    else:
        assert nines >= 4
        assert len(said) == 2
        assert "float32 leaves fewer than three digits at an effective horizon of" in str(said[0].message)


def test_float64_says_nothing_of_digits(make_mdp, normal, recwarn):
    value(make_mdp(discount=1 - 1e-9), normal(3, 2))
    assert not recwarn


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_integers_of_numpy_are_integers(make_mdp, normal, integer):
    mdp, params = make_mdp(), normal(3, 2)
    started = TabularMDP(mdp.transition, mdp.reward, integer(1), 0.9)
    assert (started.start, type(started.start)) == (1, int)
    assert_close(value(mdp, params, integer(3)), value(mdp, params, 3))
    assert len(trajectories(started, integer(1)).states) == 6
    steps = {"inner_lr": 0.1, "horizon": integer(4)}
    expected = maml_meta_gradient(mdp, params, inner_lr=0.1, horizon=4, inner_steps=2)
    assert_close(maml_meta_gradient(mdp, params, inner_steps=integer(2), **steps), expected)
    look = lola_meta_gradient(PAYOFFS, normal(2, 5), discount=0.9, inner_steps=integer(1), **steps)
    assert look.gradient.shape == (2, 5)
    assert eq6_compositional_bias(1.0, 1.0, inner_lr=1.0, inner_steps=integer(2)).item() == 3
    assert global_constants(started).m2 > 0


def test_what_is_no_integer_is_still_refused(make_mdp, normal):
    mdp, params = make_mdp(), normal(3, 2)
    for start in (np.int64(3), np.int64(-1), np.float64(1.0), True, "0"):
        with pytest.raises((ValueError, TypeError), match=r"start"):
            TabularMDP(mdp.transition, mdp.reward, start, 0.9)
    with pytest.raises(ValueError, match="horizon: expected a positive integer or None, got 0"):
        value(mdp, params, np.int64(0))
    with pytest.raises(TypeError):
        TabularMDP(mdp.transition.numpy(), mdp.reward, 0, 0.9)


@pytest.mark.parametrize("horizon", [None, 4])
def test_vmap_goes_over_games_and_mdps(make_mdp, normal, horizon):
    games, mdp = normal(3, 2, 5), make_mdp()
    rewards = normal(3, 3, 2, seed=2)

    def in_turn(function, batch):
        return torch.stack([function(x) for x in batch])

    for function, batch in (
        (lambda x: game_value(PAYOFFS, x, discount=0.9, horizon=horizon), games),
        (lambda x: evaluate_game(PAYOFFS, x, discount=0.9, horizon=horizon).hessian, games),
        (lambda x: game_value(x, games[0], discount=0.9, horizon=horizon), normal(3, 2, 2, 2)),
        (lambda x: lola_meta_gradient(PAYOFFS, x, discount=0.9, inner_lr=0.2, horizon=horizon).gradient, games),
        (lambda r: hessian(TabularMDP(mdp.transition, r, 0, 0.9), rewards[0], horizon), rewards),
        (lambda p: maml_meta_gradient(mdp, p, inner_lr=0.2, inner_steps=2, horizon=horizon), rewards),
    ):
        assert_close(torch.vmap(function)(batch), in_turn(function, batch), rtol=0, atol=1e-10)
