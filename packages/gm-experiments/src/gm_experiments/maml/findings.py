"""What the pictures of the MAML experiment show, in a sentence each."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from gm_experiments.common import findings, labels
from gm_experiments.common.claims import BIAS
from gm_lab.analysis import mean_interval

if TYPE_CHECKING:
    import pandas as pd

LEAST = {
    "inner_steps": ("more inner steps cost", "K"), "inner_lr": ("a larger inner learning rate costs", "α"),
}  # fmt: skip
"""What pictures over K and α vary, in words."""


def bias_left(rows: "pd.DataFrame") -> str:
    """Who is biased with the most trajectories that were drawn, and by how much of the gradient's length."""
    size, last = _last(rows, "sample_size")
    called, values = labels.short(last["estimator"].unique()), findings.values_of(last, "bias")
    interval = {name: mean_interval(numbers) for name, numbers in values.items() if len(numbers)}
    order = sorted(interval, key=lambda name: interval[name].mean, reverse=True)
    biased = [(name, _share(interval[name].mean, round)) for name in order if interval[name].low > 0]
    freed = [name for name in order if interval[name].high < BIAS.delta and interval[name].low <= 0]
    least = [f"{called[name]} by less than {_share(max(interval[name].high, 0), math.ceil)}" for name in freed]
    if biased:
        (worst, most), *others = biased
        amounts = [f"{called[worst]} biased by {most} of the gradient", *(f"{called[n]} by {of}" for n, of in others)]
        left = f"Even {size:g} trajectories leave {findings.few(amounts)}"
        return f"{left}; {findings.few(least)}" if least else left
    if least:
        return f"With {size:g} trajectories the gradient is biased in {findings.few(least)} of its length"
    return f"With {size:g} trajectories no bias is told from zero"


def _share(squared: float, rounded: Callable[[float], int]) -> str:
    return f"{rounded(100 * math.sqrt(squared))}%"


def by_permutation(rows: "pd.DataFrame") -> str:
    """What a sampled Hessian alone costs at the largest sample size, estimator by estimator."""
    size, last = _last(rows, "sample_size")
    name = "ESE" if "ESE" in set(last["permutation"]) else str(last["permutation"].iloc[0])
    return _at(f"with {labels.permutation(name)} and {size:g} trajectories", last, name, "accuracy")


def at_most(rows: "pd.DataFrame", axis: str, permutation: str, metric: str) -> str:
    """Who is best at the end of an axis, and what getting there costs."""
    end, last = _last(rows, axis)
    if axis == "sample_size":
        return _at(f"with {labels.permutation(permutation)} and {end:g} trajectories", last, permutation, metric)
    cost, symbol = LEAST[axis]
    place = f"at {symbol} = {end:g}, with {labels.permutation(permutation)}"
    if metric != "accuracy" or rows[axis].nunique() == 1:
        return _at(place, last, permutation, metric)
    first = rows[(rows[axis] == rows[axis].min()) & (rows["permutation"] == permutation)]
    before, after = (findings.values_of(part, metric) for part in (first, last[last["permutation"] == permutation]))
    loss = findings.changed(before, after, labels.short(rows["estimator"].unique()), cost, "accuracy")
    return f"{findings.capital(loss)}; {_at(place, last, permutation, metric, False)}"


def _at(place: str, last: "pd.DataFrame", permutation: str, metric: str, begins: bool = True) -> str:
    values = findings.values_of(last[last["permutation"] == permutation], metric)
    called = labels.short(values)
    if metric == "accuracy":
        found = findings.ranked(values, called, ("{} is most accurate", "{} are most accurate"), metric)
    else:
        logs = {name: numbers[numbers > 0].map(math.log) for name, numbers in values.items()}
        found = findings.ranked(
            logs, called, ("{} varies least", "{} vary least"), "spread", largest=False,
            show=lambda mean: findings.two_digits(math.exp(mean)),
        )  # fmt: skip
    return f"{findings.capital(place) if begins else place}, {found}"


def _last(rows: "pd.DataFrame", axis: str) -> "tuple[float, pd.DataFrame]":
    end = rows[axis].max()
    return float(end), rows[rows[axis] == end]
