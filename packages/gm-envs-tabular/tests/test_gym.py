import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from gm_envs_tabular import random_mdp
from gm_envs_tabular.gym import TabularEnv

ID = "gm_envs_tabular/Tabular-v0"
CYCLE = np.eye(3)[[[1, 0], [2, 1], [0, 2]]]  # action 0 goes on to the next state, action 1 stays
REWARD = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
VISITS = 5_000


def transition_z_scores(transition, claimed, seed=0):
    """(count − n p) / √(n p (1 − p)) of every transition with 0 < p < 1, from n steps out of every (s, a)."""
    env = TabularEnv(transition, np.zeros(transition.shape[:2]), horizon=1)
    env.reset(seed=seed)
    counts = np.zeros(transition.shape)
    for state, action in np.ndindex(transition.shape[:2]):
        for _ in range(VISITS):
            env.reset(options={"state": state})
            counts[state, action, env.step(action)[0]] += 1
    random = (claimed > 0) & (claimed < 1)
    assert not counts[transition == 0].any()
    p = claimed[random]
    return (counts[random] - VISITS * p) / np.sqrt(VISITS * p * (1 - p))


def test_passes_gymnasiums_checker_without_a_warning():
    mdp = random_mdp(np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, transition=mdp.transition, reward=mdp.reward, horizon=20).unwrapped)


def test_episode_by_hand():
    env = TabularEnv(CYCLE, REWARD, start_state=1, horizon=3)
    state, info = env.reset(seed=0)
    assert (state, info) == (1, {})
    assert env.observation_space.contains(state)
    assert env.step(0) == (2, 2.0, False, False, {})
    assert env.step(np.int64(1)) == (2, 5.0, False, False, {})
    assert env.step(0) == (0, 4.0, False, True, {})
    with pytest.raises(
        gymnasium.error.ResetNeeded, match=r"expected a running episode, got none; call reset\(\) first"
    ):
        env.step(0)
    assert env.reset()[0] == 1


def test_first_step_needs_a_reset():
    with pytest.raises(gymnasium.error.ResetNeeded, match="expected a running episode"):
        TabularEnv(CYCLE, REWARD).step(0)


def test_an_mdp_unpacks_and_the_tables_are_copied():
    mdp = random_mdp(np.random.default_rng(1), states=4, actions=3)
    env = TabularEnv(*mdp)
    assert (env.observation_space.n, env.action_space.n) == (4, 3)
    env.reset(seed=0)
    expected = mdp.reward[0, 2].item()
    mdp.reward.zero_()
    assert env.step(2)[1] == expected


def test_the_seed_decides_the_episode_and_none_continues_the_stream():
    transition = np.full((6, 2, 6), 1 / 6)

    def episode(env, seed):
        env.reset(seed=seed)
        return [int(env.step(0)[0]) for _ in range(30)]

    env = TabularEnv(transition, np.zeros((6, 2)), horizon=30)
    first, then = episode(env, 3), episode(env, None)
    assert (first, then) == (episode(env, 3), episode(env, None))
    assert first != then
    assert first != episode(env, 4)


def test_transition_frequencies_lie_within_four_standard_errors_and_a_wrong_matrix_is_rejected():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(3), size=(2, 2))
    transition = np.concatenate(
        [transition, np.array([[[0.3, 0.0, 0.7], [0.0, 1.0, 0.0]]])]
    )  # zeros inside and at an end
    wrong = transition.copy()
    wrong[0, 0] = 0.9 * wrong[0, 0] + 0.1 * np.eye(3)[0]
    assert np.abs(transition_z_scores(transition, transition)).max() < 4
    assert np.abs(transition_z_scores(transition, wrong)).max() > 4


@pytest.mark.parametrize(
    ("tables", "settings", "wording"),
    [
        ((CYCLE[:2], REWARD), {}, r"transition: expected shape \[state, action, state\], got \(2, 2, 3\)"),
        ((CYCLE / 2, REWARD), {}, "transition: expected non-negative rows that sum to 1, got .* sums from 0.5 to 0.5"),
        (
            (CYCLE * np.nan, REWARD),
            {},
            "transition: expected non-negative rows that sum to 1, got a smallest entry of nan",
        ),
        ((CYCLE, REWARD.T), {}, r"reward: expected finite numbers of shape \(3, 2\).*got shape \(2, 3\), 0 not finite"),
        ((CYCLE, REWARD + np.inf), {}, r"reward: expected finite numbers .* 6 not finite"),
        ((CYCLE, REWARD), {"horizon": 0}, "horizon: expected an integer of at least 1, got 0"),
        (
            (CYCLE, REWARD),
            {"render_mode": "human"},
            "render_mode: expected None, the only one that there is, got 'human'",
        ),
        ((CYCLE, REWARD), {"start_state": 3}, "state: expected an integer from 0 to 2, got 3"),
    ],
)
def test_bad_settings_are_named(tables, settings, wording):
    with pytest.raises(ValueError, match=wording), np.errstate(invalid="ignore"):
        TabularEnv(*tables, **settings)


def test_bad_options_and_actions_are_named():
    env = TabularEnv(CYCLE, REWARD)
    with pytest.raises(ValueError, match=r"options: expected at most 'state', got \['speed'\]"):
        env.reset(options={"speed": 1})
    with pytest.raises(ValueError, match="state: expected an integer from 0 to 2, got -1"):
        env.reset(options={"state": -1})
    env.reset()
    with pytest.raises(gymnasium.error.InvalidAction, match="action: expected an integer from 0 to 1, got 2"):
        env.step(2)


@given(
    value=st.one_of(
        st.booleans(), st.floats(), st.integers(max_value=-1), st.integers(3), st.text(max_size=1), st.none()
    )
)
def test_only_integers_are_states_actions_and_horizons(value):
    env = TabularEnv(CYCLE, REWARD)
    env.reset()
    with pytest.raises(gymnasium.error.InvalidAction, match="action: expected an integer from 0 to 1, got "):
        env.step(value)
    with pytest.raises(ValueError, match="state: expected an integer from 0 to 2, got "):
        env.reset(options={"state": value})
    with pytest.raises(ValueError, match="state: expected an integer from 0 to 2, got "):
        TabularEnv(CYCLE, REWARD, start_state=value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        with pytest.raises(ValueError, match="horizon: expected an integer of at least 1, got "):
            TabularEnv(CYCLE, REWARD, horizon=value)


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, np.array, torch.tensor])
def test_integers_of_every_kind_are_integers(kind):
    env = TabularEnv(CYCLE, REWARD, start_state=kind(1), horizon=kind(2))
    assert type(env.horizon) is type(env.start_state) is int
    assert env.reset()[0] == 1
    assert env.step(kind(0)) == (2, 2.0, False, False, {})
    assert env.reset(options={"state": kind(2)})[0] == 2


def test_there_is_one_render_mode_and_it_is_none():
    env = gymnasium.make(ID, transition=CYCLE, reward=REWARD, render_mode=None)
    assert env.metadata["render_modes"] == []
    assert env.render_mode is None


def test_tables_that_require_a_gradient_are_taken_as_they_are():
    mdp = random_mdp(np.random.default_rng(1), states=4, actions=3)
    env = TabularEnv(mdp.transition.requires_grad_(), mdp.reward.requires_grad_())
    env.reset(seed=0)
    assert env.step(2)[1] == mdp.reward[0, 2].item()
