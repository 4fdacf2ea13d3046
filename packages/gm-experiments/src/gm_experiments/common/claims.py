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
    """One claim: it holds if all its comparisons do.

    Attributes:
        id: its name, such as "MAML-1".
        words: what it says.
        parts: what it consists of: each makes comparisons of the evidence.
        examples: how many comparisons the verdict quotes.
    """

    id: str
    words: str
    parts: tuple[Callable[[EvidenceT], Iterable[analysis.Comparison]], ...]
    examples: int = 2

    def verdict(self, evidence: EvidenceT) -> analysis.Verdict:
        """Whether it holds, with the numbers that decide it."""
        comparisons = [item for part in self.parts for item in part(evidence)]
        return analysis.decided(self.id, self.words, comparisons, self.examples)


class Evidence:
    """Metrics per MDP at each estimator, permutation and point of some axes, from one pass over results.csv.

    Args:
        frame: results.csv.
        figures: those that measure the same thing.
        axes: the columns that tell points apart; rows that differ in others are averaged.
        metrics: the columns measured.
    """

    def __init__(
        self,
        frame: "pd.DataFrame",
        figures: Sequence[str],
        axes: Sequence[str],
        metrics: Sequence[str] = ("accuracy", "variance"),
    ) -> None:
        rows = frame[frame["figure"].isin(figures)].drop(columns="figure").drop_duplicates()
        key = ["estimator", "permutation", *axes]
        means = rows.groupby([*key, "mdp"], sort=True)[list(metrics)].mean()
        self._where = means.groupby(key, sort=False).indices
        self._mdps = means.index.get_level_values("mdp")
        self._values = {metric: means[metric].to_numpy() for metric in metrics}
        self._points = {axis: sorted(rows[axis].unique()) for axis in axes}

    def __call__(self, estimator: str, permutation: str, *point: float, metric: str = "accuracy") -> "pd.Series[float]":
        """The metric at one point, indexed by MDP; empty if it was not measured."""
        import pandas as pd

        where = self._where.get((estimator, permutation, *point), slice(0))
        return pd.Series(self._values[metric][where], self._mdps[where])

    def points(self, axis: str) -> list[float]:
        """The values of an axis that the figures have, in ascending order."""
        return self._points[axis]
