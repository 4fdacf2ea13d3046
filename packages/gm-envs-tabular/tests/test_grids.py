import numpy as np
import pytest
import torch

from gm_envs_tabular import grid_world, rollout, successors, uniforms

UP, RIGHT, DOWN, LEFT = range(4)


def corridor(**changes):
    """One row of three cells in an order that the seed decides: start, a good end, a bad one."""
    return grid_world(np.random.default_rng(0), height=1, width=3, **changes)


def place_of(state: int, seed: int = 0, cells: int = 3) -> int:
    """The column of a state, by the definition: the states number the cells in the order of a permutation."""
    return int(np.random.default_rng(seed).permutation(cells)[state])


def test_a_corridor_by_hand():
    transition, reward = corridor()
    worth = {1: 1.0, 2: -1.0}
    at = {place_of(state): state for state in range(3)}
    for column in range(3):
        for action, step in {UP: 0, DOWN: 0, RIGHT: 1, LEFT: -1}.items():
            there = at[min(max(column + step, 0), 2)]
            lands = 3 if there in worth else there  # the ends lead on to the state that absorbs
            assert transition[at[column], action, lands] == 1
            assert reward[at[column], action] == worth.get(there, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_an_mdp_whose_last_state_absorbs(seed):
    rng = np.random.default_rng(seed)
    transition, reward = grid_world(rng, height=3, width=4, walls=0.2, slip=0.3, step_reward=-0.1)
    assert transition.shape == (13, 4, 13)
    assert reward.shape == (13, 4)
    torch.testing.assert_close(transition.sum(-1), torch.ones(13, 4, dtype=torch.float64))
    assert (transition >= 0).all()
    assert (transition[-1, :, -1] == 1).all()
    assert (reward[-1] == 0).all()


def test_slipping_mixes_the_four_moves_and_their_rewards():
    straight, sliding = (corridor(slip=slip) for slip in (0.0, 0.4))
    for before, after in zip(straight, sliding, strict=True):
        mixed = 0.6 * before + 0.4 * before.mean(1, keepdim=True)
        torch.testing.assert_close(after[:3], mixed[:3])


def test_an_object_that_does_not_end_the_episode_is_a_cell_like_others():
    ending, lasting = corridor(), corridor(terminal=(False, False))
    assert (ending.transition[:3, :, 3].sum(-1) > 0).any()
    assert (lasting.transition[:3, :, 3] == 0).all()
    torch.testing.assert_close(ending.reward, lasting.reward)


def test_nobody_walks_through_a_wall():
    """On a 2 × 2 grid with one object and one wall only the start and the object can be reached, or the start alone."""
    for seed in range(8):
        transition, _ = grid_world(
            np.random.default_rng(seed), height=2, width=2, objects=(1.0,), terminal=(False,), walls=0.25
        )
        assert (transition[:2, :, 2] == 0).all()  # state 2 is the wall


def test_the_same_seed_gives_the_same_grid_and_rollouts_end_in_the_last_state():
    first, again = (grid_world(np.random.default_rng(3), slip=0.2) for _ in range(2))
    assert torch.equal(first.transition, again.transition)
    policy = torch.full((17, 4), 0.25, dtype=torch.float64)
    numbers = uniforms(np.random.default_rng(0), (), 64, 200)
    state, _ = rollout(policy, successors(first.transition), numbers)
    assert (state[:, -1] == 16).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "height: expected an integer of at least 1, got 0"),
        ({"width": True}, "width: expected an integer of at least 1, got True"),
        ({"objects": (np.nan, 1.0)}, r"objects, step_reward: expected finite rewards, got \(nan, 1.0\) and 0.0"),
        ({"step_reward": np.inf}, "objects, step_reward: expected finite rewards, got .* and inf"),
        ({"step_reward": 1e308, "objects": (1e308, 1.0)}, "objects, step_reward: expected finite rewards, got"),
        ({"terminal": (True,)}, "terminal: expected one for each of 2 objects, got 1"),
        ({"slip": 1.5}, "slip: expected a number from 0 to 1, got 1.5"),
        ({"walls": -0.1}, "walls: expected a number from 0 to 1, got -0.1"),
        ({"walls": 0.4}, "objects, walls: expected at most 3 cells in use, got 1 start, 2 objects and 1 walls"),
    ],
)
def test_errors_say_what_was_expected(changes, message):
    with pytest.raises(ValueError, match=message):
        grid_world(np.random.default_rng(0), **({"height": 1, "width": 3} | changes))
