"""The pictures and the closing table that the LIRPG experiment makes of results.csv."""

from typing import TYPE_CHECKING

from gm_experiments.common.labels import ACCURACY, ESTIMATORS, SIZES, SPREAD, STEPS, estimator
from gm_experiments.lirpg.settings import LOW, Settings
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


TENTHS = 10
"""Groups of as many MDPs each that the table of entropy has."""


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Figure 1(c,d), the accuracy, Figure 7, the variance, and entropy, as far as results.csv has rows for them."""
    import numpy as np

    # the geometric mean over MDPs, because the variance differs between them by orders of magnitude
    frame = frame.assign(log_spread=np.log10(frame["std_sum"]))
    shown = {"fig1": ("accuracy", ACCURACY), "fig7": ("log_spread", f"log₁₀ {SPREAD}")}
    there = [name for name in shown if name in set(frame["figure"])]
    figures = {name: _by_size(frame[frame["figure"] == name], *shown[name]) for name in there}
    if "fig1" in figures:
        figures["fig1"].axes[0].set_ylim(top=1.04)
    return figures | _entropy(deepest(frame))


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


def deepest(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of figure entropy at the largest K, with the largest samples of the derivatives alone."""
    rows = frame[(frame["figure"] == "entropy") & (frame["permutation"] == "ESE")]
    for axis in ("inner_steps", "sample_size"):
        rows = rows[rows[axis] == rows[axis].max()]
    return rows


def _entropy(rows: "pd.DataFrame") -> "dict[str, Figure]":
    """What accuracy lacks to 1, MDP by MDP, over the entropy of the path: one panel for each estimator."""
    names = list(rows["estimator"].unique())
    if not names:
        return {}
    figure = analysis.panels([_finding(rows[rows["estimator"] == name]) for name in names], width=4.4, height=3.6)
    for axes, name in zip(figure.axes, names, strict=True):
        _scatter(axes, rows[rows["estimator"] == name])
    figure.axes[0].set_ylabel(f"1 − {ACCURACY}, K = {int(rows['inner_steps'].iloc[0])}")
    analysis.shared_legend(
        figure, f"one point for each MDP, n trajectories; above the dotted line accuracy is below {LOW}"
    )
    return {"entropy": figure}


def _finding(rows: "pd.DataFrame") -> str:
    """Whose panel it is, and how often its accuracy is low."""
    known = rows["expected_accuracy"].dropna()
    name = estimator(str(rows["estimator"].iloc[0]))
    return f"{name}, n → ∞: below {LOW} in {int((known < LOW).sum())} of {len(known)} MDPs" if len(known) else name


def _scatter(axes: "Axes", rows: "pd.DataFrame") -> None:
    look = analysis.style_of(str(rows["estimator"].iloc[0]))
    size = int(rows["sample_size"].iloc[0])
    axes.scatter(
        rows["entropy"], 1 - rows["accuracy"], 14, facecolors="none", edgecolors="0.6", linewidths=0.7, marker="o",
        label=f"measured, n = {size}", zorder=2,
    )  # fmt: skip
    axes.scatter(
        rows["entropy"], 1 - rows["expected_accuracy"], 16, color=look.colour, marker=look.marker, linewidths=0,
        label=f"{estimator(str(rows['estimator'].iloc[0]))}, n → ∞", zorder=3,
    )  # fmt: skip
    axes.axhline(1 - LOW, color="0.3", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("mean entropy of π along θ⁰ … θᴷ⁻¹ (1: uniform)")


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Mean accuracy at the largest sample size: estimators × inner steps; that of entropy, if it is all there is."""
    paper = frame[frame["figure"] != "entropy"]
    return _by_steps(paper) if len(paper) else by_entropy(deepest(frame))


def by_entropy(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The accuracy by tenths of the MDPs in the order of their entropy, the most deterministic paths first."""
    import pandas as pd

    table = pd.DataFrame()
    # a claim that is open may have asked for more MDPs of one estimator alone
    shared = rows.groupby("mdp")["estimator"].transform("nunique") == rows["estimator"].nunique()
    for name, chosen in rows[shared].groupby("estimator"):
        place = (chosen["entropy"].rank(method="first") - 1) * TENTHS // len(chosen) + 1
        groups, label = chosen.groupby(place.astype(int)), estimator(str(name))
        table["entropy"] = groups["entropy"].mean()
        table[f"{label}: median"] = groups["expected_accuracy"].median()
        table[f"{label}: least"] = groups["expected_accuracy"].min()
        table[f"{label}: at {int(chosen['sample_size'].iloc[0])}"] = groups["accuracy"].mean()
    return table.rename_axis("tenth").reset_index()


def _by_steps(frame: "pd.DataFrame") -> "pd.DataFrame":
    size = frame["sample_size"].max()
    rows = frame[frame["sample_size"] == size]
    table = rows.pivot_table(index=["estimator", "permutation"], columns="inner_steps", values="accuracy").reset_index()
    columns = {k: f"K = {k}" for k in table.columns if isinstance(k, int)}
    named: pd.DataFrame = table.rename(columns={"estimator": f"accuracy at {size} trajectories"} | columns)
    return named
