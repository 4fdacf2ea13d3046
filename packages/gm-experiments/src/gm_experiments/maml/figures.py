"""The pictures and the closing table that the MAML experiment makes of results.csv."""

from typing import TYPE_CHECKING

from gm_experiments.common.labels import ACCURACY, ESTIMATORS, ORDER, RATE, SIZES, SPREAD, STEPS, estimator
from gm_experiments.maml.settings import FIGURES, Settings
from gm_experiments.theory import figures as theory
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """One picture for each of the paper's figures that results.csv has rows for, and those of theory."""
    varied = {"fig4": ("sample_size", SIZES), "fig5": ("inner_lr", RATE), "fig6": ("inner_steps", STEPS)}
    drawn = {}
    for name in sorted(set(frame["figure"]) & set(FIGURES)):
        rows = frame[frame["figure"] == name]
        many = name in varied
        drawn[name] = _estimators_by_permutation(rows, *varied[name]) if many else _permutations_by_estimator(rows)
    return drawn | theory.figures(frame)


def _permutations_by_estimator(rows: "pd.DataFrame") -> "Figure":
    names = sorted(rows["estimator"].unique(), key=lambda name: (name == "ad", name != "lvc", name))
    titles = [f"({chr(97 + i)}) {estimator(name)}" for i, name in enumerate(names)]
    figure = analysis.panels(titles, width=3.8, height=3.4)
    for axes, name in zip(figure.axes, names, strict=True):
        analysis.lines(
            axes, rows[rows["estimator"] == name], "sample_size", "accuracy", by="permutation", over="mdp",
            names=[p for p in ORDER if p in set(rows["permutation"])],
            x_label=SIZES, y_label=ACCURACY, x_scale="log2",
        )  # fmt: skip
    analysis.shared_legend(figure, "inner gradient, Hessian, outer gradient: S sampled, E exact")
    return figure


def _estimators_by_permutation(rows: "pd.DataFrame", x: str, x_label: str) -> "Figure":
    permutations = [p for p in ORDER if p in set(rows["permutation"])]
    figure = analysis.panels(permutations, width=2.4, height=2.6, rows=2)
    for index, axes in enumerate(figure.axes):
        metric = ("accuracy", "std_sum")[index // len(permutations)]
        chosen = rows[rows["permutation"] == permutations[index % len(permutations)]]
        analysis.lines(
            axes, chosen, x, metric, by="estimator", over="mdp", labels=ESTIMATORS,
            x_label=x_label, y_label=ACCURACY if metric == "accuracy" else SPREAD,
            x_scale="log2" if x == "sample_size" else "linear", y_scale="linear" if metric == "accuracy" else "log",
        )  # fmt: skip
    analysis.shared_legend(figure, "with an exact Hessian, AD, Loaded-DiCE and LVC are the same estimator")
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
