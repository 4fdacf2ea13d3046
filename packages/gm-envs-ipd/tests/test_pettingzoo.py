import warnings

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from gm_envs_ipd import GAMES
from gm_envs_ipd.pettingzoo import IteratedGameEnv


@pytest.mark.parametrize("name", GAMES)
def test_the_api_is_pettingzoos(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(IteratedGameEnv(GAMES[name], horizon=7), num_cycles=50)


def test_seeds():
    parallel_seed_test(lambda: IteratedGameEnv(horizon=5), num_cycles=20)


def test_an_episode_by_hand():
    env = IteratedGameEnv(horizon=2)
    observations, infos = env.reset(seed=0)
    assert observations == {"player_1": 0, "player_2": 0}
    assert infos == {"player_1": {}, "player_2": {}}
    # player 1 cooperates (1), player 2 defects (0): own 1, other 0 is state 3, own 0, other 1 is state 2
    observations, rewards, terminations, truncations, _ = env.step({"player_1": 1, "player_2": 0})
    assert observations == {"player_1": 3, "player_2": 2}
    assert rewards == {"player_1": -3.0, "player_2": 0.0}
    assert not any(terminations.values())
    assert not any(truncations.values())
    *_, truncations, _ = env.step({"player_1": 1, "player_2": 1})
    assert all(truncations.values())
    assert env.agents == []
    assert env.step({}) == ({}, {}, {}, {}, {})
    env.reset()
    assert env.agents == ["player_1", "player_2"]


def test_bad_input_is_refused():
    for horizon in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"horizon: expected an integer of at least 1, got {horizon}"):
            IteratedGameEnv(horizon=horizon)
    env = IteratedGameEnv()
    env.reset()
    with pytest.raises(ValueError, match="action of player_2: expected an integer from 0 to 1, got 2"):
        env.step({"player_1": 0, "player_2": 2})
    with pytest.raises(ValueError, match="action of player_2: expected an integer from 0 to 1, got None"):
        env.step({"player_1": 0})
    with pytest.raises(ValueError, match="render_mode: expected None, the only one that there is, got 'human'"):
        IteratedGameEnv(render_mode="human")
    with pytest.raises(ValueError, match=r"game: expected a MatrixGame, such as GAMES\['ipd'\], got 'ipd'"):
        IteratedGameEnv("ipd")


@pytest.mark.parametrize("action", [True, 1.0, np.True_, np.array([1])])
def test_only_integers_are_actions(action):
    env = IteratedGameEnv()
    env.reset()
    with pytest.raises(ValueError, match="action of player_1: expected an integer from 0 to 1, got "):
        env.step({"player_1": action, "player_2": 0})


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, np.array])
def test_integers_of_every_kind_are_integers(kind):
    env = IteratedGameEnv(horizon=kind(1), render_mode=None)
    env.reset()
    *_, rewards, _, truncations, _ = env.step({"player_1": kind(1), "player_2": kind(0)})
    assert rewards == {"player_1": -3.0, "player_2": 0.0}
    assert all(truncations.values())
    assert env.metadata["render_modes"] == []
