"""What becomes of results.csv: figures and the closing table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.findings import bands
from gm_experiments.lola import findings
from gm_experiments.lola.settings import Settings
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PARTS = {
    "fig2a": "look-ahead and outer gradient",
    "fig2b": "inner gradient of the look-ahead",
    "fig2c": "Hessian of the look-ahead",
    "fig2d": "replay with off-policy DiCE",
}
"""What each part of Figure 2 varies."""
WORDS = {
    "inner=128 outer=128": ("128 for the look-ahead", 0),
    "inner=1024 outer=128": ("1,024 for the look-ahead", 1),
    "inner=exact outer=128": ("exact look-ahead", 2),
    "inner=exact outer=exact": ("everything exact", 3),
    "comp=128 hessian=128": ("128 for each part", 0),
    "comp=1024 hessian=128": ("1,024 for the inner gradient", 1),
    "comp=exact hessian=128": ("exact inner gradient", 2),
    "comp=128 hessian=1024": ("1,024 for the Hessian", 1),
    "comp=128 hessian=exact": ("exact Hessian", 2),
    "comp=on hessian=on": ("no replay", 0),
    "comp=off hessian=off": ("both replayed", 4),
    "comp=off hessian=on": ("inner gradient replayed", 5),
    "comp=on hessian=off": ("Hessian replayed", 6),
}
"""What curves are called in pictures, and the place of their looks: one for each way to get what is varied."""
KINDS = {"plain": 0, "jackknife": 4}
REWARD = "reward per round"
ACCURACY = "accuracy (cosine), exact outer gradient"
DEBIAS = {"cooperation": "share of cooperative actions", "accuracy_outer_exact": "accuracy, outer exact"}
LAST = 50
"""Updates at the end whose mean is an arm's score."""
BIN = 10
MEANS = f"Means of {BIN} updates"


