"""The pictures and the closing table that the LIRPG experiment makes of results.csv."""

from typing import TYPE_CHECKING, Any

from gm_experiments.common.findings import bands, held
from gm_experiments.common.labels import ACCURACY, COSINES, SIZES, SPREAD, STEPS, estimator, permutation, short
from gm_experiments.lirpg import findings
from gm_experiments.lirpg.settings import FIGURES, LOW, Settings
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TENTHS = 10
"""Groups of as many MDPs each that the table of entropy has."""
PANELS = 3


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Figure 1(c,d), the accuracy, Figure 7, the variance, and entropy, as far as results.csv has rows for them.

    Where several permutations were measured, each has a picture of its own; that of the paper keeps the figure's name.
    """
    drawn = {}
    for name, metric in {"fig1": "accuracy", "fig7": "std_sum"}.items():
        rows = frame[frame["figure"] == name]
        measured = sorted(rows["permutation"].unique(), key=lambda each: each != FIGURES[name].permutations[0])
        for place, sampled in enumerate(measured):
            of_one = rows[rows["permutation"] == sampled]
            drawn[f"{name}_{sampled.lower()}" if place else name] = _by_size(of_one, metric)
    return drawn | _entropy(deepest(frame))


def _by_size(rows: "pd.DataFrame", metric: str) -> "Figure":
    """One panel for each of up to three sample sizes, the smallest and the largest among them."""
    sizes = _spaced(sorted(rows["sample_size"].unique()))
    names, accurate = list(rows["estimator"].unique()), metric == "accuracy"
    figure = analysis.panels([f"{size} {SIZES}" for size in sizes], height=2.6)
    for axes, size in zip(figure.axes, sizes, strict=True):
        chosen = rows[rows["sample_size"] == size]
        analysis.lines(
            axes, chosen, "inner_steps", metric, by="estimator", over="mdp", names=names, labels=short(names),
            direct=size == sizes[-1], x_label=STEPS, y_label=ACCURACY if accurate else SPREAD,
            y_scale="linear" if accurate else "log", geometric=not accurate,
            within=COSINES if accurate else None,
        )  # fmt: skip
        axes.set_xticks(sorted(rows["inner_steps"].unique()))
        if accurate:
            _each_mdp(axes, chosen, names)
    if accurate:
        figure.axes[0].set_ylim(top=1.04)
    sampled = permutation(str(rows["permutation"].iloc[0]))
    what = "Accuracy" if accurate else "Standard deviations of the meta-gradient’s entries, summed; geometric means"
    thin = "; thin lines are single MDPs" if accurate else ""
    caption = f"{what} over random MDPs, {sampled}. {held(rows)}; {bands(rows)}{thin}."
    analysis.entitle(figure, findings.at_most(rows, metric), caption)
    return figure


def _spaced(values: list[Any]) -> list[Any]:
    """So many of the values as there are panels for, the ends among them."""
    count = min(PANELS, len(values))
    return [values[round(place * (len(values) - 1) / max(1, count - 1))] for place in range(count)]


def _each_mdp(axes: "Axes", rows: "pd.DataFrame", names: list[str]) -> None:
    """A thin line for each MDP behind the mean, which a few MDPs can pull down."""
    looks = analysis.styles(names)
    for (name, _), points in rows.groupby(["estimator", "mdp"]):
        x, y = (points.sort_values("inner_steps")[column] for column in ("inner_steps", "accuracy"))
        axes.plot(x, y, color=looks[str(name)].colour, linewidth=0.6, alpha=0.5, zorder=2.5)


def deepest(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of figure entropy at the largest K, with the largest samples of the derivatives alone."""
    rows = frame[(frame["figure"] == "entropy") & (frame["permutation"] == "ESE")]
    for axis in ("inner_steps", "sample_size"):
        rows = rows[rows[axis] == rows[axis].max()]
    return rows


def _entropy(rows: "pd.DataFrame") -> "dict[str, Figure]":
    """What accuracy lacks to 1, MDP by MDP, over the entropy of the path: a panel for each estimator, up to three."""
    names = list(rows["estimator"].unique())[:PANELS]
    if not names:
        return {}
    figure = analysis.panels([estimator(name) for name in names], height=3.0)
    for axes, name in zip(figure.axes, names, strict=True):
        _scatter(axes, rows[rows["estimator"] == name])
    figure.axes[0].set_ylabel(f"1 − {ACCURACY}")
    place = held(rows.drop(columns="sample_size"))
    drawn = (
        f"A point is an MDP: a grey circle as measured with {rows['sample_size'].iloc[0]} trajectories, in colour what "
        f"infinitely many would give. Only the Hessian is sampled; above the dotted line accuracy is below {LOW}. "
        f"{place}."
    )
    analysis.entitle(figure, findings.how_often_low(rows[rows["estimator"].isin(names)]), drawn)
    return {"entropy": figure}


def _scatter(axes: "Axes", rows: "pd.DataFrame") -> None:
    look = analysis.style_of(str(rows["estimator"].iloc[0]))
    axes.scatter(
        rows["entropy"], 1 - rows["accuracy"], 14, facecolors="none", edgecolors="#767676", linewidths=0.7, marker="o",
        zorder=2,
    )  # fmt: skip
    axes.scatter(
        rows["entropy"],
        1 - rows["expected_accuracy"],
        16,
        color=look.colour,
        marker=look.marker,
        linewidths=0,
        zorder=3,
    )
    axes.axhline(1 - LOW, color="0.3", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    analysis.logarithmic(axes.yaxis)
    axes.set_xlabel("mean entropy of the policies (1: uniform)")


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
