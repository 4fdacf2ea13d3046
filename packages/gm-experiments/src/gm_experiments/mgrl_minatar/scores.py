"""What a run ends with, on one scale for all games, and its interquartile mean over games and seeds."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gm_experiments.mgrl_minatar.settings import GAMES
from gm_lab.analysis import Interval

if TYPE_CHECKING:
    import pandas as pd

    Numbers = np.ndarray[Any, np.dtype[np.float64]]

FINAL = 0.9
"""Episodes that end after this part of a run count as its final ones."""
UNITS = {"Breakout": 10.0, "Asterix": 10.0, "SpaceInvaders": 50.0, "Seaquest": 10.0, "Freeway": 50.0}
"""What a return is divided by, fixed before anything was measured: of the size that good agents reach in some hours."""
CUT = 0.25
DRAWS = 2_000


def final_rows(log: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the last tenth of every run."""
    ends = log.groupby(["game", "algorithm", "seed"])["env_steps"].transform("max")
    return log[log["env_steps"] > FINAL * ends]


def final_returns(log: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the mean return of each run's final episodes, by game and algorithm (columns), and seed (rows).

    Where no episode ended in a run's last tenth, as long ones may not, those count that ended last before.
    """
    import pandas as pd

    ended = log[log["episodes"] > 0]
    last = ended.loc[ended.groupby(["game", "algorithm", "seed"])["env_steps"].idxmax()]
    final = pd.concat([final_rows(log), last]).drop_duplicates(["game", "algorithm", "seed", "updates"])
    final = final[final["episodes"] > 0]
    total = final.assign(total=final["episode_return"] * final["episodes"])
    sums = total.groupby(["seed", "game", "algorithm"])[["total", "episodes"]].sum()
    returns: pd.DataFrame = (sums["total"] / sums["episodes"]).unstack(["game", "algorithm"])
    return returns


def final_coefficients(log: "pd.DataFrame", name: str) -> "pd.DataFrame":
    """Returns the logit of a meta-parameter at each run's end, by game and algorithm (columns), and seed (rows)."""
    end = final_rows(log).groupby(["seed", "game", "algorithm"])[name].mean()
    logits: pd.DataFrame = end.map(lambda value: math.log(value / (1 - value))).unstack(["game", "algorithm"])
    return logits


def scores(log: "pd.DataFrame") -> "dict[str, pd.DataFrame]":
    """Returns final returns in `UNITS`, by algorithm, of the games (columns) and seeds (rows) that all have played."""
    returns = final_returns(log)
    names = list(log["algorithm"].unique())
    games = [game for game in GAMES if {(game, name) for name in names} <= {*returns}]
    known = returns[[(game, name) for game in games for name in names]].dropna()
    return {name: known[[(game, name) for game in games]] / [UNITS[game] for game in games] for name in names}


def iqm(values: "Numbers") -> "Numbers":
    """Returns the mean of the middle half of the last two axes' numbers (Agarwal et al. 2021, "Deep Reinforcement …").

    Examples:
        >>> import numpy as np
        >>> from gm_experiments.mgrl_minatar.scores import iqm
        >>> float(iqm(np.array([[0.0, 1.0, 2.0, 99.0]])))
        1.5
    """
    ordered = np.sort(values.reshape(*values.shape[:-2], -1), axis=-1)
    cut = int(CUT * ordered.shape[-1])
    middle: Numbers = ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)
    return middle


def iqm_interval(first: "pd.DataFrame", less: "pd.DataFrame | None" = None) -> Interval:
    """Returns the interquartile mean over seeds and games, or how much higher it is, with a 95% interval.

    The stratified bootstrap of the same paper: each game's seeds are drawn anew, the same for what is compared. One
    seed alone leaves it unbounded.
    """
    values = [frame.to_numpy() for frame in (first, less) if frame is not None]
    seeds, games = values[0].shape
    mean = _gain(values)
    if seeds < 2:
        return Interval(float(mean), -np.inf, np.inf, seeds)
    drawn = np.random.default_rng(0).integers(seeds, size=(DRAWS, seeds, games))
    low, high = np.quantile(_gain([each[drawn, np.arange(games)] for each in values]), [0.025, 0.975])
    return Interval(float(mean), float(low), float(high), seeds)


def _gain(values: "list[Numbers]") -> "Numbers":
    first, *rest = map(iqm, values)
    return first - rest[0] if rest else first
