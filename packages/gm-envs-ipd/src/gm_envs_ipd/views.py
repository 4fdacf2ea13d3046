"""How the two players name the same situation: the one place that holds the swap between their views.

A memory-one policy looks at the last joint action as (own, other). State 0 is the start, state 1 + 2·own + other the
rest. The joint outcome 2·a¹ + a² of a round is a game's own name for it: player 1's state less one.
"""

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

STATES = ("start", "own 0, other 0", "own 0, other 1", "own 1, other 0", "own 1, other 1")
"""What a player remembers in each state."""

START = 0

SWAP = (0, 1, 3, 2, 4)
"""The state in which player 2 is when player 1 is in state 0 … 4, and the other way round: (own, other) reversed."""
_SWAP_INDEX = torch.tensor(SWAP)


def other_view(per_state: Float[Tensor, "*batch 5"]) -> Float[Tensor, "*batch 5"]:
    """One player's table over its own states as a table over the other player's states; its own inverse.

    Examples:
        >>> import torch
        >>> from gm_envs_ipd import other_view
        >>> other_view(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])).tolist()
        [0.0, 1.0, 3.0, 2.0, 4.0]
    """
    return per_state.index_select(-1, _SWAP_INDEX.to(per_state.device))


def joint_view(per_player: Float[Tensor, "*batch 2 5"]) -> Float[Tensor, "*batch 2 5"]:
    """Both players' tables, each over its own states, as tables over player 1's states; its own inverse.

    Examples:
        >>> import torch
        >>> from gm_envs_ipd import joint_view
        >>> joint_view(torch.arange(10.0).view(2, 5)).tolist()
        [[0.0, 1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 8.0, 7.0, 9.0]]
    """
    return torch.stack((per_player[..., 0, :], other_view(per_player[..., 1, :])), -2)


def states(outcome: Integer[Tensor, "*batch time"]) -> Int[Tensor, "*batch 2 time"]:
    """The states s¹_t and s²_t of the players before every round: the start, then their views of the last outcome.

    Examples:
        >>> import torch
        >>> from gm_envs_ipd import states
        >>> states(torch.tensor([1, 2])).tolist()
        [[0, 2], [0, 3]]
    """
    last = torch.nn.functional.pad(outcome[..., :-1].long() + 1, (1, 0), value=START)
    return torch.stack((last, torch.tensor(SWAP, device=last.device)[last]), -2)


def actions(outcome: Integer[Tensor, "*batch time"]) -> Int[Tensor, "*batch 2 time"]:
    """The players' actions: a¹ = outcome div 2, a² = outcome mod 2.

    Examples:
        >>> import torch
        >>> from gm_envs_ipd import actions
        >>> actions(torch.tensor([0, 1, 2, 3])).tolist()
        [[0, 0, 1, 1], [0, 1, 0, 1]]
    """
    return torch.stack((outcome >> 1, outcome & 1), -2).long()
