"""What MGRL's pictures find, in words that are true for the results they are computed from."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.dots import moment
from gm_experiments.common.findings import capital, joined, two_digits
from gm_experiments.common.labels import estimator
from gm_experiments.mgrl.settings import PARTS, SECONDS, TOO_FEW
from gm_experiments.mgrl.tables import final_rows, variants_of
from gm_experiments.mgrl.training import NAMES
from gm_lab.analysis import paired_difference

if TYPE_CHECKING:
    import pandas as pd

LABELS = {"a2c": "A2C", "mgrl": "MGRL", "mgrl-lvc": "MGRL + LVC"}
SYMBOLS = dict(zip(NAMES, ("discount γ", "GAE λ", "value coefficient", "entropy coefficient"), strict=True))
FEW = 10
"""Games that are named; more are counted."""
BASE = "lvc"
"""What the study compares the other variants with, window by window."""
ALIKE = 0.9
"""Two meta-gradients point the same way if their cosine is above it."""


def length(log: "pd.DataFrame") -> str:
    """How long the longest run is."""
    most = log["env_steps"].max()
    return f"{most / 1e6:,.3g} million environment steps" if most >= 1e6 else f"{most:,.0f} environment steps"


def returns(log: "pd.DataFrame") -> str:
    """Which algorithm is told apart from the one before it by its final returns, over independent runs."""
    final = final_rows(log).groupby(["game", "algorithm", "seed"])["episode_return"].mean()
    order = [name for name in LABELS if name in set(log["algorithm"])]
    runs = log["seed"].nunique()
    short = f"{length(log)} are too few to learn to play"
    if runs < 2 and log["env_steps"].max() <= TOO_FEW:
        return short
    if runs < 2:
        one = "One run each" if len(order) > 1 else "One run"
        return f"{one} of {length(log)} cannot tell algorithms apart"
    told: dict[str, list[str]] = {}
    for game, of_game in final.groupby(level="game"):
        table = of_game.droplevel("game").unstack("algorithm")
        for low, high in pairwise(order):
            if {low, high} <= set(table) and (words := _apart(table[[low, high]].dropna(), low, high)):
                told.setdefault(words, []).append(str(game))
    if not told and log["env_steps"].max() <= TOO_FEW:
        return short
    if not told:
        return f"{runs} runs of {length(log)} tell no two algorithms apart"
    return "; ".join(f"{words} in {_games(games)}" for words, games in told.items())


def _apart(table: "pd.DataFrame", low: str, high: str) -> str:
    if table.empty:
        return ""
    gain = paired_difference(table[high], table[low])
    side = "above" if gain.low > 0 else "below" if gain.high < 0 else ""
    return f"{LABELS[high]} ends {side} {LABELS[low]}" if side else ""


def _games(games: list[str]) -> str:
    return joined(games) if len(games) <= FEW else f"{len(games)} games"


def meta_parameters(log: "pd.DataFrame") -> str:
    """Which meta-parameter moves most, relative to where it began."""
    runs = log.sort_values("env_steps").groupby(["game", "algorithm", "seed"])[list(NAMES)]
    moved = 100 * ((runs.last() - runs.first()) / runs.first()).abs().max()
    most = str(moved.idxmax())
    if moved[most] == 0:
        return f"In {length(log)} no meta-parameter moves"
    if moved[most] < 1:
        return f"In {length(log)} no meta-parameter moves by more than {two_digits(moved[most])}%"
    return f"In {length(log)} the {SYMBOLS[most]} moves most, by up to {two_digits(moved[most])}%"


def gradient(rows: "pd.DataFrame") -> str:
    """Which variants agree with LVC's on the same window; where that isn't known or clear, what `direction` says."""
    same, other = _beside_lvc(rows, 1), _beside_lvc(rows, -1)
    changed = list(dict.fromkeys(changed_in(variant) for variant in other))
    if same:
        agreed = f"On one window {_named([BASE, *same])} give meta-gradients of one direction"
        return agreed + (f", which changes with {joined(changed)}" if changed else "")
    if changed:
        return f"On one window the direction of the meta-gradient changes with {joined(changed)}"
    return direction(rows)


def _beside_lvc(rows: "pd.DataFrame", side: int) -> list[str]:
    """The variants whose cosine with LVC's on the same window is above `ALIKE` or below it, at every point."""
    column = "same_low" if side > 0 else "same_high"
    if column not in rows:
        return []
    end = rows.groupby("variant")[column].agg("min" if side > 0 else "max")
    return [name for name in variants_of(rows) if name != BASE and side * (end[name] - ALIKE) > 0]


