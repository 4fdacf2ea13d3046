"""Claims: what each compares, the verdict on it, and the verdicts for the terminal and for claims.json."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gm_lab.analysis.statistics import Interval, greater, mean_interval, paired_difference, similar

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

VERDICTS = {True: "holds", False: "does not hold", None: "not enough data"}
SHADES = {True: "green", False: "red", None: "yellow"}
NO_DATA = "no data"
MARKS = {True: "yes", False: "no", None: "not measured"}


@dataclass(frozen=True)
class Comparison:
    """What is compared, in words; whether it holds, None if the results lack one side; and the numbers."""

    label: str
    holds: bool | None
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What was measured about one claim; `holds` is None if there is not enough data to tell."""

    id: str
    claim: str
    holds: bool | None
    measured: str

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        return VERDICTS[self.holds]


def above(label: str, first: "pd.Series[float]", second: "pd.Series[float]") -> Comparison:
    """Whether first > second: their paired 95% interval is clear of zero."""
    if _missing(first, second):
        return Comparison(label, None, NO_DATA)
    return Comparison(label, greater(first, second), f"difference {paired_difference(first, second)}")


def alike(label: str, first: "pd.Series[float]", second: "pd.Series[float]") -> Comparison:
    """Whether first ≈ second: their two 95% intervals overlap."""
    if _missing(first, second):
        return Comparison(label, None, NO_DATA)
    return Comparison(label, similar(first, second), f"{mean_interval(first)} and {mean_interval(second)}")


def at_least(label: str, values: "pd.Series[float]", bound: float) -> Comparison:
    """Whether the mean is above a bound; None if a value is NaN."""
    return _bounded(label, values, lambda mean: mean > bound)


def at_most(label: str, values: "pd.Series[float]", bound: float) -> Comparison:
    """Whether the mean is below a bound; None if a value is NaN."""
    return _bounded(label, values, lambda mean: mean < bound)


def within(label: str, value: float, limit: float, detail: str) -> Comparison:
    """Whether a number is at most a limit; NaN is neither below nor above it."""
    return Comparison(label, None if value != value else bool(value <= limit), detail)


def _bounded(label: str, values: "pd.Series[float]", holds: Callable[[float], bool]) -> Comparison:
    if len(values) == 0:
        return Comparison(label, None, NO_DATA)
    interval = mean_interval(values)
    return judged(label, interval, holds(interval.mean))


def judged(label: str, interval: Interval, holds: bool) -> Comparison:
    """What was decided by an interval; nothing can be by one of NaN, which is above and below nothing."""
    return Comparison(label, None if interval.unknown else bool(holds), str(interval))


def _missing(first: "pd.Series[float]", second: "pd.Series[float]") -> bool:
    return len(first) == 0 or not first.index.equals(second.index)


def every(outcomes: Iterable[bool | None]) -> bool | None:
    """Whether all hold: False if one doesn't, else None if one can't be told or there is none, else True."""
    seen = list(outcomes)
    if any(outcome is False for outcome in seen):
        return False
    return True if seen and all(seen) else None


def decided(claim_id: str, claim: str, comparisons: Sequence[Comparison], examples: int = 2) -> Verdict:
    """Returns the verdict on a claim that holds if all its comparisons do; it quotes some, those that fail first."""
    measured = "none of it was measured"
    if any(item.detail != NO_DATA for item in comparisons):
        fulfilled = sum(item.holds is True for item in comparisons)
        quoted = sorted(comparisons, key=lambda item: (item.holds is not False, item.holds is not None))[:examples]
        numbers = "; ".join(f"{item.label}: {MARKS[item.holds]}, {item.detail}" for item in quoted)
        measured = f"{fulfilled} of {len(comparisons)} comparisons hold. {numbers}"
    return Verdict(claim_id, claim, every(item.holds for item in comparisons), measured)


def as_json(verdicts: Sequence[Verdict]) -> str:
    """The text of claims.json: a list of objects with id, claim, verdict and measured."""
    records = [
        {"id": item.id, "claim": item.claim, "verdict": item.verdict, "measured": item.measured} for item in verdicts
    ]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def as_table(verdicts: Sequence[Verdict]) -> "Table":
    """The verdicts as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table("claim", "in words", "verdict", "measured", title="Claims", title_justify="left")
    for item in verdicts:
        verdict = Text(item.verdict, style=SHADES[item.holds])
        table.add_row(Text(item.id, no_wrap=True), Text(item.claim), verdict, Text(item.measured))
    return table
