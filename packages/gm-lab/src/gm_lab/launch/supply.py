"""The cells that a launcher hands out, of which there may be more when these are finished."""

from collections.abc import Callable, Sequence
from typing import Any


def no_more() -> Sequence[Any]:
    """Ends with the cells that there are."""
    return ()


class Supply:
    """Cells by position; `more`, asked when all of them are finished, gives others or none."""

    def __init__(self, cells: Sequence[Any], more: Callable[[], Sequence[Any]] = no_more) -> None:
        self._cells, self._more = list(cells), more

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, position: int) -> Any:
        return self._cells[position]

    @property
    def may_grow(self) -> bool:
        """Whether there may be more cells than there are now."""
        return self._more is not no_more

    def grown(self) -> range:
        """Asks for more cells, and returns their positions."""
        before = len(self._cells)
        self._cells += self._more()
        return range(before, len(self._cells))
