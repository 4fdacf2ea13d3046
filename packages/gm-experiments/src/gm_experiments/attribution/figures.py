"""The pictures and the closing table of the attribution experiments: shares of the error over training."""

from typing import TYPE_CHECKING

import gm_lab
from gm_experiments.common.labels import estimator
from gm_lab import analysis
from gm_lab.analysis import category_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACE = ["inner_steps", "inner_lr", "sample_size"]
SHORT = {"composition": "I", "hessian": "II", "outer": "III"}
SHORT |= {"shared_batch": "shared batch", "critic": "critic", "clipping": "clipping", "adam": "Adam"}
LABELS = SHORT | {"composition": "I (composition)", "hessian": "II (Hessian)", "outer": "III (outer)"}
LOOKS = (*(category_style(k).colour for k in range(6)), "#8C8C8C")
HATCHES = ("", "//", "", "..", "", "\\\\", "")
MEASURES = {"bias_sq": "squared bias", "variance": "variance"}
UNITS = {"mdp": "MDPs", "seed": "runs"}


def unit_of(frame: "pd.DataFrame") -> str:
    """The column of the independent units."""
    return next(unit for unit in UNITS if unit in frame.columns)


def shares(rows: "pd.DataFrame", measure: str) -> "pd.DataFrame":
    """A measure per source (rows) and unit (columns), in units of the mean ‖∇φ Jᴷ‖² of the units."""
    unit = unit_of(rows)
    size = rows.groupby(unit)["truth_sq"].first().mean()
    table: pd.DataFrame = rows.pivot_table(index="source", columns=unit, values=measure) / size
    return table


def figures(_settings: gm_lab.RunSettings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """attribution: a column for each estimator, a row for each measure; one picture for each K, α and size."""
    places = list(frame.groupby(PLACE, sort=True))
    pictures = {}
    for (steps, rate, size), rows in places:
        name = "attribution" + (f"_k{steps:g}_lr{rate:g}_n{size:g}" if len(places) > 1 else "")
        pictures[name] = _stacked(rows, f"K = {steps:g}, α = {rate:g}, {size:g} trajectories for each role and step")
    return pictures


def _stacked(rows: "pd.DataFrame", title: str) -> "Figure":
    names = list(dict.fromkeys(rows["estimator"]))
    titles = [estimator(name) for name in names]
    figure = analysis.panels(titles, width=max(3.6, 7.6 / len(names)), height=3.0, rows=len(MEASURES))
    for i, (measure, label) in enumerate(MEASURES.items()):
        for j, name in enumerate(names):
            axes = figure.axes[i * len(names) + j]
            _bars(axes, rows[rows["estimator"] == name], measure)
            if j == 0:
                axes.set_ylabel(f"shares of the {label}")
            if i == len(MEASURES) - 1:
                axes.set_xlabel("updates before")
    units = UNITS[unit_of(rows)]
    whole = f"above each bar the whole, in units of the mean ‖∇φ J‖² of the {units}"
    analysis.shared_legend(figure, f"{title};\n{whole}", columns=7 if len(names) > 2 else 4)
    return figure


def _bars(axes: "Axes", rows: "pd.DataFrame", measure: str) -> None:
    """Shares as parts of the sum of their sizes: above zero what adds to the error, below what hides some of it."""
    points = sorted(rows["updates"].unique())
    for place, point in enumerate(points):
        mean = shares(rows[rows["updates"] == point], measure).mean(axis=1)
        size = mean.drop("all").abs().sum() or 1.0
        ends = {True: 0.0, False: 0.0}
        for source, label in LABELS.items():
            if source in mean.index:
                part, k = mean[source] / size, list(LABELS).index(source)
                axes.bar(
                    place, part, bottom=ends[part > 0], width=0.72, color=LOOKS[k], hatch=HATCHES[k],
                    edgecolor="white", linewidth=0.6, label=label if place == 0 else None, zorder=2,
                )  # fmt: skip
                ends[part > 0] += part
        axes.text(place, ends[True] + 0.02, f"{mean['all']:.2g}", ha="center", fontsize=8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(points)), [f"{point}" for point in points])
    axes.set_ylim(top=1.12)


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
