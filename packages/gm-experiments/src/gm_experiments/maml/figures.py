"""The pictures and the closing table that the MAML experiment makes of results.csv."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gm_experiments.common.findings import bands, held
from gm_experiments.common.labels import (
    ACCURACY,
    COSINES,
    ESTIMATORS,
    ORDER,
    RATE,
    SIZES,
    SPREAD,
    STEPS,
    estimator,
    permutation,
    short,
)
from gm_experiments.maml import findings
from gm_experiments.maml.estimator_pictures import estimator_pictures
from gm_experiments.maml.settings import FIGURES, Settings
from gm_experiments.theory import figures as theory
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

VARIED = {"fig4": ("sample_size", SIZES), "fig5": ("inner_lr", RATE), "fig6": ("inner_steps", STEPS)}
STORY = ("SSS", "SSE", "SEE", "ESE", "ESS", "SES", "EES")
"""Permutations in the order in which they are chosen for the panels: all noise, then less and less of it."""
PANELS = 4
ALIKE = "With an exact Hessian AD, Loaded-DiCE and LVC are one estimator."


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """The pictures of the paper's figures that results.csv has rows for, the headline, estimators and theory."""
    drawn = {}
    for name in sorted(set(frame["figure"]) & set(FIGURES)):
        rows = frame[frame["figure"] == name]
        if name not in VARIED:
            drawn[name] = _by_estimator(rows)
            continue
        drawn[name] = _by_permutation(rows, *VARIED[name], "accuracy")
        drawn[f"{name}_spread"] = _by_permutation(rows, *VARIED[name], "std_sum")
        if name == "fig4" and "SSS" in set(rows["permutation"]):
            drawn["headline"] = _headline(rows)
            drawn |= estimator_pictures(rows)
    return drawn | theory.figures(frame)


def _headline(rows: "pd.DataFrame") -> "Figure":
    """Accuracy, bias and standard deviation over the number of trajectories, everything sampled."""
    rows = rows.assign(
        bias=rows["bias_sq"] / rows["truth_sq"], deviation=(rows["variance"] / rows["truth_sq"]) ** 0.5
    ).replace([float("inf"), -float("inf")], float("nan"))  # fmt: skip
    sampled = rows[rows["permutation"] == "SSS"]
    # the outer gradient of the house's estimators is unbiased: sampled, it adds nothing but noise to a measured bias
    quiet = rows[(rows["permutation"] == "SSE") & (set(rows["estimator"]) <= set(ESTIMATORS))]
    biased = quiet if len(quiet) else sampled
    titles = ["accuracy (cosine)", "bias / gradient length", "std. deviation / gradient length"]
    figure = analysis.panels(titles, height=2.6, share_y=False)
    shown: tuple[tuple[pd.DataFrame, str, dict[str, Any]], ...] = (
        (sampled, "accuracy", {"within": COSINES}), (biased, "bias", {"root": True}),
        (sampled, "deviation", {"y_scale": "log", "geometric": True}),
    )  # fmt: skip
    for axes, (chosen, metric, more) in zip(figure.axes, shown, strict=True):
        analysis.lines(
            axes, chosen, "sample_size", metric, by="estimator", over="mdp", labels=short(rows["estimator"].unique()),
            x_label=SIZES, y_label="", x_scale="log2", direct=True, **more,
        )  # fmt: skip
    drawn = [value for line in figure.axes[1].get_lines() for value in np.asarray(line.get_ydata(), dtype=float)]
    figure.axes[1].set_ylim(0, max([1.0, *(1.05 * value for value in drawn if np.isfinite(value))]))
    noise = ", in the middle all but the outer gradient, for less noise" if len(quiet) else ""
    what = f"Meta-gradients of MAML in random MDPs; everything is sampled{noise}."
    means = "Left to right: mean, root of the mean squared bias, geometric mean."
    analysis.entitle(
        figure,
        findings.bias_left(biased),
        f"{what} {means} {held(rows)}; {bands(rows)}.",
    )
    return figure


def _by_estimator(rows: "pd.DataFrame") -> "Figure":
    """One panel for each of up to four estimators, a line for each permutation."""
    names = sorted(rows["estimator"].unique(), key=lambda name: (name != "lvc", name != "ad", name))[:PANELS]
    permutations = [p for p in ORDER if p in set(rows["permutation"])]
    figure = analysis.panels([estimator(name) for name in names], height=2.6)
    for axes, name in zip(figure.axes, names, strict=True):
        analysis.lines(
            axes, rows[rows["estimator"] == name], "sample_size", "accuracy", by="permutation", over="mdp",
            names=permutations, labels={p: permutation(p) for p in permutations}, direct=name == names[-1],
            x_label=SIZES, y_label=ACCURACY, x_scale="log2", within=COSINES,
        )  # fmt: skip
    every = rows["estimator"].nunique()
    chosen = f" {PANELS} of {every} estimators." if every > PANELS else ""
    told = f"Accuracy of the meta-gradient in random MDPs; what isn’t sampled is exact.{chosen}"
    caption = f"{told} {held(rows)}; {bands(rows)}."
    analysis.entitle(figure, findings.by_permutation(rows), caption)
    return figure


def _by_permutation(rows: "pd.DataFrame", x: str, x_label: str, metric: str) -> "Figure":
    """One panel for each of up to four permutations, a line for each estimator."""
    chosen = [p for p in STORY if p in set(rows["permutation"])][:PANELS]
    names = list(rows["estimator"].unique())
    figure = analysis.panels([permutation(p) for p in chosen], height=2.5)
    for axes, name in zip(figure.axes, chosen, strict=True):
        analysis.lines(
            axes, rows[rows["permutation"] == name], x, metric, by="estimator", over="mdp", names=names,
            labels=short(names), direct=name == chosen[-1], x_label=x_label,
            y_label=ACCURACY if metric == "accuracy" else SPREAD,
            x_scale="log2" if x == "sample_size" else "linear", y_scale="linear" if metric == "accuracy" else "log",
            geometric=metric != "accuracy", within=COSINES if metric == "accuracy" else None,
        )  # fmt: skip
    what = (
        "Accuracy"
        if metric == "accuracy"
        else "Standard deviations of the meta-gradient’s entries, summed; geometric means"
    )
    note = f" {ALIKE}" if {"ad", "loaded_dice", "lvc"} <= set(names) else ""
    analysis.entitle(
        figure, findings.at_most(rows, x, chosen[0], metric),
        f"{what} over random MDPs; what isn’t sampled is exact.{note} {held(rows)}; {bands(rows)}.",
    )  # fmt: skip
    return figure


def summary(settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Mean accuracy at the end of the axes of the figure with most rows; how tight bounds are, if those are all."""
    if settings.figure == ("theory",):
        return theory.summary(frame)
    frame = frame[frame["figure"].isin(set(FIGURES))]
    rows = frame[frame["figure"] == frame["figure"].value_counts().idxmax()]
    axes = {"sample_size": "trajectories", "inner_steps": "K", "inner_lr": "α"}
    point = {axis: rows[axis].max() for axis in axes}
    for axis, value in point.items():
        rows = rows[rows[axis] == value]
    where = ", ".join(f"{name} = {point[axis]:g}" for axis, name in axes.items())
    table = rows.pivot_table(index="estimator", columns="permutation", values="accuracy").reset_index()
    return table[["estimator", *(p for p in ORDER if p in table)]].rename(columns={"estimator": f"accuracy at {where}"})
