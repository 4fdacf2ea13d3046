"""Who needs how many trajectories for the accuracy of another: what the sample sizes of the MAML experiment trade."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gm_experiments.common import labels
from gm_experiments.common.findings import joined, two_digits
from gm_experiments.maml.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    Curves = pd.DataFrame
    """Accuracies, MDP by sample size."""
    Numbers = np.ndarray[Any, np.dtype[np.float64]]

PAIRS = (("lvc", "loaded_dice"), ("lvc", "ad"))
RESAMPLES, SEED, ERROR = 4999, 0, 0.05
"""How often MDPs are drawn anew, with replacement; the intervals of all sizes hold together but for that error."""
FEWEST = 5
"""MDPs from which on there is something to draw from."""


def conclusion(_settings: Settings, frame: "pd.DataFrame") -> Sequence[str]:
    """Says who needs more trajectories for one accuracy where everything is sampled, as far as it is told apart."""
    rows = frame[(frame["figure"] == "fig4") & (frame["permutation"] == "SSS")]
    rows = rows[(rows["inner_steps"] == rows["inner_steps"].min()) & (rows["inner_lr"] == rows["inner_lr"].max())]
    if rows["mdp"].nunique() < FEWEST or rows["sample_size"].nunique() < 2:
        return []
    curves = {
        str(name): of_name.pivot_table(index="mdp", columns="sample_size", values="accuracy").dropna()
        for name, of_name in rows.groupby("estimator")
    }
    return [sentence for pair in PAIRS if {*pair} <= {*curves} for sentence in traded(*pair, curves)]


def traded(name: str, other: str, curves: "dict[str, Curves]") -> Sequence[str]:
    """How many times as many trajectories another estimator needs for the accuracy of one, over its sample sizes."""
    shared = curves[name].index.intersection(curves[other].index)
    columns = curves[name].columns.intersection(curves[other].columns)
    first, second = (curves[each].loc[shared, columns].to_numpy() for each in (name, other))
    sizes = np.array(columns, dtype=float)
    drawn = np.random.default_rng(SEED).integers(len(shared), size=(RESAMPLES, len(shared)))
    means = zip(first[drawn].mean(1), second[drawn].mean(1), strict=True)
    ratios = np.array([times_as_many(wanted, reached, sizes) for wanted, reached in means])
    tail = ERROR / len(sizes) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail], axis=0, method="nearest")
    best = times_as_many(first.mean(0), second.mean(0), sizes)
    called = labels.short([name, other])
    more, fewer = low > 1, high < 1
    parts = [
        f"with {_range(sizes, told)} {called[other]} needs {_times(best[told], word)}"
        for told, word in ((more, "more"), (fewer, "fewer"))
        if told.any()
    ]
    if unclear := _range(sizes, ~(more | fewer)):
        parts.append(f"with {unclear} the two are not told apart")
    return [f"For the accuracy of {called[name]} {'; '.join(parts)}"] if more.any() or fewer.any() else []


def times_as_many(wanted: "Numbers", other: "Numbers", sizes: "Numbers") -> "Numbers":
    """n′ / n for each size n of one curve, where n′ is the size at which another curve first has its value.

    Between sizes the other curve is linear in log n. It is ∞ where the other curve never gets there and 0 where it
    begins above.
    """
    reached = np.maximum.accumulate(other)
    first = np.diff(reached, prepend=-np.inf) > 0
    at = np.interp(wanted, reached[first], np.log2(sizes[first]), left=-np.inf, right=np.inf)
    ratios: Numbers = np.exp2(at) / sizes
    return ratios


def _range(sizes: "Numbers", chosen: "np.ndarray[Any, np.dtype[np.bool_]]") -> str:
    """Some of the sample sizes in words: as a range where they are neighbours."""
    places = np.flatnonzero(chosen)
    if not len(places):
        return ""
    named = [f"{size:g}" for size in sizes[places]]
    neighbours = len(places) > 2 and places[-1] - places[0] == len(places) - 1
    return f"{f'{named[0]} to {named[-1]}' if neighbours else joined(named)} trajectories"


def _times(ratios: "Numbers", word: str) -> str:
    """A range of ratios in words, or only that it is more, or fewer, where none can be read off."""
    known = ratios[np.isfinite(ratios) & (ratios > 0)]
    if not len(known):
        return "more than were ever drawn" if word == "more" else word
    low, high = two_digits(known.min()), two_digits(known.max())
    beyond = " or more than were ever drawn" if np.isinf(ratios).any() else ""
    return f"{low} times as many" + beyond if low == high else f"{low} to {high} times as many{beyond}"
