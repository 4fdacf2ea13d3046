import warnings

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
        with pytest.raises(ValueError, match=f"horizon: expected a positive integer, got {horizon}"):
            IteratedGameEnv(horizon=horizon)
    env = IteratedGameEnv()
    env.reset()
    with pytest.raises(ValueError, match="player_2: expected action 0 or 1, got 2"):
        env.step({"player_1": 0, "player_2": 2})
    with pytest.raises(ValueError, match="player_2: expected action 0 or 1, got None"):
        env.step({"player_1": 0})
