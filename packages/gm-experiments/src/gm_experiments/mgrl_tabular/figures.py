"""results.csv becomes figures and the closing table."""

from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.dots import dot, moment, named_rows, shown
from gm_experiments.common.findings import intervals
from gm_experiments.common.labels import ACCURACY, COSINES, STEPS
from gm_experiments.mgrl_tabular import findings
from gm_experiments.mgrl_tabular.findings import NAMES, PARTS, REPAIRED, in_order, names_of, relative
from gm_experiments.mgrl_tabular.settings import ALL, CORRECTED, Settings
from gm_experiments.mgrl_tabular.sources import ESTIMATORS
from gm_lab import analysis
from gm_lab.analysis import Style, category_style, styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BIAS = "bias / ‖g‖"
SIZE = 2.8


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws bias, the entries, all sampled, the sources and the schedules, as far as results.csv has rows for them.

    The first two are of the steps, or of the sources for want of these.
    """
    steps, sources = (frame[frame["figure"] == name] for name in ("steps", "sources"))
    exact = steps[steps["permutation"] == "ESE"]
    if exact.empty:
        exact = sources[sources["estimator"].isin(ESTIMATORS)]
    parts = {
        "bias": (exact[exact["meta_param"] == ALL], _bias),
        "meta_parameters": (exact[(exact["meta_param"] != ALL) & exact["expected_error"].notna()], _meta_params),
        "sampled": (steps[(steps["meta_param"] == ALL) & (steps["permutation"] == "SSS")], _sampled),
        "sources": (sources[sources["meta_param"] == ALL], _sources),
        "schedules": (frame[frame["figure"] == "schedules"], _schedules),
    }
    return {name: draw(rows) for name, (rows, draw) in parts.items() if not rows.empty}


def looks_of(rows: "pd.DataFrame") -> dict[str, Style]:
    """The estimators' colours, and a colour of its own for what corrects all."""
    names = in_order(rows)
    return styles([name for name in names if name != CORRECTED]) | (
        {CORRECTED: category_style(3)} if CORRECTED in names else {}
    )


def _lines(
    axes: "Axes", rows: "pd.DataFrame", y: str, label: str, *, x: str = "inner_steps", direct: bool, log: bool = False,
    marks: bool = True,
) -> None:  # fmt: skip
    looks = looks_of(rows)
    analysis.lines(
        axes, rows, x, y, by="estimator", over="mdp", names=list(looks), looks=looks, labels=names_of(rows),
        x_label=STEPS if x == "inner_steps" else "window", y_label=label, direct=direct, geometric=log, marks=marks,
        y_scale="log" if log else "linear", within=COSINES if y == "accuracy" else None,
    )  # fmt: skip


def _bias(rows: "pd.DataFrame") -> "Figure":
    """A panel for each point of learning."""
    rows, points = relative(rows), shown(sorted(rows["updates"].unique()))
    figure = analysis.panels([moment(point) for point in points], height=SIZE)
    for axes, point in zip(figure.axes, points, strict=True):
        _lines(axes, rows[rows["updates"] == point], "bias", BIAS, direct=point == points[-1])
        _steps_axis(axes, rows)
    caption = (
        "How far the mean of an estimate of MGRL's meta-gradient g is off g, in units of ‖g‖: inner and outer gradient "
        f"exact, the Hessian from infinitely many trajectories. {_over(rows)}"
    )
    analysis.entitle(figure, findings.bias(rows), caption)
    return figure


def _steps_axis(axes: "Axes", rows: "pd.DataFrame") -> None:
    steps = sorted(rows["inner_steps"].unique())
    axes.set_xticks(steps, [f"{step:g}" for step in steps])
    axes.set_xlim(steps[0] - 0.3, steps[-1] + 0.3)


def _over(rows: "pd.DataFrame", what: str = "Bands") -> str:
    return intervals(what, rows["mdp"].nunique(), "MDPs")


def _meta_params(rows: "pd.DataFrame") -> "Figure":
    """A line for each meta-parameter and on it a dot for each estimator, at the largest K."""
    steps = rows["inner_steps"].max()
    rows = rows[(rows["inner_steps"] == steps) & (rows["estimator"] != CORRECTED)]
    points, looks = shown(sorted(rows["updates"].unique())), looks_of(rows)
    most = float(rows.groupby(["updates", "estimator", "meta_param"])["expected_error"].mean().max())
    figure = analysis.panels([moment(point) for point in points], height=0.13 * len(NAMES) * (1 + len(looks)) + 0.5)
    for axes, point in zip(figure.axes, points, strict=True):
        axes.set_xlim(-0.02, 1.1 * max(1.0, most))
        for shift, (name, look) in zip(_shifts(len(looks)), looks.items(), strict=True):
            here = rows[(rows["updates"] == point) & (rows["estimator"] == name)]
            for place, meta_param in enumerate(NAMES):
                values = here.loc[here["meta_param"] == meta_param, "expected_error"]
                dot(axes, place + shift, analysis.mean_interval(values.to_numpy()), look)
            if point == points[-1]:
                analysis.end_label(axes, np.array([shift]), names_of(rows)[name], look.colour)
        named_rows(axes, list(NAMES.values()))
        axes.set_xlabel("off / the larger of both")
    caption = (
        f"How far each entry of an estimate's mean is off, over the larger of it and the true one, K = {steps:g}: 0 is "
        "exact; 1 a zero where there is something, or many times the truth; 2 the opposite. Inner and outer gradient "
        f"exact. {_over(rows, 'Bars')}"
    )
    analysis.entitle(figure, findings.meta_params(rows), caption)
    return figure


