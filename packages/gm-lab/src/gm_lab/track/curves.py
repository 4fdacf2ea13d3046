"""Curves: the rows of results.csv that belong on one line of a plot, and how W&B has them.

A curve is a mean over units with its 95% interval. All curves of an experiment are keys of its one W&B run. Units that
are trained one by one, such as seeds, have W&B runs of their own beside it.
"""

import hashlib
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from gm_lab.run.cells import Row

if TYPE_CHECKING:
    import pandas as pd

# W&B's own charts draw at most some hundreds of points; every row is in results.csv, which is uploaded as it is
POINTS = 100
BAND = ("_low", "_high")
"""What the keys of a band's two ends have behind the key of the mean."""
FIGURE = "figure"
LINES = "estimator"
"""The column whose values are the lines of one panel; for curves without it, the last that tells them apart."""
FACTOR = 30.0
"""An axis is logarithmic if its values are positive and the largest is so many times the smallest."""

T = TypeVar("T")


@dataclass(frozen=True)
class Curves:
    """How rows of results.csv form curves, which the columns `by` tell apart, all rows or those of some `figures`.

    `over` names the units that are averaged, with their 95% interval; None: there is one row for each x.
    `alone` names the units that are trained one by one, such as seeds: the curves are means over them, and each of them
    has a W&B run of its own, which grows while it is trained if its cell writes live rows.
    """

    by: tuple[str, ...]
    x: str
    y: tuple[str, ...]
    over: str | None = None
    figures: tuple[str, ...] = ()
    alone: str | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Curves":
        """From what `dataclasses.asdict` made of it, by way of JSON or not."""
        lists = {name: tuple(fields[name]) for name in ("by", "y", "figures")}
        return cls(x=fields["x"], over=fields["over"], alone=fields.get("alone"), **lists)

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of one of these curves."""
        return not self.figures or row.get(FIGURE) in self.figures

    def of_each(self) -> "Curves":
        """The curves of the units that are trained one by one."""
        return replace(self, by=(*self.by, *([self.alone] if self.alone else [])), alone=None)


@dataclass(frozen=True)
class Curve:
    """One curve: what tells it apart, by column, how its rows are read, and its points: x, and y where a number."""

    place: dict[str, str | int | float]
    kind: Curves
    rows: list[dict[str, float]]

    @property
    def name(self) -> str:
        """For people: texts as they are, numbers with their column's name."""
        return " ".join(filter(None, itertools.starmap(_said, self.place.items())))

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that depend on the place alone."""
        return hashlib.sha256(json.dumps(self.place).encode()).hexdigest()[:8]

    @property
    def tags(self) -> list[str]:
        """The texts of its place: figure, estimator, game."""
        return list(dict.fromkeys(value for value in self.place.values() if isinstance(value, str) and value))

    @property
    def line(self) -> str:
        """What tells it from the other curves of one panel."""
        column = LINES if LINES in self.place else next((name for name in reversed(self.place) if name != FIGURE), "")
        return _said(column, self.place[column]) if column else "mean"


def curve_of(kinds: Sequence[Curves], row: Row) -> Curve | None:
    """The curve of a unit that is trained alone, with the one point that a live row has; None for any other row."""
    kind = next((kind.of_each() for kind in kinds if kind.alone and kind.has(row) and kind.x in row), None)
    if kind is None:
        return None
    return Curve({column: row.get(column, "") for column in kind.by}, kind, [_point(kind, row)])


def curves_of(kinds: Sequence[Curves], frame: "pd.DataFrame") -> Iterator[Curve]:
    """Yields the curves of results.csv in order of appearance; raises ValueError if it lacks a column of theirs."""
    for kind in kinds:
        rows = frame[frame[FIGURE].isin(kind.figures)] if kind.figures else frame
        if rows.empty:
            continue
        columns = [*kind.by, kind.x, *kind.y, *(unit for unit in (kind.over, kind.alone) if unit)]
        if missing := [column for column in columns if column not in frame.columns]:
            raise ValueError(f"expected columns among {', '.join(frame.columns)}; got {', '.join(missing)}")
        parts: Any = rows.groupby(list(kind.by), sort=False, dropna=False) if kind.by else [((), rows)]
        for place, part in parts:
            plain = {column: _plain(value) for column, value in zip(kind.by, place, strict=True)}
            yield Curve(plain, kind, list(_points(kind, part)))


def keyed(curves: Iterable[Curve]) -> dict[str, Curve]:
    """The curves by what their keys in W&B begin with: figure, texts, and those numbers that tell curves apart.

    The key of a mean is "fig4/maml/lvc/SSE/accuracy", those of its band's ends have `BAND` behind it.
    """
    figures: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        figures[str(curve.place.get(FIGURE, "curves"))].append(curve)
    return {"/".join([figure, *_parts(curve, some)]): curve for figure, some in figures.items() for curve in some}


def history(keyed_curves: Mapping[str, Curve]) -> Iterator[dict[str, float]]:
    """Yields rows for one W&B run: for each axis its values in their order, each with all that curves have there."""
    axes: dict[str, dict[float, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for key, curve in keyed_curves.items():
        x = curve.kind.x
        for point in thinned(curve.rows):
            axes[x][point[x]] |= {f"{key}/{name}": value for name, value in point.items() if name != x}
    for x, rows in axes.items():
        for at in sorted(rows):
            yield {x: at} | rows[at]


def digest(rows: Sequence[Mapping[str, float]]) -> str:
    """Eight hexadecimal digits that depend on what is sent."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:8]


