"""A claim as an entry of a table, what is known about each point of results.csv, and which differences matter."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd

EvidenceT = TypeVar("EvidenceT")

# fixed before anything was measured: docs/claims.toml has the reasons, a test holds one to the other
ACCURACY = analysis.Metric("accuracy", delta=0.05, reach=1.0)
REWARD = analysis.Metric("reward per round", delta=0.05, reach=1.0)
VARIANCE = analysis.Metric("log ratio of variances", delta=math.log(1.25), reach=math.log(10))
SHARE = analysis.Metric("share of seeds", delta=0.1, reach=0.0)
EXPONENT = analysis.Metric("exponent", delta=0.1, reach=0.5)
SCORE = analysis.Metric("score", delta=0.05, reach=1.0)
BIAS = analysis.Metric("squared bias / ‖g‖²", delta=0.01, reach=1.0)
DISTANCE = analysis.Metric("log ratio of distances", delta=math.log(1.25), reach=math.log(10))
PART = analysis.Metric("error / larger of both", delta=0.05, reach=1.0)
GAME_RETURN = analysis.Metric("return in units of its game", delta=0.05, reach=0.0)
LOG_BOUND = analysis.Metric("log bound / measured", delta=0.0, reach=math.log(10))
RETURN = analysis.Metric("return", delta=0.02, reach=0.1)
DISCOUNT = analysis.Metric("discount", delta=0.02, reach=0.1)
METRICS = {
    "accuracy": ACCURACY, "reward": REWARD, "variance": VARIANCE, "share": SHARE, "exponent": EXPONENT,
    "score": SCORE, "bias": BIAS, "distance": DISTANCE, "log-bound": LOG_BOUND, "part": PART, "return": RETURN,
    "discount": DISCOUNT, "game-return": GAME_RETURN,
}  # fmt: skip


@dataclass(frozen=True)
class Claim(Generic[EvidenceT]):
    """One claim: supported if all comparisons of all its parts are; the verdict quotes some as examples."""

    id: str
    words: str
    parts: tuple[Callable[[EvidenceT], Iterable[analysis.Comparison]], ...]
    examples: int = 2

    def verdict(self, evidence: EvidenceT) -> analysis.Verdict:
        """What is found about it, with the numbers that decide it, and what was asked of the evidence for that."""
        asked: set[Any] = getattr(evidence, "asked", set())
        asked.clear()
        comparisons = [item for part in self.parts for item in part(evidence)]
        found = analysis.decided(self.id, self.words, comparisons, self.examples)
        return replace(found, needs=frozenset(asked))


class Evidence:
    """Metrics per MDP at each point of some axes, averaged over the rows of figures that measure the same thing.

    `asked` has what was looked up, as (figure, estimator, permutation, ((axis, value), …)) of every figure.
    """

    def __init__(
        self, frame: "pd.DataFrame", figures: Sequence[str], axes: Sequence[str], asked: set[Any] | None = None
    ) -> None:
        self._rows = frame[frame["figure"].isin(figures)].drop(columns="figure").drop_duplicates()
        self._units, self._axes, self._figures = analysis.Units(self._rows, "mdp"), axes, tuple(figures)
        self.asked = set[Any]() if asked is None else asked

    def __call__(self, estimator: str, permutation: str, *point: float, metric: str = "accuracy") -> "pd.Series[float]":
        """The metric at one point, indexed by MDP; empty if it was not measured."""
        where = dict(zip(self._axes, point, strict=True))
        self.asked |= {(figure, estimator, permutation, tuple(where.items())) for figure in self._figures}
        return self._units(metric, estimator=estimator, permutation=permutation, **where)

    def points(self, axis: str) -> list[float]:
        """The values of an axis that the figures have, in ascending order."""
        return sorted(self._rows[axis].unique())


class Figures(dict[str, Evidence]):
    """Evidence by a name of its own, each of some figures over some axes; it notes together what was asked."""

    def __init__(self, frame: "pd.DataFrame", sources: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> None:
        self.asked = set[Any]()
        super().__init__({name: Evidence(frame, *source, self.asked) for name, source in sources.items()})