def _shifts(count: int) -> list[float]:
    """How far the dots of each estimator are from the middle of their line."""
    apart = min(0.24, 0.66 / max(count - 1, 1))
    return [apart * (rank - (count - 1) / 2) for rank in range(count)]


def _sampled(rows: "pd.DataFrame") -> "Figure":
    """Variance and accuracy where all is sampled, a column for each of two points, the batches as they are shared."""
    size, batches = rows["sample_size"].max(), rows["batches"].max()
    rows = relative(rows[(rows["sample_size"] == size) & (rows["batches"] == batches)])
    points = sorted({rows["updates"].min(), rows["updates"].max()})
    titles = [f"{what}, {moment(point)}" for what in ("variance / ‖g‖²", "accuracy") for point in points]
    figure = analysis.panels(titles, rows=2, height=2.3)
    for number, axes in enumerate(figure.axes):
        point, last = points[number % len(points)], (number + 1) % len(points) == 0
        here, first = rows[rows["updates"] == point], number < len(points)
        _lines(axes, here, "noise" if first else "accuracy", "variance / ‖g‖²" if first else ACCURACY,
            direct=last, log=first)  # fmt: skip
        _steps_axis(axes, rows)
    shared = "one batch for inner gradient and Hessian" if batches == "shared" else "batches of their own"
    caption = (
        f"MGRL's meta-gradient g where inner gradient, Hessian and outer gradient are sampled, {size:,g} trajectories "
        f"each, {shared}. Variances: geometric means. {_over(rows)}"
    )
    analysis.entitle(figure, findings.sampled(rows), caption)
    return figure


def _sources(rows: "pd.DataFrame") -> "Figure":
    """A line for each estimator, each repair and each part that alone is left out, at the largest K."""
    steps = rows["inner_steps"].max()
    rows = relative(rows[rows["inner_steps"] == steps])
    points = shown(sorted(rows["updates"].unique()))
    house = [name for name in ESTIMATORS if name != CORRECTED]
    labels = {name: names_of(rows)[name] for name in house} | REPAIRED | {k: f"without {v}" for k, v in PARTS.items()}
    figure = analysis.panels([moment(point) for point in points], height=0.22 * len(labels) + 0.6)
    looks = styles(house)
    most = 1.05 * float(rows.groupby(["estimator", "updates"])["bias"].mean().max())
    for axes, point in zip(figure.axes, points, strict=True):
        axes.set_xlim(-0.01 * most, 1.15 * most)
        for place, name in enumerate(labels):
            values = rows.loc[(rows["updates"] == point) & (rows["estimator"] == name), "bias"]
            look = looks.get(name.partition("+")[0], category_style(3))
            dot(axes, place, analysis.mean_interval(values.to_numpy()), look)
        named_rows(axes, list(labels.values()))
        axes.set_xlabel(BIAS)
    caption = (
        f"Exact bias of MGRL's meta-gradient g, K = {steps:g}: of each estimator, of each with one repair, and of the "
        "truth if its derivative leaves out one of the ways in which an update depends on θ. "
        f"{_over(rows, 'Bars')}"
    )
    analysis.entitle(figure, findings.source(rows), caption)
    return figure


def _schedules(rows: "pd.DataFrame") -> "Figure":
    """A column for each schedule: how much too long the estimates are along training, and what is learnt."""
    batches = rows["batches"].max()
    rows = rows[rows["batches"] == batches]
    kinds = sorted(rows["schedule"].unique())
    titles = [f"{what}, {kind}" for what in ("relative bias", "accuracy") for kind in kinds]
    figure = analysis.panels(titles, rows=2, height=2.2)
    for number, axes in enumerate(figure.axes):
        here, first = rows[rows["schedule"] == kinds[number % len(kinds)]], number < len(kinds)
        _lines(axes, here, "relative_bias" if first else "accuracy", "relative bias" if first else ACCURACY,
            x="updates", direct=(number + 1) % len(kinds) == 0, marks=False)  # fmt: skip
        if first:
            axes.axhline(0, color="black", linewidth=0.9, zorder=1)
    steps, size = rows["inner_steps"].iloc[0], rows["sample_size"].iloc[0]
    caption = (
        f"MGRL that trains by each estimator, windows of K = {steps:g} updates, {size:,g} trajectories each, batches "
        f"{batches}. Discard goes on from a window's first update, online from its last. Relative bias: how much too "
        f"long an estimate is along the exact meta-gradient there; −1 is none of it. {_over(rows)}"
    )
    analysis.entitle(figure, findings.schedules(rows), caption)
    return figure


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """The exact bias of each estimator, or of each source, by point and K, as a part of ‖g‖."""
    exact = frame[(frame["meta_param"] == ALL) & frame["expected_bias_sq"].notna()]
    if exact.empty:
        rows = frame[frame["meta_param"] == ALL].rename(columns={"updates": "window"})
        table = rows.pivot_table(index=["schedule", "batches", "estimator"], values=["accuracy", "relative_bias"])
        return table.round(3).reset_index()
    rows = exact[exact["figure"] == exact["figure"].iloc[-1]]
    labels = names_of(rows) | REPAIRED | {name: f"without {part}" for name, part in PARTS.items()}
    rows = relative(rows).assign(estimator=rows["estimator"].map(labels))
    table = rows.pivot_table(index=["updates", "estimator"], columns="inner_steps", values="bias", sort=False)
    named: pd.DataFrame = table.round(3).rename(columns=lambda k: f"K = {k:g}").reset_index()
    return named.rename(columns={"estimator": BIAS})