def panels_of(keyed_curves: Mapping[str, Curve]) -> Iterator[tuple[str, str, dict[str, Curve]]]:
    """Yields figure, column of y and the lines of each panel: curves that differ in their line alone, by key."""
    panels: dict[tuple[str, str, str], dict[str, Curve]] = defaultdict(dict)
    for key, curve in keyed_curves.items():
        figure = str(curve.place.get(FIGURE, "curves"))
        rest = "/".join(part for part in key.split("/") if part != curve.line)
        for column in curve.kind.y:
            if any(column in point for point in curve.rows):
                panels[figure, column, rest][key] = curve
    order = {place: number for number, place in enumerate(dict.fromkeys(place[:2] for place in panels))}
    for place in sorted(panels, key=lambda place: order[place[:2]]):
        yield place[0], place[1], panels[place]


def logarithmic(values: Iterable[float]) -> bool:
    """Whether an axis with these values is easier to read in factors."""
    found = list(values)
    return bool(found) and min(found) > 0 and max(found) >= FACTOR * min(found)


def _parts(curve: Curve, others: Sequence[Curve]) -> Iterator[str]:
    for column, value in curve.place.items():
        told_apart = isinstance(value, str) or any(other.place.get(column) != value for other in others)
        if column != FIGURE and value != "" and told_apart:
            yield _said(column, value).replace("/", "|")


def _said(column: str, value: str | int | float) -> str:
    return value if isinstance(value, str) else f"{column}={value:g}"


def _points(kind: Curves, part: "pd.DataFrame") -> Iterator[dict[str, float]]:
    from gm_lab.analysis.statistics import mean_interval

    unit = kind.alone or kind.over
    if unit is None:
        for row in part.sort_values(kind.x).to_dict("records"):
            yield _point(kind, {str(column): value for column, value in row.items()})
        return
    means = part.groupby([kind.x, unit])[list(kind.y)].mean()
    for at in thinned(sorted(part[kind.x].dropna().unique())):
        point = {kind.x: _plain(at)}
        for column, of_units in means.loc[at].items():
            values = of_units.dropna().to_numpy()
            if len(values):
                interval = mean_interval(values)
                point[str(column)] = interval.mean
                if len(values) > 1:
                    low, high = (f"{column}{end}" for end in BAND)
                    point |= {low: interval.low, high: interval.high}
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
