"""A claim as an entry of a table, and what is known about each point of results.csv."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd

EvidenceT = TypeVar("EvidenceT")


@dataclass(frozen=True)
class Claim(Generic[EvidenceT]):
    """One claim: it holds if all comparisons of all its parts do; the verdict quotes some as examples."""

    id: str
    words: str
    parts: tuple[Callable[[EvidenceT], Iterable[analysis.Comparison]], ...]
    examples: int = 2

    def verdict(self, evidence: EvidenceT) -> analysis.Verdict:
        """Whether it holds, with the numbers that decide it."""
        comparisons = [item for part in self.parts for item in part(evidence)]
        return analysis.decided(self.id, self.words, comparisons, self.examples)


class Evidence:
    """Metrics per MDP at each point of some axes, averaged over the rows of figures that measure the same thing."""

    def __init__(self, frame: "pd.DataFrame", figures: Sequence[str], axes: Sequence[str]) -> None:
        self._rows = frame[frame["figure"].isin(figures)].drop(columns="figure").drop_duplicates()
        self._units, self._axes = analysis.Units(self._rows, "mdp"), axes

    def __call__(self, estimator: str, permutation: str, *point: float, metric: str = "accuracy") -> "pd.Series[float]":
        """The metric at one point, indexed by MDP; empty if it was not measured."""
        where = dict(zip(self._axes, point, strict=True))
        return self._units(metric, estimator=estimator, permutation=permutation, **where)

    def points(self, axis: str) -> list[float]:
        """The values of an axis that the figures have, in ascending order."""
        return sorted(self._rows[axis].unique())
