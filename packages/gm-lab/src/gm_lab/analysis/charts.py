"""The curves of a run as the report's charts have them: means over units with their intervals, by everything else."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gm_lab import pages
from gm_lab.analysis.palette import Style, category_style, styles
from gm_lab.analysis.tables import is_text

if TYPE_CHECKING:
    import pandas as pd

FIGURE = "figure"
LINES = ("estimator", "curve", "algorithm", "kind", "source", "quantity")
"""Columns whose values are the lines of one chart, the first that tells some apart; all others choose among charts."""
UNITS = ("mdp", "task", "seed")
"""Columns of independent units, where a kind of curves names none."""
POINTS = 100
"""At most so many points has a line."""


def interval_table(
    frame: "pd.DataFrame", by: Sequence[str], over: str | None, columns: Sequence[str], confidence: float = 0.95
) -> "pd.DataFrame":
    """The means of columns for all values of `by`, as `mean_interval` has them: beside each its ends, _low and _high.

    Rows of one unit, which `over` names, are averaged first; without units there are no intervals.
    """
    import pandas as pd
    from scipy.special import stdtrit

    units = [*by, over] if over else list(by)
    each = frame.groupby(units, sort=True, dropna=False)[list(columns)].mean()
    grouped = each.groupby(level=list(range(len(by))), sort=True, dropna=False)
    mean, count = grouped.mean(), grouped.count()
    half = stdtrit(count - 1, (1 + confidence) / 2) * grouped.std(ddof=1) / np.sqrt(count)
    ends = (mean - half).add_suffix("_low"), mean, (mean + half).add_suffix("_high")
    table: pd.DataFrame = pd.concat(ends, axis=1).reset_index()
    return table


def charts(kinds: Sequence[Mapping[str, Any]], frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """A chart for each figure of each kind of curves, as a run's records name them, that results.csv has rows for.

    What is in no column, or in none of numbers, is left out.
    """
    found = []
    for kind in kinds:
        by, x, over = _axes(kind, frame)
        rows = frame[frame[FIGURE].isin(kind["figures"])] if kind["figures"] and FIGURE in frame else frame
        metrics = [name for name in kind["y"] if name in frame and not is_text(frame, name)]
        if x not in frame or is_text(frame, x):
            continue
        split = rows.groupby(FIGURE, sort=False) if FIGURE in by else [("", rows)]
        for figure, part in split:
            some = [name for name in metrics if np.isfinite(part[name]).any()]
            part = part[np.isfinite(part[x])]
            if some and len(part):
                found.append(_chart(str(figure), part, [name for name in by if name != FIGURE], x, over, some))
    return found


def _axes(kind: Mapping[str, Any], frame: "pd.DataFrame") -> tuple[list[str], str, str | None]:
    """What tells curves apart, what they go over, and the units that are averaged."""
    named = kind.get("over") or kind.get("alone")
    over = named if named in frame else next((name for name in UNITS if name in kind["by"] and name in frame), None)
    return [name for name in kind["by"] if name in frame and name != over], kind["x"], over


def _chart(
    figure: str, rows: "pd.DataFrame", by: list[str], x: str, over: str | None, metrics: list[str]
) -> dict[str, Any]:
    several = [name for name in by if rows[name].nunique(dropna=False) > 1]
    line = next((name for name in (*LINES, *several) if name in several), None)
    table = interval_table(rows, [*by, x], over, metrics)
    places = {name: [_named(value) for value in table[name]] for name in several}
    values = {name: list(dict.fromkeys(places[name])) for name in several}
    kept = _thinned(table[x].tolist())
    names = values[line] if line else [figure or x]
    return {
        "title": figure,
        "x": x,
        "over": over or "",
        "line": line or "",
        "looks": {name: pages.look(look.colour, look.marker, look.dash) for name, look in _looks(line, names).items()},
        "choices": {name: values[name] for name in several if name != line},
        "metrics": metrics,
        "rows": [_row(record, [places[name][i] for name in several if name != line],
                      places[line][i] if line else names[0], x, metrics)
                 for i, record in enumerate(table.to_dict("records")) if record[x] in kept],
    }  # fmt: skip


def _looks(line: str | None, names: Sequence[str]) -> dict[str, Style]:
    """Estimators look as everywhere, other lines by their places."""
    if line in (None, LINES[0]):
        return styles(names)
    return {name: category_style(place) for place, name in enumerate(names)}


def _row(record: Mapping[Any, Any], choices: list[str], name: str, x: str, metrics: list[str]) -> list[Any]:
    """The values that choose it, its line, x, and of each metric mean, low and high with four digits."""
    numbers = [record[metric + end] for metric in metrics for end in ("", "_low", "_high")]
    return [choices, name, record[x], *(_digits(number) for number in numbers)]


def _digits(number: float) -> float | None:
    return float(f"{number:.4g}") if math.isfinite(number) else None


def _named(value: Any) -> str:
    return value if isinstance(value, str) else "" if value != value else f"{value:g}"


def _thinned(values: Sequence[float]) -> set[float]:
    """The places that are drawn: all, or some that lie evenly, the last one among them."""
    places = sorted(set(values))
    stride = max(1, math.ceil(len(places) / POINTS))
    return set(places[::-1][::stride])
