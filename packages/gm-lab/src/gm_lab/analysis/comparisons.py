"""What a claim compares: numbers of independent units, and the region of their mean in which it would be true.

Every comparison is about one mean μ over units, such as MDPs or seeds: of paired differences, of logarithms of ratios,
or of what a bound leaves. With δ the smallest difference that matters,

    a > b       is true where μ(a − b) > 0 and false where μ < 0 or |μ| < δ
    a ≈ b       is true where |μ(a − b)| < δ and false where |μ| > δ
    a > bound   is true where μ(a) > bound and false where μ < bound.

What decides it is an interval for μ that lies in one of the two regions: see `gm_lab.analysis.decisions`.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from gm_lab.analysis.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd

    ByUnit = pd.Series[float] | pd.DataFrame

Outcome = Literal["supported", "contradicted", "undecided", "not measured"]
Relation = Literal["above", "alike", "beyond", "share", "check"]


@dataclass(frozen=True)
class Metric:
    """What is compared, and what is fixed about it before anything is measured.

    `delta` is the smallest difference that matters. `reach` says how far from the others a kind of unit may lie that no
    unit drawn so far has shown: of ten MDPs none may be of a kind that one in five is.
    """

    name: str
    delta: float
    reach: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """One comparison with its numbers by unit, `None` where they are missing or NaN.

    `values` has the numbers whose mean is judged, by unit or by unit and task. People are shown
    `offset + sign · value`: the mean itself where a bound is subtracted from it.
    """

    label: str
    relation: Relation
    values: "ByUnit | None" = None
    metric: Metric = Metric("", 0.0, 0.0)
    offset: float = 0.0
    sign: float = 1.0
    settled: Outcome = "not measured"
    detail: str = ""

    def shown(self, interval: Interval) -> Interval:
        """An interval of the mean as people are shown it."""
        low, mean, high = sorted(self.offset + self.sign * x for x in (interval.low, interval.mean, interval.high))
        return Interval(mean, low, high, interval.count)

    def region(self) -> tuple[float, float] | None:
        """What counts as no difference, as people are shown it; `None` if a bound is what is asked about."""
        if self.relation == "beyond":
            return None
        return self.offset - self.metric.delta, self.offset + self.metric.delta

    def outcome(self, interval: Interval) -> Outcome:
        """What an interval that holds the mean says; nothing if it has NaN."""
        low, high, delta = interval.low, interval.high, self.metric.delta
        if interval.unknown:
            return "not measured"
        if self.relation == "alike":
            supported, contradicted = -delta < low and high < delta, low > delta or high < -delta
        else:
            negligible = self.relation != "beyond" and -delta < low and high < delta
            supported, contradicted = low > 0, high < 0 or negligible
        return "supported" if supported else "contradicted" if contradicted else "undecided"


def above(label: str, first: "ByUnit", second: "ByUnit", metric: Metric) -> Comparison:
    """Whether first > second in the mean, unit by unit.

    Examples:
        >>> import pandas as pd
        >>> lvc, ad = pd.Series([0.9, 0.8, 0.7]), pd.Series([0.5, 0.6, 0.4])
        >>> from gm_lab.analysis import Metric, above
        >>> above("LVC > AD", lvc, ad, Metric("accuracy", 0.05, 0.0)).relation
        'above'
    """
    return Comparison(label, "above", paired(first, second), metric)


def ratio_above(label: str, first: "pd.Series[float]", second: "pd.Series[float]", metric: Metric) -> Comparison:
    """Whether log(first / second) > 0 in the mean, unit by unit: what variances are compared by.

    Examples:
        >>> import pandas as pd
        >>> lvc, ad = pd.Series([0.9, 0.8, 0.7]), pd.Series([0.5, 0.6, 0.4])
        >>> from gm_lab.analysis import Metric, ratio_above
        >>> compared = ratio_above("variance of LVC > of AD", lvc, ad, Metric("log ratio", 0.1, 0.0))
        >>> compared.values.round(2).tolist()
        [0.59, 0.29, 0.56]
    """
    return Comparison(label, "above", known(log_ratio(first, second)), metric)


def alike(label: str, first: "ByUnit", second: "ByUnit", metric: Metric) -> Comparison:
    """Whether first ≈ second in the mean, unit by unit: a difference below δ.

    Examples:
        >>> import pandas as pd
        >>> lvc, ad = pd.Series([0.9, 0.8, 0.7]), pd.Series([0.5, 0.6, 0.4])
        >>> from gm_lab.analysis import Metric, alike
        >>> alike("LVC ≈ AD", lvc, ad, Metric("accuracy", 0.05, 0.0)).region()
        (-0.05, 0.05)
    """
    return Comparison(label, "alike", paired(first, second), metric)


def near(label: str, values: "ByUnit", target: float, metric: Metric) -> Comparison:
    """Whether the mean is within δ of a target.

    Examples:
        >>> import pandas as pd
        >>> lvc, ad = pd.Series([0.9, 0.8, 0.7]), pd.Series([0.5, 0.6, 0.4])
        >>> from gm_lab.analysis import Metric, near
        >>> near("LVC near 0.8", lvc, 0.8, Metric("accuracy", 0.05, 0.0)).offset
        0.8
    """
    return Comparison(label, "alike", known(values - target), metric, offset=target)


def at_least(label: str, values: "ByUnit", bound: float, metric: Metric) -> Comparison:
    """Whether the mean is above a bound.

    Examples:
        >>> import pandas as pd
        >>> lvc, ad = pd.Series([0.9, 0.8, 0.7]), pd.Series([0.5, 0.6, 0.4])
        >>> from gm_lab.analysis import Metric, at_least
        >>> compared = at_least("LVC above 0.5", lvc, 0.5, Metric("accuracy", 0.05, 0.0))
        >>> compared.values.round(2).tolist()
        [0.4, 0.3, 0.2]
    """
    return Comparison(label, "beyond", known(values - bound), metric, offset=bound)


def at_most(label: str, values: "ByUnit", bound: float, metric: Metric) -> Comparison:
    """Whether the mean is below a bound.

    Examples:
        >>> import pandas as pd
        >>> lvc, ad = pd.Series([0.9, 0.8, 0.7]), pd.Series([0.5, 0.6, 0.4])
        >>> from gm_lab.analysis import Metric, at_most
        >>> compared = at_most("AD below 0.9", ad, 0.9, Metric("accuracy", 0.05, 0.0))
        >>> compared.values.round(2).tolist()
        [0.4, 0.3, 0.5]
    """
    return Comparison(label, "beyond", known(bound - values), metric, offset=bound, sign=-1.0)


def more_often(label: str, first: "pd.Series[float]", second: "pd.Series[float]", metric: Metric) -> Comparison:
    """Whether more of the units have the first than the second, both zeros and ones; intervals are exact.

    Examples:
        >>> import pandas as pd
        >>> from gm_lab.analysis import Metric, more_often
        >>> first, second = pd.Series([1.0, 1.0, 0.0]), pd.Series([0.0, 1.0, 0.0])
        >>> more_often("cooperates more often", first, second, Metric("share", 0.1, 0.0)).values.tolist()
        [1.0, 0.0, 0.0]
    """
    return Comparison(label, "share", paired(first, second), metric)


def check(label: str, holds: bool | None, detail: str) -> Comparison:
    """What arithmetic decides and no sample does, such as an equality up to rounding; `None` if it was not measured.

    Examples:
        >>> from gm_lab.analysis import check
        >>> check("K = 1: the two are equal", True, "difference 0").settled
        'supported'
        >>> check("K = 1: the two are equal", None, "").settled
        'not measured'
    """
    settled: Outcome = "not measured" if holds is None else "supported" if holds else "contradicted"
    return Comparison(label, "check", settled=settled, detail=detail)


def within(label: str, value: float, limit: float, detail: str) -> Comparison:
    """Whether a number is at most a limit; NaN is neither below nor above it.

    Examples:
        >>> from gm_lab.analysis import within
        >>> within("bias", 0.01, 0.02, "squared bias 0.01").settled
        'supported'
        >>> within("bias", 0.03, 0.02, "squared bias 0.03").settled
        'contradicted'
    """
    return check(label, None if math.isnan(value) else bool(value <= limit), detail)


def log_ratio(first: "pd.Series[float]", second: "pd.Series[float]") -> "pd.Series[float]":
    """log(first / second) of the units that both have; infinite or NaN, without a warning, where it does not exist.

    Examples:
        >>> import pandas as pd
        >>> lvc, ad = pd.Series([0.9, 0.8, 0.7]), pd.Series([0.5, 0.6, 0.4])
        >>> from gm_lab.analysis import log_ratio
        >>> log_ratio(lvc, ad).round(2).tolist()
        [0.59, 0.29, 0.56]
    """
    both = first.index.intersection(second.index)
    ratio = first.loc[both] / second.loc[both]
    with np.errstate(all="ignore"):
        logarithms = np.log(ratio.to_numpy(dtype=np.float64))
    return type(ratio)(logarithms, index=ratio.index)


def paired(first: "ByUnit", second: "ByUnit") -> "ByUnit | None":
    """The difference by unit; `None` if a unit that comes before others is missing on one side, or a number is NaN.

    One side may have fewer units than the other, if they are the first: what goes on being drawn for one claim need
    not be for another.
    """
    every = first.index.union(second.index)
    both = first.index.intersection(second.index)
    if len(both) == 0 or list(both.sort_values()) != list(every.sort_values()[: len(both)]):
        return None
    units = list(both.sort_values())
    return known(first.loc[units] - second.loc[units])


def known(values: "ByUnit") -> "ByUnit | None":
    """The numbers in the order of their units; `None` if there is none, or one is not finite."""
    if len(values) == 0 or not np.isfinite(values.to_numpy(dtype=np.float64)).all():
        return None
    return values.sort_index()
