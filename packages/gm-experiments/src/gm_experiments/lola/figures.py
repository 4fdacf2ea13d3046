"""What apps/lola_offpolicy.py makes of results.csv: figures, verdicts on LOLA-1 to LOLA-6, and the closing table."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

import gm_lab
from gm_lab import above, at_least, at_most, decided

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
BIN = 10


def figures(frame: "pd.DataFrame", wanted: Sequence[str]) -> "dict[str, Figure]":
    """The pictures that were asked for, and the policies that were learnt."""
    parts = [part for part in PARTS if part in set(frame["figure"])]
    drawn = {part: _page(frame, [part], {"score": ROWS["score"]}, 4.2) for part in parts if part in wanted}
    if "fig8" in wanted:
        drawn["fig8"] = _page(frame, parts, ROWS, 3.4)
    if "debias" in wanted:
        drawn["debias"] = _page(*_by_budget(frame), DEBIAS, 4.2)
    return drawn | {"policies": _policies(frame)}


def _page(frame: "pd.DataFrame", parts: Sequence[str], rows: dict[str, str], width: float) -> "Figure":
    """A column for each part, a row for each measurement, a point for every ten updates."""
    figure = gm_lab.panels([PARTS.get(part, part) for part in parts], width=width, height=2.6, rows=len(rows))
    binned = frame.assign(update=((frame["update"] - 1) // BIN + 0.5) * BIN)
    for index, axes in enumerate(figure.axes):
        measure, part = list(rows)[index // len(parts)], parts[index % len(parts)]
        gm_lab.lines(
            axes,
            binned[binned["figure"] == part],
            "update",
            measure,
            by="curve",
            over="seed",
            x_label="update",
            y_label=rows[measure],
            marks=False,
        )
        if measure == "bias":  # single updates with a short truth would hide all others
            axes.set_ylim(-2, 2)
        if index // len(parts) == 0:
            axes.legend(fontsize=7, loc="best", handlelength=2.5)
    return figure


def trajectories(curve: str) -> int:
    """How many an update of a learner draws in a curve of the figure debias, from its name."""
    return sum(int(size) for size in curve.split()[1::2])


def _by_budget(frame: "pd.DataFrame") -> "tuple[pd.DataFrame, list[str]]":
    """The curves of the figure debias with their budget for a figure, the largest first."""
    rows = frame[frame["figure"] == "debias"]
    budget = rows["curve"].map(trajectories)
    titles = {size: f"{size} trajectories an update" for size in sorted(budget.unique(), reverse=True)}
    return rows.assign(figure=budget.map(titles)), list(titles.values())


def _policies(frame: "pd.DataFrame") -> "Figure":
    """Who cooperates after what, at the end: one row for each curve, one column for each state."""
    rows = _last(frame).drop_duplicates(["curve", "seed", "update"])
    columns = [name for name in frame.columns if name.startswith("cooperate_1_")]
    states = [name.removeprefix("cooperate_1_") for name in columns]
    curves = list(dict.fromkeys(frame["curve"]))
    means = rows.groupby("curve")[[*columns, *(name.replace("_1_", "_2_") for name in columns)]].mean().loc[curves]
    table = (means[columns].to_numpy() + means.iloc[:, len(columns) :].to_numpy()) / 2
    figure = gm_lab.panels(["who cooperates after what: both players, last updates"], 7.2, 0.8 + 0.3 * len(curves))
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


def _last(frame: "pd.DataFrame") -> "pd.DataFrame":
    rows: pd.DataFrame = frame[frame["update"] > frame["update"].max() - LAST]
    return rows


def undefined(frame: "pd.DataFrame") -> str:
    """How many rows lack an accuracy, and why; empty if none does."""
    count = int(frame["accuracy"].isna().sum())
    reason = "the estimate or the exact meta-gradient of a player is zero"
    return f"accuracy is undefined (nan) in {count:,} of {len(frame):,} rows, where {reason}" if count else ""


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Each curve's score at the end, with its interval and its spread, and how good its gradients were."""
    import pandas as pd

    lines = []
    replays = frame["effective_size"].notna().any()
    for curve, rows in frame.drop_duplicates(["curve", "seed", "update"]).groupby("curve", sort=False):
        score = gm_lab.per_unit(_last(rows), "score", "seed")
        line = {"curve": curve, "score": score.mean(), "worst": score.min(), "best": score.max()}
        early = rows[rows["update"] <= 100]
        for column, name in (("accuracy", "cosine"), ("accuracy_outer_exact", "outer exact")):
            line[name] = early[column].mean()
        if replays:
            size = rows["effective_size"].mean()
            line["ESS"] = "" if np.isnan(size) else f"{size:.0f}"
        else:  # beside the effective sizes there is no room for it in 80 columns
            line["Pearson"] = early["correlation"].mean()
        lines.append(line)
    if (frame["figure"] == "debias").all():
        accuracies = pd.DataFrame(lines)[["curve", "cosine", "outer exact"]]
        return _against_plain(_last(frame)).merge(accuracies, on="curve")
    return pd.DataFrame(lines)


