"""A claim as a list of comparisons, each with the numbers that decide it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gm_lab.claims import Verdict, every
from gm_lab.statistics import greater, mean_interval, paired_difference, similar

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """One comparison and its outcome.

    Args:
        label: What is compared, in words.
        holds: None if the results lack one side.
        detail: The numbers.
    """

    label: str
    holds: bool | None
    detail: str


def above(label: str, first: "pd.Series[float]", second: "pd.Series[float]") -> Comparison:
    """Whether first > second: their paired 95% interval is clear of zero."""
    if missing(first, second):
        return Comparison(label, None, "no data")
    return Comparison(label, greater(first, second), f"difference {paired_difference(first, second)}")


def alike(label: str, first: "pd.Series[float]", second: "pd.Series[float]") -> Comparison:
    """Whether first ≈ second: their two 95% intervals overlap."""
    if missing(first, second):
        return Comparison(label, None, "no data")
    return Comparison(label, similar(first, second), f"{mean_interval(first)} and {mean_interval(second)}")


def at_least(label: str, values: "pd.Series[float]", bound: float) -> Comparison:
    """Whether the mean is above a bound."""
    if len(values) == 0:
        return Comparison(label, None, "no data")
    interval = mean_interval(values)
    return Comparison(label, interval.mean > bound, str(interval))


def at_most(label: str, values: "pd.Series[float]", bound: float) -> Comparison:
    """Whether the mean is below a bound."""
    if len(values) == 0:
        return Comparison(label, None, "no data")
    interval = mean_interval(values)
    return Comparison(label, interval.mean < bound, str(interval))


def missing(first: "pd.Series[float]", second: "pd.Series[float]") -> bool:
    """Whether the two sides lack values for the same units."""
    return len(first) == 0 or list(first.index) != list(second.index)


def decided(claim_id: str, claim: str, comparisons: Sequence[Comparison], examples: int = 2) -> Verdict:
    """The verdict on a claim that holds if every one of its comparisons does.

    Args:
        claim_id: The claim's name.
        claim: The claim in words.
        comparisons: What it says, one by one.
        examples: How many comparisons to quote; those that fail come first.

    Returns:
        The verdict, with the count of comparisons that hold and examples with their numbers.
    """
    marks = {True: "yes", False: "no", None: "not measured"}
    fulfilled = sum(item.holds is True for item in comparisons)
    count = f"{fulfilled} of {len(comparisons)} comparisons hold"
    quoted = sorted(comparisons, key=lambda item: (item.holds is not False, item.holds is not None))[:examples]
    numbers = "; ".join(f"{item.label}: {marks[item.holds]}, {item.detail}" for item in quoted)
    measured = (
        f"{count}. {numbers}" if any(item.holds is not None for item in comparisons) else "none of it was measured"
    )
    return Verdict(claim_id, claim, every(item.holds for item in comparisons), measured)
