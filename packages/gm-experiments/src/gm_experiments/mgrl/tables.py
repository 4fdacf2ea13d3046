"""results.csv becomes the closing tables."""

import math
from typing import TYPE_CHECKING

from gm_experiments.mgrl.settings import ENDS, QUALITY, RATES, Settings
from gm_experiments.mgrl.training import NAMES
from gm_mgrl_atari import study

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

FINAL = 0.9
"""Returns from this part of a run on count as its final ones."""
SHOWN = ("same", "spread", "accuracy", "bias_sq")
"""Measures of the meta-gradient that the table has."""
LABELS = {
    "episode_return": "return", "gamma": "γ", "gae_lambda": "λ", "value_coef": "c_v", "entropy_coef": "c_e",
    "steps_per_second": "steps/s",
}  # fmt: skip


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Shows the tables for which the closing one has no columns left, and returns the closing one."""
    from rich.console import Console

    for table in (throughputs(frame), *meta_gradients(frame)):
        Console().print(table)
    return closing(frame)


def closing(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Returns, per game and algorithm, means over seeds: final return and meta-parameters, steps per second."""
    import pandas as pd

    rates = _rates(frame)["steps_per_second"]
    final = final_rows(frame[frame["figure"] == "returns"])
    learnt = final.groupby(["game", "algorithm"])[["episode_return", *NAMES]].mean()
    table = pd.concat([learnt, rates], axis=1)
    table.insert(0, "run", [f"{game} {algorithm}" for game, algorithm in table.index])
    return table.rename(columns=LABELS)


def _rates(frame: "pd.DataFrame") -> "pd.DataFrame":
    return frame[frame["figure"] == "throughput"].groupby(["game", "algorithm"])[list(RATES)].mean()


def throughputs(frame: "pd.DataFrame") -> "Table":
    """Sets the steps per second of runs beside those of the emulator and the learner alone, means over seeds."""
    from rich.table import Column, Table

    title = "Steps per second; per cent of 1/(1/emulator + 1/learner)"
    names = ("run", "whole", "emulator alone", "learner alone", "per cent")
    table = Table(*(Column(name, overflow="fold") for name in names), title=title, title_justify="left")
    for game, algorithm, whole, emulator, learner in _rates(frame).reset_index().itertuples(index=False):
        part = 100 * whole * (1 / emulator + 1 / learner)
        table.add_row(f"{game} {algorithm}", *(f"{value:.4g}" for value in (whole, emulator, learner)), f"{part:.0f}")
    return table


def meta_gradients(frame: "pd.DataFrame") -> "list[Table]":
    """Shows the meta-gradient's variants per game and point of a run; numbers and ends are means over seeds."""
    measured = frame[frame["figure"] == "gradient"]
    return [
        _meta_gradient(f"{game}, meta-gradients after {updates:g} updates", rows)
        for (game, updates), rows in measured.groupby(["game", "updates"], sort=False)
    ]


def _meta_gradient(title: str, rows: "pd.DataFrame") -> "Table":
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        *(Column(name, overflow="fold") for name in ("variant", "to lvc's", "spread", "cosine", "bias")),
        title=f"{title}: {rows['windows'].max():g} windows, 95% intervals",
        caption="to lvc's: cosine with that of the same window; spread: standard deviation beside lvc's; cosine to the "
        f"mean of the reference, {study.REFERENCE}; bias in lengths of that mean, 0 where the unbiased estimate of its "
        "square is below",
        title_justify="left",
        caption_justify="left",
    )
    known = [name for name in QUALITY if name in rows]  # runs of older versions lack some
    means = rows.groupby("variant")[known].mean().to_dict("index")
    length = sum(means[study.REFERENCE][f"gradient_{name}"] ** 2 for name in NAMES)
    for variant in variants_of(rows):
        intervals = [[means[variant].get(f"{measure}{end}", math.nan) for end in ENDS] for measure in SHOWN]
        intervals[-1] = [_root(square / length) for square in intervals[-1]]
        table.add_row(variant, *(Text(_written(*interval)) for interval in intervals))
    return table


def _written(value: float, low: float, high: float) -> str:
    """A number and its interval beneath it, a dash if it isn't known; what is near 1 has a third digit."""
    if math.isnan(value):
        return "–"
    digits = 3 if 0.9 < value < 1.1 else 2
    return f"{value:.{digits}g}\n[{low:.{digits}g}, {high:.{digits}g}]"


def _root(square: float) -> float:
    return square if math.isnan(square) else math.sqrt(max(square, 0.0))


def games_of(rows: "pd.DataFrame") -> list[str]:
    """Returns the games of some rows."""
    return list(rows["game"].unique())


def variants_of(rows: "pd.DataFrame") -> list[str]:
    """Returns the variants in some rows, in the order of the study, the reference first."""
    return [variant.name for variant in study.VARIANTS if (rows["variant"] == variant.name).any()]


def final_rows(log: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the last tenth of every run."""
    ends = log.groupby(["game", "algorithm", "seed"])["env_steps"].transform("max")
    return log[log["env_steps"] >= FINAL * ends]
