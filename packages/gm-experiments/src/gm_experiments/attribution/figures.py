"""The pictures and the closing table of the attribution experiments: shares of the error over training."""

from typing import TYPE_CHECKING

import numpy as np

import gm_lab
from gm_experiments.attribution import findings
from gm_experiments.attribution.findings import MEASURES, UNITS, unit_of
from gm_experiments.common.dots import dot, moment, named_rows
from gm_experiments.common.findings import intervals as intervals_over
from gm_experiments.common.labels import estimator, short
from gm_experiments.common.words import span
from gm_lab import analysis
from gm_lab.analysis import Interval, styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PLACE = ["inner_steps", "inner_lr", "sample_size"]
SHORT = {"composition": "I", "hessian": "II", "outer": "III"}
SHORT |= {"shared_batch": "shared batch", "critic": "critic", "clipping": "clipping", "adam": "Adam"}
LABELS = SHORT | {"composition": "inner gradient (I)", "hessian": "Hessian (II)", "outer": "outer gradient (III)"}


def shares(rows: "pd.DataFrame", measure: str) -> "pd.DataFrame":
    """A measure per source (rows) and unit (columns), in units of the mean ‖∇φ Jᴷ‖² of the units."""
    unit = unit_of(rows)
    size = rows.groupby(unit)["truth_sq"].first().mean()
    table: pd.DataFrame = rows.pivot_table(index="source", columns=unit, values=measure) / size
    return table


def figures(_settings: gm_lab.RunSettings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """attribution: a row for each measure, a column for each end of training; one picture for each K, α and size."""
    places = list(frame.groupby(PLACE, sort=True))
    pictures = {}
    for (steps, rate, size), rows in places:
        name = "attribution" + (f"_k{steps:g}_lr{rate:g}_n{size:g}" if len(places) > 1 else "")
        pictures[name] = _dots(rows)
    return pictures


def _dots(rows: "pd.DataFrame") -> "Figure":
    """A line for each source and on it a dot for each estimator, at the first and the last point of training."""
    points = sorted({rows["updates"].min(), rows["updates"].max()})
    names = [str(name) for name in dict.fromkeys(rows["estimator"])]
    sources = [source for source in LABELS if source in set(rows["source"])]
    parts = [(measure, point, rows[rows["updates"] == point]) for measure in MEASURES for point in points]
    titles = [f"{MEASURES[measure]}, {moment(at)}: {_whole(here, measure)} ‖∇J‖²" for measure, at, here in parts]
    height = 0.12 * len(sources) * (1 + len(names) / 2) + 0.55
    figure = analysis.panels(titles, rows=len(MEASURES), height=height)
    intervals = [_intervals(here, measure) for measure, _, here in parts]
    limits = _limits([value for of_panel in intervals for value in of_panel.values()])
    for axes, of_panel in zip(figure.axes, intervals, strict=True):
        axes.set_xlim(*limits)
        for shift, (name, look) in zip(_shifts(len(names)), styles(names).items(), strict=True):
            for place, source in enumerate(sources):
                dot(axes, place + shift, of_panel[name, source], look)
            if axes is figure.axes[len(points) - 1]:
                analysis.end_label(axes, np.array([shift]), short(names)[name], look.colour)
        axes.axvline(0, color="black", linewidth=0.9, zorder=1)
        named_rows(axes, [LABELS[source] for source in sources])
    for axes in figure.axes[-len(points) :]:
        axes.set_xlabel("← hides error     share, %     adds to it →")
    (steps, rate, size), unit = rows[PLACE].iloc[0], unit_of(rows)
    caption = (
        "Each source's share (Shapley value) of all that adds to the error or hides some of it; above each panel the "
        f"whole error. {str(rows['algorithm'].iloc[0]).upper()} with K = {steps:g}, α = {rate:g}, {size:,g} "
        f"trajectories for each role and step. {intervals_over('Bars', rows[unit].nunique(), UNITS[unit])}"
    )
    analysis.entitle(figure, findings.finding(rows), caption)
    return figure


def _intervals(rows: "pd.DataFrame", measure: str) -> dict[tuple[str, str], Interval]:
    """Estimator and source ↦ its mean share."""
    return {
        (str(name), str(source)): analysis.mean_interval(values.to_numpy())
        for name, of_name in rows.groupby("estimator")
        for source, values in findings.parts(of_name, measure).iterrows()
    }


def _limits(values: "list[Interval]") -> tuple[float, float]:
    """Ends of an axis that holds all intervals that have ends."""
    ends = [end for value in values for end in (value.low, value.mean, value.high) if np.isfinite(end)]
    return 20 * float(np.floor(min([*ends, -1]) / 20)), 20 * float(np.ceil(max([*ends, 1]) / 20))


def _shifts(count: int) -> list[float]:
    """How far the dots of each estimator are from the middle of their line."""
    apart = min(0.22, 0.66 / max(count - 1, 1))
    return [apart * (rank - (count - 1) / 2) for rank in range(count)]


def _whole(rows: "pd.DataFrame", measure: str) -> str:
    """The whole error, for the estimators that have the least and the most of it."""
    return span(
        [float(shares(of_name, measure).loc["all"].to_numpy().mean()) for _, of_name in rows.groupby("estimator")]
    )


def summary(_settings: gm_lab.RunSettings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Every source's share after some updates, and the whole with half the width of its interval, in % of ‖∇φ Jᴷ‖²."""
    import pandas as pd

    lines: list[dict[str, str | float]] = []
    places = list(frame.groupby(PLACE, sort=True))
    for (steps, rate, size), at in places:
        place = {"at": f"K {steps:g}, α {rate:g}, n {size:g}"} if len(places) > 1 else {}
        for name in dict.fromkeys(at["estimator"]):
            for measure, label in MEASURES.items():
                of = {"of": f"{estimator(str(name))}, {label.replace('squared bias', 'bias²')}"}
                parts = _over_training(at[at["estimator"] == name], measure)
                lines += [place | of | {"% of ‖∇φJ‖²": source} | line for source, line in parts.items() if line]
    return pd.DataFrame(lines)


def _over_training(rows: "pd.DataFrame", measure: str) -> dict[str, dict[str, float]]:
    """Source ↦ update ↦ its share in % of ‖∇φ Jᴷ‖², and the whole."""
    lines: dict[str, dict[str, float]] = {source: {} for source in (*SHORT.values(), "whole", "whole ±")}
    for point, of_point in rows.groupby("updates", sort=True):
        table = 100 * shares(of_point, measure)
        whole = analysis.mean_interval(table.loc["all"].to_numpy())
        lines["whole"][f"{point:g}"] = round(whole.mean, 2)
        lines["whole ±"][f"{point:g}"] = round(whole.high - whole.mean, 2)
        for source in table.index.drop("all"):
            lines[SHORT[source]][f"{point:g}"] = round(float(table.loc[source].mean()), 2)
    return lines
