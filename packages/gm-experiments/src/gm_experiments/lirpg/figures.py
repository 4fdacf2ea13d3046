"""The pictures and the closing table that the LIRPG experiment makes of results.csv."""

from typing import TYPE_CHECKING

from gm_experiments.common.labels import ACCURACY, ESTIMATORS, SIZES, SPREAD, STEPS, estimator
from gm_experiments.lirpg.settings import Settings
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Figure 1(c,d), the accuracy, and Figure 7, the variance, as far as results.csv has rows for them."""
    import numpy as np

    # the geometric mean over MDPs, because the variance differs between them by orders of magnitude
    frame = frame.assign(log_spread=np.log10(frame["std_sum"]))
    shown = {"fig1": ("accuracy", ACCURACY), "fig7": ("log_spread", f"log₁₀ {SPREAD}")}
    figures = {name: _by_size(frame[frame["figure"] == name], *shown[name]) for name in sorted(set(frame["figure"]))}
    if "fig1" in figures:
        figures["fig1"].axes[0].set_ylim(top=1.04)
    return figures


def _by_size(rows: "pd.DataFrame", metric: str, label: str) -> "Figure":
    sizes, permutations = (sorted(rows[column].unique()) for column in ("sample_size", "permutation"))
    titles = [f"{size} {SIZES.split()[0]}" for size in sizes]
    figure = analysis.panels(titles, width=2.3, height=2.7, rows=len(permutations))
    for index, axes in enumerate(figure.axes):
        permutation = permutations[index // len(sizes)]
        chosen = rows[(rows["sample_size"] == sizes[index % len(sizes)]) & (rows["permutation"] == permutation)]
        analysis.lines(
            axes, chosen, "inner_steps", metric, by="estimator", over="mdp", labels=ESTIMATORS,
            x_label=STEPS, y_label=f"{label}, {permutation}",
        )  # fmt: skip
        axes.set_xticks(sorted(rows["inner_steps"].unique()))
        for line in axes.get_lines() if metric == "accuracy" else []:
            _each_mdp(axes, chosen, line)
    analysis.shared_legend(figure)
    return figure


def _each_mdp(axes: "Axes", rows: "pd.DataFrame", line: "Line2D") -> None:
    """A thin line for each MDP behind the mean, which a few MDPs can pull down."""
    names = {estimator(name): name for name in rows["estimator"].unique()}
    for _, points in rows[rows["estimator"] == names[str(line.get_label())]].groupby("mdp"):
        x, y = (points.sort_values("inner_steps")[column] for column in ("inner_steps", "accuracy"))
        axes.plot(x, y, color=line.get_color(), linewidth=0.6, alpha=0.5, zorder=2.5)


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Mean accuracy at the largest sample size: estimators × inner steps."""
    size = frame["sample_size"].max()
    rows = frame[frame["sample_size"] == size]
    table = rows.pivot_table(index=["estimator", "permutation"], columns="inner_steps", values="accuracy").reset_index()
    columns = {k: f"K = {k}" for k in table.columns if isinstance(k, int)}
    named: pd.DataFrame = table.rename(columns={"estimator": f"accuracy at {size} trajectories"} | columns)
    return named
