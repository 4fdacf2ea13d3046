"""Curves: the rows of results.csv that belong on one line of a plot. Each becomes one W&B run."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gm_lab.run.cells import Row

if TYPE_CHECKING:
    import pandas as pd

# W&B's own charts draw at most some hundreds of points; every row is in results.csv, which is uploaded as it is
POINTS = 100

T = TypeVar("T")


@dataclass(frozen=True)
class Curves:
    """How rows of results.csv form curves, which the columns `by` tell apart, all rows or those of some `figures`.

    `over` names the units that are averaged, with their 95% interval; None: there is one row for each x.
    """

    by: tuple[str, ...]
    x: str
    y: tuple[str, ...]
    over: str | None = None
    figures: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Curves":
        """From what `dataclasses.asdict` made of it, by way of JSON or not."""
        lists = {name: tuple(fields[name]) for name in ("by", "y", "figures")}
        return cls(x=fields["x"], over=fields["over"], **lists)

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of one of these curves."""
        return not self.figures or row.get("figure") in self.figures


@dataclass(frozen=True)
class Curve:
    """One curve: what tells it apart, by column, how its rows are read, and its points: x, and y where a number."""

    place: dict[str, str | int | float]
    kind: Curves
    rows: list[dict[str, float]]

    @property
    def name(self) -> str:
        """For people: texts as they are, numbers with their column's name."""
        parts = [value if isinstance(value, str) else f"{column}={value:g}" for column, value in self.place.items()]
        return " ".join(part for part in parts if part)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that depend on the place alone."""
        return hashlib.sha256(json.dumps(self.place).encode()).hexdigest()[:8]

    @property
    def tags(self) -> list[str]:
        """The texts of its place: figure, estimator, game."""
        return list(dict.fromkeys(value for value in self.place.values() if isinstance(value, str) and value))


def curve_of(kinds: Sequence[Curves], row: Row) -> Curve | None:
    """The curve that a live row belongs to, with this one point."""
    kind = next((kind for kind in kinds if kind.has(row) and kind.x in row), None)
    if kind is None:
        return None
    return Curve({column: row.get(column, "") for column in kind.by}, kind, [_point(kind, row)])


def curves_of(kinds: Sequence[Curves], frame: "pd.DataFrame") -> Iterator[Curve]:
    """Yields the curves of results.csv in order of appearance; raises ValueError if it lacks a column of theirs."""
    for kind in kinds:
        rows = frame[frame["figure"].isin(kind.figures)] if kind.figures else frame
        if rows.empty:
            continue
        columns = [*kind.by, kind.x, *kind.y, *([kind.over] if kind.over else [])]
        if missing := [column for column in columns if column not in frame.columns]:
            raise ValueError(f"expected columns among {', '.join(frame.columns)}; got {', '.join(missing)}")
        for place, part in rows.groupby(list(kind.by), sort=False, dropna=False):
            plain = {column: _plain(value) for column, value in zip(kind.by, place, strict=True)}
            yield Curve(plain, kind, list(_points(kind, part)))


def _points(kind: Curves, part: "pd.DataFrame") -> Iterator[dict[str, float]]:
    from gm_lab.analysis.statistics import mean_interval

    if kind.over is None:
        for row in part.sort_values(kind.x).to_dict("records"):
            yield _point(kind, {str(column): value for column, value in row.items()})
        return
    for at, of_x in part.groupby(kind.x, sort=True):
        point = {kind.x: _plain(at)}
        for column in kind.y:
            values = of_x.groupby(kind.over)[column].mean().dropna()
            if len(values):
                interval = mean_interval(values.to_numpy())
                point[column] = interval.mean
                if len(values) > 1:
                    point |= {f"{column}_low": interval.low, f"{column}_high": interval.high}
        yield point


def _point(kind: Curves, row: Mapping[str, Any]) -> dict[str, float]:
    """W&B would draw a NaN as a point of its own: what was not measured is left out."""
    values = {column: _plain(row[column]) for column in (kind.x, *kind.y) if column in row}
    return {column: value for column, value in values.items() if isinstance(value, int | float) and value == value}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def steps(x: Sequence[float]) -> list[int]:
    """A growing whole number for each point: x itself where it is one, else the position."""
    whole = all(math.isfinite(at) and at == int(at) and at >= 0 for at in x)
    if whole and all(first < second for first, second in itertools.pairwise(x)):
        return [int(at) for at in x]
    return list(range(len(x)))


def thinned(points: Sequence[T], most: int = POINTS) -> list[T]:
    """At most `most` points, evenly spaced, the last one among them."""
    stride = max(1, math.ceil(len(points) / most))
    return list(points[::-1][::stride][::-1])