def _against_plain(end: "pd.DataFrame") -> "pd.DataFrame":
    """How often the players cooperate at the end, and how much more often than with the plain curve of one budget."""
    import pandas as pd

    rates = {curve: gm_lab.per_unit(end, "cooperation", "seed", curve=curve) for curve in end["curve"].unique()}
    plain = {trajectories(curve): curve for curve in rates if curve.startswith("plain")}
    lines = []
    for curve, rate in rates.items():
        other = plain.get(trajectories(curve), curve)
        gain = "" if other == curve or len(rate) < 2 else str(gm_lab.paired_difference(rate, rates[other]))
        lines.append({"curve": curve, "cooperation": str(gm_lab.mean_interval(rate)), "more than plain": gain})
    return pd.DataFrame(lines)


def claims(frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """The verdicts on LOLA-1 to LOLA-6, as docs/claims.toml says they are decided; none before the last updates are in.

    They are about the prisoner's dilemma with the paper's payoffs.
    """
    if frame["update"].max() < LAST:
        return [
            replace(verdict, measured=f"{frame['update'].max()} updates, expected at least {LAST}")
            for verdict in _verdicts(frame.iloc[:0])
        ]
    return _verdicts(frame)


def _verdicts(frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    end = _last(frame)

    def score(curve: str) -> "pd.Series[float]":
        return gm_lab.per_unit(end, "score", "seed", curve=curve)

    def accuracy(curve: str) -> "pd.Series[float]":
        return gm_lab.per_unit(frame, "accuracy_outer_exact", "seed", curve=curve)

    def better(high: str, low: str) -> gm_lab.Comparison:
        return above(f"{high} > {low}", score(high), score(low))

    def gain(high: str, low: str) -> "pd.Series[float]":
        return score(high) - score(low)

    base = "comp=128 hessian=128"
    on = "comp=on hessian=on"
    few, many, exact = (f"inner={size} outer=128" for size in ("128", "1024", "exact"))
    return [
        decided(
            "LOLA-1",
            "inner 128 / outer 128 fails to cooperate, inner 1024 / outer 128 does far better",
            [at_most(f"{few}: score < −1.5", score(few), -1.5), better(many, few)],
        ),
        decided("LOLA-2", "the outer estimate matters too", [better("inner=exact outer=exact", exact)]),
        decided(
            "LOLA-3",
            "composition with 1024 samples or exact beats 128, Hessian at 128",
            [better(f"comp={size} hessian=128", base) for size in ("1024", "exact")],
        ),
        decided(
            "LOLA-4",
            "Hessian with 1024 samples or exact beats 128, and by more than the composition gains",
            [
                *(better(f"comp=128 hessian={size}", base) for size in ("1024", "exact")),
                *(better(f"comp=128 hessian={size}", f"comp={size} hessian=128") for size in ("1024", "exact")),
            ],
        ),
        decided(
            "LOLA-5",
            "each of off/off, off/on, on/off beats on/on",
            [
                better(f"comp={comp} hessian={hessian}", on)
                for comp, hessian in (("off", "off"), ("off", "on"), ("on", "off"))
            ],
        ),
        decided(
            "LOLA-6",
            "an exact inner gradient raises accuracy a lot, yet the return only a little",
            [
                at_least("accuracy with exact outer: exact − 1024 > .2", accuracy(exact) - accuracy(many), 0.2),
                above(
                    "score: 1024 − 128 > exact − 1024",
                    gain(many, few),
                    gain(exact, many),
                ),
            ],
        ),
    ]
