"""When a comparison is decided: simultaneous intervals over all comparisons of a claim, and over all looks at the data.

Units are drawn in an order that is fixed beforehand, and looked at when there are 10, 20, 40 and so on; those beyond
the last of these wait for the next look, however a run is extended, and fewer than ten decide nothing. At look k the
comparisons of a claim get intervals that together hold all their means with an error of at most α/2 · 1/(k(k+1)),
which sums to α/2 over all looks, however many there will be. The first interval that decides a comparison does so for
good. In all, a claim has a wrong decision in it with a probability of at most α = 5%, half of it for chance among the
units that were drawn, half for kinds of units that were not.

*Chance.* Comparisons of a claim depend on each other, since their units are the same. With r_ij the residual of unit i
in comparison j, s_j their standard deviation, e_i ~ N(0, 1) and W ~ χ²(n − 1), the half width of interval j is
c · s_j / √n where c is the quantile of

    max_j |Σ_i e_i r_ij / (s_j √(n − 1))| / √(W / (n − 1)),

the multiplier bootstrap of max-t (Chernozhukov, Chetverikov and Kato 2013) with Student's denominator, which for a
single comparison makes it Student's interval. It is never wider than Bonferroni's.

*What was not drawn.* A kind of unit that a share p of all are stays unseen in n units with probability (1 − p)ⁿ. The
intervals are wider by `reach` · p where that is q = 2.4%; as q + q² + q⁴ + … < 2.5%, this holds at all looks together.
Without it ten units that happen to agree would decide anything.

Shares of units are compared by exact intervals instead (Clopper and Pearson 1934) for the two kinds of pairs that
differ, at their part of the error by Bonferroni.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gm_lab.analysis.comparisons import Comparison, Outcome
from gm_lab.analysis.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd

    Numbers = np.ndarray[Any, np.dtype[np.float64]]

FIRST_LOOK = 10
ERROR = 0.05
UNSEEN = 0.0243
"""q: with q + q² + q⁴ + … = 2.5%."""
DRAWS = 20_000
FURTHEST = FIRST_LOOK * 2**16


@dataclass(frozen=True, eq=False)
class Judged:
    """A comparison with its outcome, and the interval, the number of units and the look that gave it.

    `needed` is at how many units it would be decided if the means stay what they are, where it is not.
    """

    comparison: Comparison
    outcome: Outcome
    interval: Interval | None = None
    look: int = 0
    needed: float | None = None


def looks(units: int) -> list[int]:
    """How many units there are at each look that so many allow: 10, 20, 40 and so on.

    Examples:
        >>> from gm_lab.analysis import looks
        >>> list(looks(100))
        [10, 20, 40, 80]
    """
    sizes = []
    size = FIRST_LOOK
    while size <= units:
        sizes.append(size)
        size *= 2
    return sizes


def next_look(units: int) -> int:
    """How many units there are at the look after the one at so many.

    Examples:
        >>> from gm_lab.analysis import next_look
        >>> next_look(10), next_look(25)
        (20, 40)
    """
    size = FIRST_LOOK
    while size <= units:
        size *= 2
    return size


def spent(look: int) -> float:
    """The error that look k = 1, 2 … may make by chance: α/2 · 1/(k(k+1))."""
    return ERROR / 2 / (look * (look + 1))


def unseen(units: int) -> float:
    """The largest share of all units that may be of a kind which none of so many is."""
    return float(1 - UNSEEN ** (1 / units))


def judge(comparisons: Sequence[Comparison]) -> list[Judged]:
    """Decides the comparisons of one claim together, look by look; a decision stays, and so ends the claim.

    A claim that is contradicted in one comparison is decided, as is one that is supported in all: later looks are not
    taken, so that the intervals are those at the look which decided it. Too few units for a look leave everything
    undecided, with the intervals that there are.
    """
    found = [Judged(item, item.settled) for item in comparisons]
    order = _in_order(comparisons)
    open_places = [place for place, item in enumerate(comparisons) if _is_prefix(item, order)]
    counts = [len(comparisons[place].values) for place in open_places]  # type: ignore[arg-type]
    if not open_places:
        return found
    enough = min(counts) >= FIRST_LOOK
    for look, units in enumerate(looks(min(counts)) or [min(counts)], start=1):
        intervals = simultaneous([comparisons[place] for place in open_places], order[:units], spent(look))
        for place, interval in zip(open_places, intervals, strict=True):
            if found[place].outcome not in ("supported", "contradicted"):
                item = comparisons[place]
                found[place] = Judged(item, item.outcome(interval) if enough else "undecided", interval, look)
        outcomes = {item.outcome for item in found}
        if "contradicted" in outcomes or outcomes == {"supported"}:
            break
    return [_with_need(item, len(open_places)) if item.outcome == "undecided" else item for item in found]


def simultaneous(comparisons: Sequence[Comparison], units: Sequence[Any], error: float) -> list[Interval]:
    """Intervals of all means by those units, which together miss one with a probability of at most `error`."""
    values = [item.values.loc[list(units)] for item in comparisons]  # type: ignore[union-attr]
    if len(units) < 2:
        return [Interval(float(np.mean(item)), -math.inf, math.inf, len(units)) for item in values]
    shares = [place for place, item in enumerate(comparisons) if item.relation == "share"]
    others = [place for place in range(len(comparisons)) if place not in shares]
    each = error / len(comparisons)
    found: dict[int, Interval] = {place: share_interval(np.asarray(values[place]), each) for place in shares}
    if others:
        means, errors, critical = max_t([values[place] for place in others], each * len(others))
        hidden = unseen(len(units))
        for place, mean, standard_error in zip(others, means, errors, strict=True):
            half = critical * standard_error + comparisons[place].metric.reach * hidden
            found[place] = Interval(mean, mean - half, mean + half, len(units))
    return [found[place] for place in range(len(comparisons))]


def max_t(values: "Sequence[pd.Series[float] | pd.DataFrame]", error: float) -> tuple[list[float], list[float], float]:
    """Means, their standard errors, and how many of these all are off by at most, but for an error.

    Where numbers are by unit and task, both count as drawn: the squares of the two standard errors add up.
    """
    parts = [_influences(item) for item in values]
    labels = {label: place for place, label in enumerate(dict.fromkeys(x for part in parts for x in part[1]))}
    influence = np.zeros((len(labels), len(parts)))
    for column, (_, of_labels) in enumerate(parts):
        influence[[labels[label] for label in of_labels], column] = list(of_labels.values())
    errors = np.linalg.norm(influence, axis=0)
    units = len(values[0])
    return [mean for mean, _ in parts], errors.tolist(), critical_value(influence, units, error)


def critical_value(influence: "Numbers", units: int, error: float) -> float:
    """The quantile of max-t by the multiplier bootstrap, at most Bonferroni's, with six digits."""
    from scipy.special import stdtrit

    lengths = np.linalg.norm(influence, axis=0)
    varying = lengths > 0
    count = int(varying.sum())
    bonferroni = float(stdtrit(units - 1, 1 - error / (2 * max(count, 1))))
    if count < 2:
        return bonferroni
    scaled = (influence[:, varying] / lengths[varying]).astype(np.float32)
    normal, chi = _draws(len(scaled), units - 1)
    most = np.zeros(DRAWS, dtype=np.float32)
    for first in range(0, DRAWS, 2000):  # whose products fit into the caches
        some = slice(first, first + 2000)
        most[some] = np.abs(normal[some] @ scaled).max(1)
    quantile = float(np.quantile(most / chi, 1 - error, method="higher"))
    return float(f"{min(quantile, bonferroni):.6g}")


