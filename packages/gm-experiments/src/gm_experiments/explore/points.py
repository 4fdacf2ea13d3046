"""What the page shows of each point of the grid: means over MDPs with their intervals, in units that compare."""

from dataclasses import fields
from itertools import product
from typing import TYPE_CHECKING, Any

from gm_experiments.common.labels import ESTIMATORS
from gm_experiments.common.settings import PERMUTATIONS, Tabular
from gm_experiments.explore.settings import AXES, Settings
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd

METRICS = {
    "accuracy": ("accuracy", "cosine of the angle to the true meta-gradient; 1 is right, 0 says nothing"),
    "bias": ("squared bias", "of the mean estimate, in units of the true length squared; 0 is right on average"),
    "deviation": ("standard deviation", "of one estimate, in units of the true length"),
    "error": ("mean squared error", "squared bias plus variance, in units of the true length squared"),
}
"""What each metric of the page is called, and what it says."""
DIGITS = 3


def measured(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows with the metrics of the page, each in units of ‖∇φJ‖ of its own MDP, so that MDPs compare."""
    truth = frame["truth_sq"]
    return frame.assign(
        bias=frame["bias_sq"] / truth,
        deviation=(frame["variance"] / truth) ** 0.5,
        error=(frame["bias_sq"] + frame["variance"]) / truth,
    )


def points(settings: Settings, frame: "pd.DataFrame") -> dict[str, Any]:
    """All that the page shows, as plain data.

    `values` has for each metric a list over α, K, trajectories, permutations and estimators, in this order, of mean,
    low and high.
    """
    axes = {axis: sorted(frame[axis].unique().tolist()) for axis in AXES}
    axes["permutation"] = [p for p in PERMUTATIONS if p in set(frame["permutation"])]
    known = [name for name in ESTIMATORS if name in set(frame["estimator"])]
    axes["estimator"] = known + sorted(set(frame["estimator"]) - set(known))
    grouped = measured(frame).groupby(list(axes), sort=True)
    values = {metric: {place: _interval(of) for place, of in grouped[metric]} for metric in METRICS}
    places = list(product(*axes.values()))
    return {
        "axes": axes,
        "metrics": {metric: {"name": name, "says": says} for metric, (name, says) in METRICS.items()},
        "values": {metric: [values[metric][place] for place in places] for metric in METRICS},
        "flags": flags(settings),
        "mdps": int(frame["mdp"].nunique()),
        "repeats": settings.repeats,
    }


def _interval(values: "pd.Series[float]") -> list[float]:
    found = analysis.mean_interval(values.to_numpy())
    return [float(f"{number:.{DIGITS}g}") for number in (found.mean, found.low, found.high)]


def flags(settings: Settings) -> str:
    """The flags with which another app measures the same MDPs: those that are not as they are without a flag."""
    others = {field.name: field.default for field in fields(Tabular)} | {"mdps": Settings.mdps, "seed": Settings.seed}
    given = {name: getattr(settings, name) for name in others if getattr(settings, name) != others[name]}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
