"""Grids and successors against their definitions, cell by cell and row by row."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gm_envs_tabular import grid_world, rollout, successors

F64 = torch.float64
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


def by_definition(height, width, order, objects, terminal, blocked, slip, step_reward):
    """p and r of every state and action, a cell being a pair (row, column); the states are in the order of `order`."""
    cells = [divmod(int(cell), width) for cell in order]
    walls = set(cells[1 + len(objects) : 1 + len(objects) + blocked])
    worth = dict(zip(cells[1:], objects, strict=False))
    ends = {cell for cell, over in zip(cells[1:], terminal, strict=False) if over}
    end = len(cells)
    transition, reward = torch.zeros(end + 1, 4, end + 1, dtype=F64), torch.zeros(end + 1, 4, dtype=F64)
    transition[end, :, end] = 1
    for state, (row, column) in enumerate(cells):
        if (row, column) in ends:  # whoever is here has left for the end already
            continue
        for action in range(4):
            for move, (down, right) in enumerate(MOVES):
                there = row + down, column + right
                if not (0 <= there[0] < height and 0 <= there[1] < width) or there in walls:
                    there = row, column
                probability = slip / 4 + (1 - slip) * (move == action)
                transition[state, action, end if there in ends else cells.index(there)] += probability
                reward[state, action] += probability * worth.get(there, 0.0)
            reward[state, action] += step_reward
    return transition, reward


@pytest.mark.parametrize(("height", "width"), [(2, 3), (3, 2), (1, 5), (4, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_a_grid_is_its_definition(height, width, seed):
    terms = {"objects": (1.0, -2.0, 0.5), "terminal": (True, False, True), "slip": 0.3, "step_reward": -0.1}
    cells, walls = height * width, 0.2
    found = grid_world(np.random.default_rng(seed), height=height, width=width, walls=walls, **terms)
    order = np.random.default_rng(seed).permutation(cells)
    transition, reward = by_definition(height, width, order, blocked=int(walls * cells), **terms)
    alive = [state for state in range(cells + 1) if state not in (1, 3)]  # the terminal objects' are never visited
    assert_close(found.transition[alive], transition[alive], rtol=0, atol=1e-12)
    assert_close(found.reward[alive], reward[alive], rtol=0, atol=1e-12)


def test_the_rows_of_successors_sum_to_one_although_those_of_the_transition_are_rounded():
    """Rows may be off by 1e-5, and what is never drawn is left out."""
    transition = torch.tensor([[[0.5, 0.500005, 2.0**-60]], [[0.3, 0.0, 0.699994]], [[0.0, 1.0, 0.0]]], dtype=F64)
    state, probability = successors(transition)
    assert state[:, 0].tolist() == [[1, 0], [2, 0], [1, 0]]
    assert_close(probability.sum(-1), torch.ones(3, 1, dtype=F64), rtol=0, atol=1e-15)
    assert_close(probability[0, 0], torch.tensor([0.500005, 0.5], dtype=F64) / 1.000005, rtol=0, atol=1e-15)
    # the first outcome's share of the interval is that of the whole row
    below = 0.500005 / 1.000005
    numbers = torch.tensor([[below * (1 - 1e-9)], [below * (1 + 1e-9)]], dtype=F64)
    assert rollout(torch.ones(3, 1, dtype=F64), successors(transition), numbers).state[:, 1].tolist() == [1, 0]
