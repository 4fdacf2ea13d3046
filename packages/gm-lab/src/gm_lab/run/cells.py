"""Cells: the frozen records an experiment is cut into, their names, their seeds and the rows they produce."""

import dataclasses
import hashlib
import json
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

from gm_lab.run.settings import plain

Row = dict[str, str | int | float]


def cell_id(cell: Any) -> str:
    """Names a cell, a frozen dataclass of plain values, by its fields alone: 16 hexadecimal digits.

    Examples:
        >>> from dataclasses import dataclass
        >>> from gm_lab import cell_id
        >>> @dataclass(frozen=True)
        ... class Cell:
        ...     estimator: str
        ...     mdp: int
        >>> cell_id(Cell("lvc", 0)) == cell_id(Cell("lvc", 0))
        True
        >>> cell_id(Cell("lvc", 0)) == cell_id(Cell("lvc", 1))
        False
    """
    return hashlib.sha256(json.dumps(plain(cell)).encode()).hexdigest()[:16]


def describe_cell(cell: Any) -> str:
    """`cell` for people: its fields as name=value.

    Examples:
        >>> from dataclasses import dataclass
        >>> from gm_lab.run import describe_cell
        >>> @dataclass(frozen=True)
        ... class Cell:
        ...     estimator: str
        ...     mdp: int
        >>> describe_cell(Cell("lvc", 0))
        'estimator=lvc mdp=0'
    """
    values = ((field.name, getattr(cell, field.name)) for field in dataclasses.fields(cell))
    return " ".join(f"{name}={shorten(str(value))}" for name, value in values)


def shorten(text: str, length: int = 60) -> str:
    """`text` on one line of at most `length` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def seed_of(root_seed: int, *labels: str | int | float) -> int:
    """Derives a 64-bit seed from the root seed, at least 0, and labels; equal labels share random numbers.

    Examples:
        >>> from gm_lab import seed_of
        >>> seed_of(0, "maml", 3) == seed_of(0, "maml", 3)
        True
        >>> seed_of(0, "maml", 3) == seed_of(0, "maml", 4)
        False
    """
    from numpy.random import SeedSequence

    digest = hashlib.sha256(json.dumps(labels).encode()).digest()
    words = [int.from_bytes(digest[start : start + 4], "little") for start in range(0, 32, 4)]
    low, high = SeedSequence([root_seed, *words]).generate_state(2)
    return int(high) << 32 | int(low)


def checked_rows(rows: Iterable[Row], columns: Sequence[str]) -> list[Row]:
    """Returns the rows with columns in order and Python's scalars; raises ValueError or TypeError for other rows."""
    checked = []
    for row in rows:
        if set(row) != set(columns):
            raise ValueError(
                f"expected a row with the columns {', '.join(columns)}; "
                f"missing: {', '.join(sorted(set(columns) - set(row))) or 'none'}; "
                f"unknown: {', '.join(sorted(set(row) - set(columns))) or 'none'}"
            )
        checked.append({column: scalar(row[column], column) for column in columns})
    return checked


def scalar(value: Any, column: str) -> str | int | float:
    """`value` as str, int or float, so that its text is the same on every machine."""
    if type(value) in (float, int):  # as in a file; the tests below are several times slower
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        if not value.isascii():
            value.encode()  # raises the ValueError of a lone surrogate, which no file takes
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"column {column}: expected text or a number, got {type(value).__name__} {shorten(repr(value))}")


def sort_key(row: Row, key: Sequence[str]) -> list[tuple[int, str | int | float]]:
    """Sorts numbers before NaN before text, so that a column may hold both."""
    values = (row[column] for column in key)
    return [(2, value) if isinstance(value, str) else (0, value) if value == value else (1, 0.0) for value in values]