def spread(rows: "pd.DataFrame") -> str:
    """How many times LVC's the deviation of one window's is by other estimators, where the interval leaves out one."""
    if "spread" not in rows:
        return ""
    columns, told = ["spread", "spread_low", "spread_high"], []
    for variant in [name for name in variants_of(rows) if name != BASE and "," not in name]:
        of_points = rows[rows["variant"] == variant].groupby("updates")[columns].mean().reset_index()
        for at, value, low, high in of_points.itertuples(index=False):
            if low > 1 or high < 1:
                told.append(f"{value:.3g} [{low:.3g}, {high:.3g}] by {name_of(variant)} {moment(at)}")
    return f"Beside LVC's, the deviation of one window's meta-gradient is {joined(told)}" if told else ""


def direction(rows: "pd.DataFrame") -> str:
    """Whether the windows give the meta-gradient a direction, and which variants they find to be biased."""
    windows, known = f"{rows['windows'].max():g} windows", rows.replace([-np.inf, np.inf], np.nan)
    directed = [name for name in variants_of(known) if _clear(known, name, "accuracy")]
    biased = [name for name in variants_of(known) if _clear(known, name, "bias_sq")]
    if not directed:
        first = f"{windows} do not tell the direction of any variant's meta-gradient from noise"
    elif len(directed) == len(variants_of(known)):
        first = f"{windows} tell the direction of every variant's meta-gradient from noise"
    else:
        first = f"{windows} tell the direction of the meta-gradient from noise for {_named(directed)}"
    return first + (f", and find a bias in {_named(biased)}" if biased else "")


def _named(variants: list[str]) -> str:
    return joined([name_of(variant) for variant in variants])


def name_of(variant: str) -> str:
    """A variant of the meta-gradient in words."""
    name, _, rest = variant.partition(", ")
    return ", ".join([estimator(name), *([rest.replace("K=", "K = ")] if rest else [])])


def changed_in(variant: str) -> str:
    """What a variant has beside the estimator."""
    name, _, rest = variant.partition(", ")
    return rest.replace("K=", "K = ") or estimator(name)


def _clear(rows: "pd.DataFrame", variant: str, measure: str) -> bool:
    """Whether the interval of a measure is above zero at some point of every game."""
    column = f"{measure}_low"
    if column not in rows:
        return False
    low = rows[rows["variant"] == variant].groupby(["game", "updates"])[column].mean()
    return bool((low > 0).groupby(level="game").any().all())


def time(rows: "pd.DataFrame") -> str:
    """What takes the largest part of the wall time of each algorithm."""
    parts = rows[list(SECONDS)].groupby(rows["algorithm"]).sum()
    shares = 100 * parts.div(parts.sum(axis=1), axis=0)
    largest: dict[str, dict[str, float]] = {}
    for algorithm in [name for name in LABELS if name in shares.index]:
        of_parts = zip(SECONDS, PARTS, strict=True)
        share, part = max((float(shares[column][algorithm]), part) for column, part in of_parts)
        largest.setdefault(part, {})[LABELS[algorithm]] = share
    said: list[str] = []
    for part, of in sorted(largest.items(), key=lambda item: -max(item[1].values())):
        verb = "" if said else " of the time"
        first, *rest = [f"{share:.0f}%{{}} in {name}" for name, share in of.items()]
        said.append(f"{part}: {joined([first.format(verb), *(each.format('') for each in rest)])}")
    return capital("; ".join(said))


def conclusion(_settings: object, frame: "pd.DataFrame") -> list[str]:
    """What the meta-gradients of single windows are like, beside what the pictures say."""
    rows = frame[frame["figure"] == "gradient"]
    return [] if rows.empty else [sentence for sentence in (spread(rows), direction(rows)) if sentence]
