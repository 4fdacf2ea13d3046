"""The claims about MGRL in the discounting chain, as docs/claims.toml says they are decided."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gm_experiments.common.claims import DISCOUNT, RETURN, Claim
from gm_experiments.mgrl_chain.settings import FIXED, INNER, META, OUTER, Curve, Settings
from gm_lab.analysis import Comparison, Metric, Verdict, above, near

if TYPE_CHECKING:
    import pandas as pd

    BySeed = pd.Series[float]

PUBLISHED = {INNER: {"episode_return": 1.00, "gamma": 0.90}, OUTER: {"episode_return": 1.078, "gamma": 1.00}}
"""Where Bonnet et al. 2022 end with a meta-gradient, by the critic of the outer objective."""
MEASURES: dict[str, tuple[str, Metric]] = {"episode_return": ("return", RETURN), "gamma": ("γ", DISCOUNT)}


class Means:
    """Each curve's numbers of every seed: at the end, and on average over all updates.

    All are empty if the curve was not measured. `asked` has the curves that were looked up.
    """

    def __init__(self, frame: "pd.DataFrame") -> None:
        self.asked = set[str]()
        self._frame = frame
        self._learnt = frame[frame["method"] != FIXED]

    def end(self, measure: str, curve: Curve) -> "BySeed":
        """Returns what a measure is after the last update, by seed."""
        return self._of(measure, curve, last=True)

    def path(self, measure: str, curve: Curve) -> "BySeed":
        """Returns the mean of a measure over all updates, by seed."""
        return self._of(measure, curve, last=False)

    def _of(self, measure: str, curve: Curve, last: bool) -> "BySeed":
        self.asked.add(curve.name)
        rows = self._frame[self._frame["curve"] == curve.name]
        rows = rows[rows["update"] == rows["update"].max()] if last else rows[rows["update"] > 0]
        return rows.groupby("seed")[measure].mean()

    def ways(self) -> list[tuple[str, str]]:
        """Returns the methods and estimators by which γ was learnt; those without a flag if there are none."""
        known = list(dict.fromkeys(zip(self._learnt["method"], self._learnt["estimator"], strict=True)))
        return [(str(method), str(estimator)) for method, estimator in known] or [(META, "ad")]


def as_published(critic: str, means: Means) -> Iterator[Comparison]:
    """AD's meta-gradient ends where the paper's does."""
    for measure, target in PUBLISHED[critic].items():
        word, metric = MEASURES[measure]
        yield near(f"{word} at the end", means.end(measure, Curve(META, "ad", critic)), target, metric)


def with_the_inner_critic(means: Means) -> Iterator[Comparison]:
    """The critic of the discount that is learnt biases the outer objective."""
    yield from as_published(INNER, means)


def with_an_outer_critic(means: Means) -> Iterator[Comparison]:
    """A critic of its own doesn't."""
    yield from as_published(OUTER, means)


def outer_above_inner(means: Means) -> Iterator[Comparison]:
    """However γ is learnt, it ends higher with a critic of its own, and so does the return."""
    for method, estimator in means.ways():
        first, second = (Curve(method, estimator, critic) for critic in (OUTER, INNER))
        for measure, (word, metric) in MEASURES.items():
            label = f"{estimator}, {method}: {word} with an outer critic > inner"
            yield above(label, means.end(measure, first), means.end(measure, second), metric)


def lvc_above_ad(means: Means) -> Iterator[Comparison]:
    """With an outer critic LVC's γ is above AD's on average over all updates."""
    first, second = (means.path("gamma", Curve(META, name, OUTER)) for name in ("lvc", "ad"))
    yield above("mean γ of LVC > AD, outer critic", first, second, DISCOUNT)


CLAIMS: tuple[Claim[Means], ...] = (
    Claim("CHAIN-1", "with the inner critic γ falls to 0.90 and the return ends at 1.00", (with_the_inner_critic,)),
    Claim("CHAIN-2", "with an outer critic γ rises to 1 and the return ends at 1.078", (with_an_outer_critic,)),
    Claim("CHAIN-3", "γ and the return end higher with an outer critic, by whatever γ is learnt", (outer_above_inner,)),
    Claim("CHAIN-4", "LVC's γ is nearer than AD's to the outer objective's along the way", (lvc_above_ad,)),
)


def claims(_settings: Settings, frame: "pd.DataFrame") -> list[Verdict]:
    """Returns the verdicts on CHAIN-1 to CHAIN-4, each with the curves that it is about."""
    means = Means(frame)
    return [claim.verdict(means) for claim in CLAIMS]
