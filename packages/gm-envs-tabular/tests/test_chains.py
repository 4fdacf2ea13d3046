import csv
import warnings
from itertools import groupby
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from gm_envs_tabular import (
    chain_counts,
    chain_observations,
    chain_rewards,
    chain_rollout,
    discounting_chain,
    rollout,
    successors,
    uniforms,
)
from gm_envs_tabular.gym import DiscountingChainEnv

ID = "gm_envs_tabular/DiscountingChain-v0"
RECORDED = Path(__file__).parent / "data" / "bsuite_discounting_chain.csv"
"""Ten episodes of bsuite 0.3.6's DiscountingChain: each first action, then random ones, for mapping seeds 3 and 0."""


def recorded():
    """(bonus, the rows of an episode) of what bsuite did."""
    with RECORDED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        (int(bonus), list(episode)) for (bonus, _), episode in groupby(rows, lambda row: (row["bonus"], row["episode"]))
    ]


@pytest.mark.parametrize(("bonus", "episode"), recorded())
def test_it_is_bsuites_step_for_step(bonus, episode):
    env = DiscountingChainEnv(bonus=bonus)
    tables, seen, state = discounting_chain(chain_rewards(bonus=bonus)), chain_observations(), 0
    observation, _ = env.reset()
    for before, row in zip([None, *episode], episode, strict=False):
        if before is not None:
            action = int(row["action"])
            observation, reward, terminated, truncated, _ = env.step(action)
            assert (reward, terminated, truncated) == (float(row["reward"]), row["last"] == "1", False)
            assert tables.reward[state, action] == reward
            state = int(tables.transition[state, action].argmax())
        expected = [float(row["context"]), float(row["time"])]
        np.testing.assert_allclose(observation, expected, rtol=1e-6)
        if row["last"] == "0":
            np.testing.assert_allclose(seen[state], expected, rtol=1e-6)
    assert len(episode) == 101
    assert state == len(seen) - 1  # the one that absorbs


def test_a_small_chain_by_hand():
    rewards = chain_rewards(delays=(1, 3), bonus=1, horizon=3)
    assert rewards.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.1]]
    transition, reward = discounting_chain(rewards)
    # 0 the start, 1 and 2 the first chain, 3 and 4 the second, 5 the end
    leads = [[1, 3], [2, 2], [5, 5], [4, 4], [5, 5], [5, 5]]
    assert transition.argmax(-1).tolist() == leads
    assert (transition.sum(-1) == 1).all()
    assert reward.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.1, 1.1], [0.0, 0.0]]


@pytest.mark.parametrize(("delays", "horizon"), [((1, 3, 10, 30, 100), 100), ((1, 2), 2), ((1, 1, 1), 1), ((2,), 4)])
def test_all_steps_at_once_are_the_rollout_step_by_step(delays, horizon):
    rng = np.random.default_rng(0)
    tables = discounting_chain(chain_rewards(delays=delays, bonus=0, horizon=horizon))
    policies = torch.from_numpy(rng.dirichlet([0.3] * len(delays), size=(2, 3, len(tables.reward))))
    numbers = uniforms(rng, (2, 3), size=16, horizon=horizon)
    slow = rollout(policies, successors(tables.transition.expand(2, 3, -1, -1, -1)), numbers)
    quick = chain_rollout(policies, numbers)
    assert torch.equal(quick.state, slow.state)
    assert torch.equal(quick.action, slow.action)
    counts = torch.zeros_like(policies)
    for repeat in np.ndindex(2, 3):
        for state, action in zip(
            slow.state[(*repeat, ..., slice(-1))].flatten(), slow.action[repeat].flatten(), strict=True
        ):
            counts[(*repeat, state, action)] += 1
    assert torch.equal(chain_counts(policies, numbers), counts)


def test_an_action_of_probability_zero_is_never_drawn():
    policy = torch.tensor([0.1, 0.2, 0.7, 0.0]).double().expand(2 + 4, 4)  # the sum is below 1 by rounding
    numbers = torch.full((1, 2), 1 - 2.0**-53, dtype=torch.float64)
    assert chain_rollout(policy, numbers).action.tolist() == [[2, 2]]


def test_passes_gymnasiums_checker_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID).unwrapped)


def test_a_step_needs_a_reset_and_an_action_that_there_is():
    env = DiscountingChainEnv(delays=(1, 2), bonus=0, horizon=2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="expected a running episode"):
        env.step(0)
    env.reset()
    with pytest.raises(gymnasium.error.InvalidAction, match="action: expected an integer from 0 to 1, got 2"):
        env.step(2)
    with pytest.raises(ValueError, match="options: expected none, got \\['state'\\]"):
        env.reset(options={"state": 1})
    with pytest.raises(ValueError, match="render_mode: expected None"):
        DiscountingChainEnv(render_mode="human")


def test_what_is_no_chain_is_refused():
    with pytest.raises(ValueError, match="delays: expected at least one chain, got none"):
        chain_rewards(delays=())
    with pytest.raises(ValueError, match="delays: expected an integer from 1 to 2, got 3"):
        chain_rewards(delays=(1, 3), bonus=0, horizon=2)
    with pytest.raises(ValueError, match="bonus: expected an integer from 0 to 1, got 2"):
        chain_rewards(delays=(1, 2), bonus=2)
    uniform = torch.full((3, 2), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="policy: expected 4 states of 2 chains, got 5"):
        chain_rollout(torch.full((5, 2), 0.5, dtype=torch.float64), uniform)
    with pytest.raises(ValueError, match="policy: expected non-negative rows that sum to 1"):
        chain_rollout(torch.full((4, 2), 0.6, dtype=torch.float64), uniform)
    with pytest.raises(ValueError, match="uniform: expected numbers in"):
        chain_rollout(torch.full((4, 2), 0.5, dtype=torch.float64), uniform + 1)
