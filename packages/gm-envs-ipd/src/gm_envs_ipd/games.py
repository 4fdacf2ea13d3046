"""2×2 matrix games as data.

The payoffs decide what an action means: in the paper's prisoner's dilemma (paper, G.2.1) joint action (1, 1) pays −1
each and (0, 0) pays −2 each, so that action 1 cooperates although the paper's text calls action 0 cooperation.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from gm_envs_ipd.checks import integer

Payoffs = tuple[tuple[float, ...], ...]
"""A table of 2×2 numbers, row by row."""


@dataclass(frozen=True, init=False)
class MatrixGame:
    """A game of two players with two actions each.

    Args:
        name: what it is called.
        payoffs: R¹ and R², each indexed `[a¹][a²]`: nested tuples or lists, an array or a tensor; kept as tuples.
        actions: names of action 0 and 1.
        cooperative: the action that the known strategies call cooperation.
    """

    name: str
    payoffs: tuple[Payoffs, ...]
    actions: tuple[str, str]
    cooperative: int

    def __init__(
        self, name: str, payoffs: Iterable[Any], actions: tuple[str, str] = ("0", "1"), cooperative: SupportsIndex = 1
    ) -> None:
        tables: Any = _plain(payoffs)
        if _shape(tables) != (2, 2, 2):
            raise ValueError(f"payoffs: expected two tables of 2×2 numbers, got {payoffs!r}")
        if not all(math.isfinite(entry) for table in tables for row in table for entry in row):
            raise ValueError(f"payoffs: expected finite numbers, got {payoffs!r}")
        cooperative = integer("cooperative", cooperative, 0, 1)
        for field, value in (("name", name), ("payoffs", tables), ("actions", actions), ("cooperative", cooperative)):
            object.__setattr__(self, field, value)  # frozen

    def tensor(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Float[Tensor, "player=2 action_1=2 action_2=2"]:
        """The payoffs as a tensor indexed `[player, a¹, a²]`."""
        payoffs = torch.tensor(self.payoffs, dtype=dtype, device=device)
        if not bool(payoffs.isfinite().all()):
            raise ValueError(f"payoffs: expected numbers that are finite in {dtype}, got {self.payoffs}")
        return payoffs


def game_from_payoffs(payoffs: Sequence[float], name: str = "custom", cooperative: SupportsIndex = 1) -> MatrixGame:
    """A game from eight numbers, as a command line gives them: R¹ row by row, then R² row by row.

    Examples:
        >>> from gm_envs_ipd import game_from_payoffs
        >>> game_from_payoffs([-2.0, 0.0, -3.0, -1.0, -2.0, -3.0, 0.0, -1.0]).name
        'custom'
    """
    if len(payoffs) != 8:
        raise ValueError(f"payoffs: expected 8 numbers, R¹ and R² row by row, got {len(payoffs)}")
    a, b, c, d, e, f, g, h = payoffs
    return MatrixGame(name, (((a, b), (c, d)), ((e, f), (g, h))), cooperative=cooperative)


def _symmetric(table: Payoffs) -> tuple[Payoffs, Payoffs]:
    """R² = (R¹)ᵀ."""
    (a, b), (c, d) = table
    return table, ((a, c), (b, d))


def _plain(nested: object) -> object:
    """Nested tuples and lists, arrays and tensors as nested tuples, their numbers as floats; the rest as it is."""
    nested = nested.tolist() if hasattr(nested, "tolist") else nested
    if isinstance(nested, tuple | list):
        return tuple(_plain(item) for item in nested)
    if not isinstance(nested, Real) or isinstance(nested, bool):
        return nested
    try:
        return float(nested)
    except OverflowError:  # an integer beyond the floats
        return math.inf


def _shape(nested: object) -> tuple[int, ...]:
    """The shape of nested tuples of floats; a ragged or foreign object has the shape (−1,)."""
    if isinstance(nested, float):
        return ()
    if not isinstance(nested, tuple):
        return (-1,)
    inner = {_shape(item) for item in nested}
    return (len(nested), *inner.pop()) if len(inner) == 1 else (-1,)


GAMES: dict[str, MatrixGame] = {
    game.name: game
    for game in (
        MatrixGame("ipd", _symmetric(((-2.0, 0.0), (-3.0, -1.0))), ("defect", "cooperate"), 1),
        MatrixGame("stag-hunt", _symmetric(((4.0, 0.0), (3.0, 2.0))), ("stag", "hare"), 0),
        MatrixGame("chicken", _symmetric(((0.0, -1.0), (1.0, -10.0))), ("swerve", "straight"), 0),
        MatrixGame("matching-pennies", (((1.0, -1.0), (-1.0, 1.0)), ((-1.0, 1.0), (1.0, -1.0))), ("heads", "tails"), 0),
        MatrixGame(
            "battle-of-the-sexes", (((3.0, 0.0), (0.0, 2.0)), ((2.0, 0.0), (0.0, 3.0))), ("opera", "football"), 0
        ),
    )
}
"""Known games by name; `ipd` has the paper's payoffs."""


def game(name: str) -> MatrixGame:
    """The game of a name.

    Examples:
        >>> from gm_envs_ipd import game
        >>> game("ipd").payoffs
        (((-2.0, 0.0), (-3.0, -1.0)), ((-2.0, -3.0), (0.0, -1.0)))
    """
    if name not in GAMES:
        close = get_close_matches(name.lower(), GAMES, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"game: expected one of {', '.join(GAMES)}, got {name!r}{hint}")
    return GAMES[name]