def figures(settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws the pictures that were asked for, and the policies that were learnt."""
    wanted = settings.figure
    parts = [part for part in PARTS if part in set(frame["figure"])]
    drawn = {part: _rewards(frame[frame["figure"] == part], part) for part in parts if part in wanted}
    if "fig8" in wanted and parts:
        drawn["fig8"] = _accuracies(frame, parts)
    if "debias" in wanted and "debias" in set(frame["figure"]):
        drawn["debias"] = _by_budget(frame[frame["figure"] == "debias"])
    return drawn | {"policies": _policies(frame)}


def labels(curves: Sequence[str]) -> dict[str, str]:
    """What curves are called in pictures."""
    return {curve: WORDS[curve][0] if curve in WORDS else curve for curve in curves}


def _looks(curves: Sequence[str]) -> dict[str, analysis.Style]:
    """Looks that a curve has in every picture: by what it has in place of 128 trajectories."""
    known = {curve: WORDS[curve][1] for curve in curves if curve in WORDS}
    known |= {curve: KINDS[curve.split()[0]] for curve in curves if curve.split()[:1] and curve.split()[0] in KINDS}
    return {curve: analysis.category_style(known.get(curve, curve)) for curve in curves}


def _binned(frame: "pd.DataFrame") -> "pd.DataFrame":
    return frame.assign(update=((frame["update"] - 1) // BIN + 0.5) * BIN)


def _rewards(rows: "pd.DataFrame", part: str) -> "Figure":
    """The reward along training, a line for each curve of one part of Figure 2."""
    curves = list(dict.fromkeys(rows["curve"]))
    called = labels(curves)
    figure = analysis.panels([""], height=3.0)
    analysis.lines(
        figure.axes[0], _binned(rows), "update", "score", by="curve", over="seed", names=curves, labels=called,
        looks=_looks(curves), x_label="update", y_label=REWARD, marks=False, direct=True,
    )  # fmt: skip
    caption = (
        f"Reward per round of two LOLA learners; varied: {PARTS[part]}. The other estimates have 128 trajectories. "
        f"{MEANS}; {bands(rows, 'seed', 'seed')}."
    )
    analysis.entitle(figure, findings.rewards(last_updates(rows), called, _last_of(rows)), caption)
    return figure


def _accuracies(frame: "pd.DataFrame", parts: Sequence[str]) -> "Figure":
    """The accuracy along training with an exact outer gradient, a panel for each part of Figure 2."""
    rows = 2 if len(parts) in (2, 4) else 1
    figure = analysis.panels([PARTS[part] for part in parts], rows=rows, height=2.2)
    for axes, part in zip(figure.axes, parts, strict=True):
        chosen = _binned(frame[frame["figure"] == part])
        curves = list(dict.fromkeys(chosen["curve"]))
        analysis.lines(
            axes, chosen, "update", "accuracy_outer_exact", by="curve", over="seed", names=curves,
            labels=labels(curves), looks=_looks(curves), x_label="update", y_label="accuracy (cosine)", marks=False,
            direct=True,
        )  # fmt: skip
    chosen = frame[frame["figure"].isin(parts)]
    caption = (
        "Accuracy of the meta-gradients of two LOLA learners along training, with an exact outer gradient, which would "
        f"hide the others’ noise. {MEANS}; {bands(chosen, 'seed', 'seed')}."
    )
    analysis.entitle(figure, findings.accuracies(chosen, labels(list(chosen["curve"].unique()))), caption)
    return figure


def trajectories(curve: str) -> int:
    """Returns how many an update of a learner draws in a curve of the figure debias, from its name."""
    return sum(int(size) for size in curve.split()[1::2])


def _by_budget(rows: "pd.DataFrame") -> "Figure":
    """Cooperation and accuracy of the curves of the figure debias, a column for each budget, the largest first."""
    rows = rows.assign(budget=rows["curve"].map(trajectories))
    budgets = sorted(rows["budget"].unique(), reverse=True)[:2]
    titles = [f"{budget} trajectories an update" for budget in budgets]
    figure = analysis.panels([*titles, *("" for _ in titles)], rows=2, height=2.2)
    kinds = {curve: curve.split()[0] for curve in dict.fromkeys(rows["curve"])}
    for place, axes in enumerate(figure.axes):
        measure, budget = list(DEBIAS)[place // len(budgets)], budgets[place % len(budgets)]
        chosen = _binned(rows[rows["budget"] == budget])
        curves = list(dict.fromkeys(chosen["curve"]))
        analysis.lines(
            axes, chosen, "update", measure, by="curve", over="seed", names=curves, labels=kinds, looks=_looks(curves),
            x_label="update", y_label=DEBIAS[measure], marks=False, direct=True,
        )  # fmt: skip
    caption = (
        f"Two LOLA learners with and without a jackknife of the composition. {MEANS}; {bands(rows, 'seed', 'seed')}."
    )
    analysis.entitle(figure, findings.cooperation(last_updates(rows)), caption)
    return figure


def _policies(frame: "pd.DataFrame") -> "Figure":
    """Who cooperates after what, at the end: one row for each curve, one column for each state."""
    rows = last_updates(frame).drop_duplicates(["curve", "seed", "update"])
    columns = [name for name in frame.columns if name.startswith("cooperate_1_")]
    states = [name.removeprefix("cooperate_1_") for name in columns]
    curves = list(dict.fromkeys(frame["curve"]))
    means = rows.groupby("curve")[[*columns, *(name.replace("_1_", "_2_") for name in columns)]].mean().loc[curves]
    table = (means[columns].to_numpy() + means.iloc[:, len(columns) :].to_numpy()) / 2
    figure = analysis.panels([""], height=0.7 + 0.27 * len(curves))
    (axes,) = figure.axes
    axes.grid(visible=False)
    axes.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    called = labels(curves)
    axes.set_yticks(range(len(curves)), [called[curve] for curve in curves], parse_math=False)
    axes.set_xticks(range(len(states)), ["at the start" if s == "start" else f"after {s}" for s in states])
    axes.tick_params(length=0)
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            colour = "black" if value > 0.5 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    caption = (
        f"Probability of cooperating in the last {_last_of(rows)} updates, by the own action and the other’s in the "
        f"round before (C cooperate, D defect); means of both players and of {frame['seed'].nunique()} seeds."
    )
    analysis.entitle(figure, findings.in_kind(rows, called), caption)
    return figure


def last_updates(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the rows of the last `LAST` updates."""
    rows: pd.DataFrame = frame[frame["update"] > frame["update"].max() - LAST]
    return rows


def _last_of(frame: "pd.DataFrame") -> int:
    """How many updates are the last ones: all of a short training."""
    return int(last_updates(frame)["update"].nunique())


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
