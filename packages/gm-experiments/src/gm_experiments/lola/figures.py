"""What becomes of results.csv: figures and the closing table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.lola.settings import Settings
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PARTS = {
    "fig2a": "(a) inner and outer estimate",
    "fig2b": "(b) compositional bias",
    "fig2c": "(c) Hessian variance",
    "fig2d": "(d) replay with off-policy DiCE",
}
ROWS = {
    "score": "reward per round",
    "accuracy": "accuracy (cosine)",
    "accuracy_outer_exact": "accuracy, exact outer gradient",
    "bias": "bias along the truth",
}
DEBIAS = {
    "cooperation": "share of cooperative actions",
    "accuracy": "accuracy (cosine)",
    "accuracy_outer_exact": "accuracy, exact outer gradient",
}
LAST = 50
"""Updates at the end whose mean is an arm's score."""
BIN = 10


def figures(settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws the pictures that were asked for, and the policies that were learnt."""
    wanted = settings.figure
    parts = [part for part in PARTS if part in set(frame["figure"])]
    drawn = {part: _page(frame, [part], {"score": ROWS["score"]}, 4.2) for part in parts if part in wanted}
    if "fig8" in wanted:
        drawn["fig8"] = _page(frame, parts, ROWS, 3.4)
    if "debias" in wanted:
        drawn["debias"] = _page(*_by_budget(frame), DEBIAS, 4.2)
    return drawn | {"policies": _policies(frame)}


def _page(frame: "pd.DataFrame", parts: Sequence[str], rows: dict[str, str], width: float) -> "Figure":
    """A column for each part, a row for each measurement, a point for every ten updates."""
    figure = analysis.panels([PARTS.get(part, part) for part in parts], width=width, height=2.6, rows=len(rows))
    binned = frame.assign(update=((frame["update"] - 1) // BIN + 0.5) * BIN)
    for index, axes in enumerate(figure.axes):
        measure, part = list(rows)[index // len(parts)], parts[index % len(parts)]
        analysis.lines(
            axes, binned[binned["figure"] == part], "update", measure, by="curve", over="seed",
            x_label="update", y_label=rows[measure], marks=False,
        )  # fmt: skip
        if measure == "bias":  # single updates with a short truth would hide all others
            axes.set_ylim(-2, 2)
        if index // len(parts) == 0:
            axes.legend(fontsize=7, loc="best", handlelength=2.5)
    return figure


def trajectories(curve: str) -> int:
    """Returns how many an update of a learner draws in a curve of the figure debias, from its name."""
    return sum(int(size) for size in curve.split()[1::2])


def _by_budget(frame: "pd.DataFrame") -> "tuple[pd.DataFrame, list[str]]":
    """The curves of the figure debias with their budget for a figure, the largest first."""
    rows = frame[frame["figure"] == "debias"]
    budget = rows["curve"].map(trajectories)
    titles = {size: f"{size} trajectories an update" for size in sorted(budget.unique(), reverse=True)}
    return rows.assign(figure=budget.map(titles)), list(titles.values())


def _policies(frame: "pd.DataFrame") -> "Figure":
    """Who cooperates after what, at the end: one row for each curve, one column for each state."""
    rows = last_updates(frame).drop_duplicates(["curve", "seed", "update"])
    columns = [name for name in frame.columns if name.startswith("cooperate_1_")]
    states = [name.removeprefix("cooperate_1_") for name in columns]
    curves = list(dict.fromkeys(frame["curve"]))
    means = rows.groupby("curve")[[*columns, *(name.replace("_1_", "_2_") for name in columns)]].mean().loc[curves]
    table = (means[columns].to_numpy() + means.iloc[:, len(columns) :].to_numpy()) / 2
    figure = analysis.panels(["who cooperates after what: both players, last updates"], 7.2, 0.8 + 0.3 * len(curves))
    (axes,) = figure.axes
    axes.grid(visible=False)
    image = axes.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(curves)), curves, fontsize=8)
    labels = ["start" if state == "start" else f"after {state}" for state in states]
    axes.set_xticks(range(len(states)), labels)
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            colour = "black" if value > 0.5 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label="probability of cooperating")
    axes.set_xlabel("own action, other's action in the round before (C cooperate, D defect)", fontsize=8)
    return figure


def last_updates(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the rows of the last `LAST` updates."""
    rows: pd.DataFrame = frame[frame["update"] > frame["update"].max() - LAST]
    return rows


def undefined(frame: "pd.DataFrame") -> str:
    """Says how many rows lack an accuracy, and why; empty if none does."""
    count = int(frame["accuracy"].isna().sum())
    reason = "the estimate or the exact meta-gradient of a player is zero"
    return f"accuracy is undefined (nan) in {count:,} of {len(frame):,} rows, where {reason}" if count else ""


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Returns each curve's score at the end and how good its gradients were; says before what could not be measured."""
    if missing := undefined(frame):
        print(missing)
    return closing_table(frame)


def closing_table(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Returns each curve's score at the end with its spread, and how good its gradients were."""
    import pandas as pd

    once = frame.drop_duplicates(["curve", "seed", "update"]).groupby("curve", sort=False)
    replays = bool(frame["effective_size"].notna().any())
    table = pd.DataFrame([_line(str(curve), rows, replays) for curve, rows in once])
    if (frame["figure"] == "debias").all():
        return _against_plain(last_updates(frame)).merge(table[["curve", "cosine", "outer exact"]], on="curve")
    return table


def _line(curve: str, rows: "pd.DataFrame", replays: bool) -> dict[str, object]:
    score = analysis.per_unit(last_updates(rows), "score", "seed")
    early = rows[rows["update"] <= 100]
    line: dict[str, object] = {"curve": curve, "score": score.mean(), "worst": score.min(), "best": score.max()}
    for column, name in (("accuracy", "cosine"), ("accuracy_outer_exact", "outer exact")):
        line[name] = early[column].mean()
    if replays:
        size = rows["effective_size"].mean()
        line["ESS"] = "" if np.isnan(size) else f"{size:.0f}"
    else:  # beside the effective sizes there is no room for it in 80 columns
        line["Pearson"] = early["correlation"].mean()
    return line


def _against_plain(end: "pd.DataFrame") -> "pd.DataFrame":
    """How often the players cooperate at the end, and how much more often than with the plain curve of one budget."""
    import pandas as pd

    rates = {curve: analysis.per_unit(end, "cooperation", "seed", curve=curve) for curve in end["curve"].unique()}
    plain = {trajectories(curve): curve for curve in rates if curve.startswith("plain")}
    lines = []
    for curve, rate in rates.items():
        other = plain.get(trajectories(curve), curve)
        gain = "" if other == curve or len(rate) < 2 else str(analysis.paired_difference(rate, rates[other]))
        lines.append({"curve": curve, "cooperation": str(analysis.mean_interval(rate)), "more than plain": gain})
    return pd.DataFrame(lines)
