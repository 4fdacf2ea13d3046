"""Small grid worlds as tabular MDPs."""

from typing import SupportsIndex

import numpy as np
import torch

from gm_envs_tabular.checks import integer, require_memory
from gm_envs_tabular.mdps import MDP

ACTIONS = 4
_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


def grid_world(
    rng: np.random.Generator,
    *,
    height: SupportsIndex = 4,
    width: SupportsIndex = 4,
    objects: tuple[float, ...] = (1.0, -1.0),
    terminal: tuple[bool, ...] = (True, True),
    walls: float = 0.0,
    slip: float = 0.0,
    step_reward: float = 0.0,
) -> MDP:
    """A grid with objects that reward the step onto them, and end the episode if they are terminal.

    The four actions go up, right, down and left, and stay where the edge or a wall is in the way. With m(s, a) the
    cell that a move leads to, and ε the probability that the move is drawn anew from all four (after Oh et al. 2020,
    "Discovering Reinforcement Learning Algorithms", tabular grid worlds):

        p(s′ | s, a) = (1 − ε) 1[s′ = m(s, a)] + ε/4 Σ_b 1[s′ = m(s, b)],   r(s, a) = r₀ + Σ_s′ p(s′ | s, a) object(s′)

    Args:
        rng: draws which cells hold walls and objects, and which one is the start.
        height: rows.
        width: columns.
        objects: what the step onto each object is worth; every object lies on a cell of its own.
        terminal: whether each object ends the episode.
        walls: the part of the cells, rounded down, that are walls; they may cut objects off.
        slip: ε.
        step_reward: r₀, of every step until the end of the episode.

    Returns:
        An `MDP` of float64 tensors with height · width + 1 states: the start is 0, the last one absorbs and its reward
        is zero. Walls, and cells that only they could lead to, keep a state that is never visited.

    Examples:
        >>> import numpy as np
        >>> from gm_envs_tabular import grid_world
        >>> grid_world(np.random.default_rng(0), height=3, width=3).transition.shape
        torch.Size([10, 4, 10])
    """
    height, width = integer("height", height), integer("width", width)
    cells = height * width
    require_memory("height, width", 3 * ACTIONS * (cells + 1) ** 2)
    if len(terminal) != len(objects):
        raise ValueError(f"terminal: expected one for each of {len(objects)} objects, got {len(terminal)}")
    for name, value in (("walls", walls), ("slip", slip)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number from 0 to 1, got {value}")
    blocked = int(walls * cells)
    if 1 + len(objects) + blocked > cells:
        wanted = f"1 start, {len(objects)} objects and {blocked} walls"
        raise ValueError(f"objects, walls: expected at most {cells} cells in use, got {wanted}")

    order = rng.permutation(cells)
    state = np.empty(cells, dtype=np.int64)  # of each cell; the start is the first of the order
    state[order] = np.arange(cells)
    wall = set(order[1 + len(objects) : 1 + len(objects) + blocked].tolist())
    end = cells
    moved = np.full((cells + 1, ACTIONS), end)
    for cell in range(cells):
        row, column = divmod(cell, width)
        for action, (down, right) in enumerate(_MOVES):
            there = (row + down) * width + column + right
            inside = 0 <= row + down < height and 0 <= column + right < width and there not in wall
            moved[state[cell], action] = state[there if inside else cell]

    chosen = np.eye(cells + 1)[moved]
    transition = (1 - slip) * chosen + slip * chosen.mean(1, keepdims=True)
    worth = np.zeros(cells + 1)
    worth[1 : 1 + len(objects)] = objects
    with np.errstate(over="ignore", invalid="ignore"):  # told below
        reward = step_reward + transition @ worth
    if not np.isfinite(reward).all():
        raise ValueError(f"objects, step_reward: expected finite rewards, got {objects} and {step_reward}")
    ends = 1 + np.flatnonzero(terminal)
    transition[..., end] += transition[..., ends].sum(-1)
    transition[..., ends] = 0
    reward[end] = 0
    return MDP(torch.from_numpy(transition), torch.from_numpy(reward))