@lru_cache(maxsize=8)
def _draws(size: int, degrees: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((DRAWS, size), dtype=np.float32)
    return normal, np.sqrt(rng.chisquare(degrees, DRAWS) / degrees).astype(np.float32)


def _influences(values: "pd.Series[float] | pd.DataFrame") -> tuple[float, dict[Any, float]]:
    """The mean, and what every unit and task adds to its error: their squares sum to the squared standard error."""
    numbers: Numbers = np.asarray(values, dtype=np.float64)
    mean = float(numbers.mean())
    if numbers.ndim == 1:
        return mean, dict(zip(values.index, _deviations(numbers), strict=True))
    influence = dict(zip(values.index, _deviations(numbers.mean(1)), strict=True))
    if numbers.shape[1] > 1:
        tasks = [("task", name) for name in values.columns]  # type: ignore[union-attr]
        influence |= dict(zip(tasks, _deviations(numbers.mean(0)), strict=True))
    return mean, influence


def _deviations(numbers: "Numbers") -> list[float]:
    count = len(numbers)
    spread: list[float] = ((numbers - numbers.mean()) / math.sqrt(count * (count - 1))).tolist()
    return spread


def share_interval(differences: "Numbers", error: float) -> Interval:
    """The difference of two shares from pairs 1 (first only), −1 (second only) and 0, with an exact interval."""
    count = len(differences)
    first, second = int((differences > 0).sum()), int((differences < 0).sum())
    (low, high), (other_low, other_high) = (clopper_pearson(x, count, error / 2) for x in (first, second))
    return Interval((first - second) / count, low - other_high, high - other_low, count)


def clopper_pearson(successes: int, count: int, error: float) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    low = 0.0 if successes == 0 else float(betaincinv(successes, count - successes + 1, error / 2))
    high = 1.0 if successes == count else float(betaincinv(successes + 1, count - successes, 1 - error / 2))
    return low, high


def _in_order(comparisons: Sequence[Comparison]) -> list[Any]:
    """All units of the comparisons, in the order in which they were drawn."""
    labels = {label for item in comparisons if item.values is not None for label in item.values.index}
    return sorted(labels)


def _is_prefix(comparison: Comparison, order: Sequence[Any]) -> bool:
    """Whether it has the first of the units, and leaves none of them out."""
    return comparison.values is not None and list(comparison.values.index) == order[: len(comparison.values)]


def _with_need(judged: Judged, together: int) -> Judged:
    """Adds how many units would decide it, were the mean and the spread what they are now."""
    interval, comparison = judged.interval, judged.comparison
    assert interval is not None
    if not all(map(math.isfinite, (interval.low, interval.high))):
        return judged
    hidden = comparison.metric.reach * unseen(interval.count)
    spread = max(0.0, (interval.high - interval.low) / 2 - hidden) * math.sqrt(interval.count)
    units = next_look(interval.count)
    while units <= FURTHEST:
        wider = _wider(judged.look, units, interval.count, together)
        half = wider * spread / math.sqrt(units) + comparison.metric.reach * unseen(units)
        expected = Interval(interval.mean, interval.mean - half, interval.mean + half, units)
        if comparison.outcome(expected) != "undecided":
            return replace(judged, needed=units)
        units *= 2
    return replace(judged, needed=math.inf)


def _wider(look: int, units: int, before: int, together: int) -> float:
    """By how much the quantile at a later look is larger than at this one, by Bonferroni for both."""
    from scipy.special import stdtrit

    then = len(looks(units))
    late, now = (stdtrit(count - 1, 1 - spent(k) / (2 * together)) for count, k in ((units, then), (before, look)))
    return float(late / now)
