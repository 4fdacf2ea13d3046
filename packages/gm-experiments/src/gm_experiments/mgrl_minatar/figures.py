"""results.csv becomes figures."""

from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.dots import dot, named_rows
from gm_experiments.common.findings import intervals
from gm_experiments.mgrl.findings import meta_parameters as moved
from gm_experiments.mgrl.training import NAMES
from gm_experiments.mgrl_minatar import findings
from gm_experiments.mgrl_minatar.findings import LABELS, SYMBOLS, algorithms, played
from gm_experiments.mgrl_minatar.scores import iqm_interval, scores
from gm_experiments.mgrl_minatar.settings import Settings
from gm_lab import analysis
from gm_lab.analysis import Interval, category_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GAMES = 3
"""In one picture."""
LOOKS = {name: category_style(place) for place, name in enumerate(LABELS)}
GAIN = category_style(len(LOOKS))


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws what results.csv has: returns, LVC's gain over the games, and meta-parameters game by game."""
    pictures: dict[str, Figure] = {}
    games = played(frame)
    each = -(-len(games) // -(-len(games) // MOST_GAMES))
    for place in range(0, len(games), each):
        pictures[_named("returns", place // each)] = _returns(frame, games[place : place + each])
    if "interquartile mean" in findings.gains(frame):
        pictures["over_games"] = _over_games(frame)
    learnt = frame[frame["algorithm"] != "a2c"]
    for place, game in enumerate(played(learnt)):
        pictures[_named("meta_parameters", place)] = _meta_parameters(learnt[learnt["game"] == game])
    return pictures


def _named(name: str, place: int) -> str:
    return name if place == 0 else f"{name}_{place + 1}"


def _returns(log: "pd.DataFrame", games: list[str]) -> "Figure":
    here = log[log["game"].isin(games)]
    figure = analysis.panels(games, height=2.6, share_y=False)
    for axes, game in zip(figure.axes, games, strict=True):
        _over_steps(axes, here[(here["game"] == game) & (here["episodes"] > 0)], "episode_return", "return")
        axes.set_ylim(bottom=0)
    caption = f"Mean return of the episodes that ended since the last point. {_bands(here)}"
    analysis.entitle(figure, findings.returns(here), caption)
    return figure


def _meta_parameters(log: "pd.DataFrame") -> "Figure":
    figure = analysis.panels(list(SYMBOLS.values()), rows=2, height=1.8, share_y=False)
    for axes, name in zip(figure.axes, NAMES, strict=True):
        _over_steps(axes, log, name, "")
    where = f"What MGRL learns beside the policy, in {log['game'].iloc[0]}; axes begin where the paths do, not at 0."
    analysis.entitle(figure, moved(log), f"{where} {_bands(log)}")
    return figure


def _over_steps(axes: "Axes", log: "pd.DataFrame", value: str, label: str) -> None:
    analysis.lines(
        axes, log, "env_steps", value, by="algorithm", over="seed", labels=LABELS, looks=LOOKS, direct=True,
        names=algorithms(log), x_label="environment steps", y_label=label, marks=False,
    )  # fmt: skip
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    axes.set_xlim(left=0)
    axes.set_xticks([0, log["env_steps"].max()])


def _bands(log: "pd.DataFrame") -> str:
    return intervals("Bands", log["seed"].nunique(), "runs")


def _over_games(log: "pd.DataFrame") -> "Figure":
    """Left, the interquartile mean of each algorithm; right, what LVC gains in each game and in that mean."""
    gains = findings.gains(log)
    of_all = scores(log)
    means = {name: iqm_interval(of_all[name]) for name in algorithms(log) if of_all[name].size}
    rows = max(len(means), len(gains))
    titles = ["interquartile mean of returns", "MGRL + LVC less MGRL"]
    figure = analysis.panels(titles, height=0.28 * rows + 0.7, share_y=False)
    left, right = figure.axes
    _dots(left, means, {name: LOOKS[name] for name in means}, [LABELS[name] for name in means])
    _dots(right, gains, dict.fromkeys(gains, GAIN), list(gains))
    right.axvline(0, color="black", linewidth=0.9, zorder=1)
    runs = log["seed"].nunique()
    bars = intervals("Bars", runs, "runs") + (" Those of games hold together." if runs > 1 else "")
    caption = (
        "Final returns in units of each game. The interquartile mean is that of the middle half of the games and seeds "
        f"that all have played. {bars}"
    )
    analysis.entitle(figure, findings.over_games(log), caption)
    return figure


def _dots(axes: "Axes", values: dict[str, Interval], looks: dict[str, analysis.Style], names: list[str]) -> None:
    ends = np.array([end for value in values.values() for end in (value.low, value.mean, value.high)])
    known = [0.0, *ends[np.isfinite(ends)].tolist()]
    room = 0.1 * max(float(np.ptp(known)), 0.1)
    axes.set_xlim(min(known) - room, max(known) + room)
    for place, (name, value) in enumerate(values.items()):
        dot(axes, place, value, looks[name])
    named_rows(axes, names)
    axes.set_xlabel("return, in units of its game")
