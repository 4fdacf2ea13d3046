"""The paper's claims on LOLA, as docs/claims.toml says they are decided.

Scores have two peaks, near −1 and near −2: so each is judged by its mean and by the share of seeds that cooperate.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, cast

from gm_experiments.common.claims import ACCURACY, REWARD, SHARE, VARIANCE, Claim
from gm_experiments.lola.figures import LAST, last_updates
from gm_experiments.lola.settings import Game, Settings, game_of
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd

    BySeed = pd.Series[float]

COOPERATES, FAILS, WELFARE = -1.2, -1.8, -1.0
"""The score above which a seed cooperates, that below which it fails, and that of two who always cooperate."""
GAIN = replace(SHARE, name="difference of gains in the share of seeds that cooperate", reach=2.0)
"""2 c − c' − c'' with each c 0 or 1, which is no share: a kind of seed may lie this far from the rest."""
ERRORS = {"hessian_error_sq": "the Hessian's squared error", "composition_error_sq": "the composition's squared error"}


class Means:
    """Each curve's mean of every seed: of the score in the last updates, of accuracy and squared errors in all.

    All are empty if the curve was not measured. `asked` has the curves that were looked up.
    """

    def __init__(self, frame: "pd.DataFrame") -> None:
        self.asked = set[str]()
        self._means = {"score": _by_curve(last_updates(frame), "score")}
        self._means |= {measure: _by_curve(frame, measure) for measure in ("accuracy_outer_exact", *ERRORS)}

    def score(self, curve: str) -> "BySeed":
        """Returns the reward per round by seed."""
        return self._of("score", curve)

    def above(self, score: float, curve: str) -> "BySeed":
        """Returns by seed 1 if the score is above a number, else 0."""
        return (self.score(curve) > score).astype(float).where(self.score(curve).notna())

    def cooperates(self, curve: str) -> "BySeed":
        """Returns by seed 1 if it cooperates, else 0."""
        return self.above(COOPERATES, curve)

    def accuracy(self, curve: str) -> "BySeed":
        """Returns the accuracy with an exact outer gradient by seed."""
        return self._of("accuracy_outer_exact", curve)

    def error(self, measure: str, curve: str) -> "BySeed":
        """Returns a squared error by seed."""
        return self._of(measure, curve)

    def _of(self, measure: str, curve: str) -> "BySeed":
        self.asked.add(curve)
        return self._means[measure].get(curve, self._means[measure][""])


def _by_curve(frame: "pd.DataFrame", measure: str) -> "dict[str, BySeed]":
    """Means over updates, by curve and seed; an empty one under the empty name."""
    means = frame.groupby(["curve", "seed"], sort=True)[measure].mean()
    by_curve = {str(curve): rows.droplevel("curve") for curve, rows in means.groupby(level="curve")}
    return {"": means.iloc[:0].droplevel("curve"), **by_curve}


def gain(high: "BySeed", low: "BySeed") -> "BySeed":
    """Returns the difference by seed, of those that both have; empty if these are not the first ones."""
    found = analysis.comparisons.paired(high, low)
    return high.iloc[:0] if found is None else cast("BySeed", found)


def better(high: str, low: str, means: Means) -> Iterator[analysis.Comparison]:
    """One curve has a higher score than another, and cooperates in more seeds."""
    yield analysis.above(f"score: {high} > {low}", means.score(high), means.score(low), REWARD)
    more, fewer = means.cooperates(high), means.cooperates(low)
    yield analysis.more_often(f"share of seeds that cooperate: {high} > {low}", more, fewer, SHARE)


def fails(curve: str, means: Means) -> Iterator[analysis.Comparison]:
    """A curve has a score below −1.5, and most of its seeds don't cooperate."""
    yield analysis.at_most(f"score: {curve} < −1.5", means.score(curve), -1.5, REWARD)
    cooperates = means.cooperates(curve)
    label = f"share of seeds, {curve}: that don't cooperate > that do"
    yield analysis.more_often(label, 1 - cooperates, cooperates, SHARE)


def far_more_accurate(means: Means) -> Iterator[analysis.Comparison]:
    """An exact inner gradient adds 0.2 to the accuracy that 1024 trajectories have."""
    more = gain(means.accuracy(EXACT), means.accuracy(MANY))
    yield analysis.at_least("accuracy with exact outer: exact − 1024 > 0.2", more, 0.2, ACCURACY)


def gains_little(means: Means) -> Iterator[analysis.Comparison]:
    """An exact inner gradient adds less to 1024 trajectories than these do to 128, in score and in cooperation."""
    for name, of, metric in (
        ("score", means.score, REWARD),
        ("share of seeds that cooperate", means.cooperates, GAIN),
    ):
        few, many, exact = of(FEW), of(MANY), of(EXACT)
        yield analysis.above(f"{name}: 1024 − 128 > exact − 1024", gain(many, few), gain(exact, many), metric)


def more_accurate(high: str, low: str, means: Means) -> Iterator[analysis.Comparison]:
    """One curve has the higher accuracy with an exact outer gradient."""
    label = f"accuracy with exact outer: {high} > {low}"
    yield analysis.above(label, means.accuracy(high), means.accuracy(low), ACCURACY)


def no_better(first: str, second: str, means: Means) -> Iterator[analysis.Comparison]:
    """The score of one curve is above another's by less than what matters, or is not above it."""
    more = gain(means.score(first), means.score(second))
    yield analysis.at_most(f"score: {first} − {second} < {REWARD.delta}", more, REWARD.delta, REWARD)


def as_accurate(first: str, second: str, means: Means) -> Iterator[analysis.Comparison]:
    """Two curves have about the same accuracy with an exact outer gradient."""
    label = f"accuracy with exact outer: {first} ≈ {second}"
    yield analysis.alike(label, means.accuracy(first), means.accuracy(second), ACCURACY)


def hidden_by_the_hessian(means: Means) -> Iterator[analysis.Comparison]:
    """An exact composition adds more to the accuracy where the Hessian is exact than where it is sampled."""
    pairs = (EXACT, SES), (ESS, BASE)
    exact, sampled = (gain(means.accuracy(high), means.accuracy(low)) for high, low in pairs)
    label = "accuracy with exact outer, gain of an exact composition: Hessian exact > Hessian with 128"
    yield analysis.above(label, exact, sampled, ACCURACY)


def less_error(measure: str, low: str, high: str, means: Means) -> Iterator[analysis.Comparison]:
    """A squared error of one curve is below another's."""
    label = f"{ERRORS[measure]}: {high} > {low}"
    yield analysis.ratio_above(label, means.error(measure, high), means.error(measure, low), VARIANCE)


def some_above(score: float, curve: str, means: Means) -> Iterator[analysis.Comparison]:
    """Some seeds of a curve have a score above a number."""
    reached = means.above(score, curve)
    label = f"share of seeds, {curve}: with a score above {written(score)} > 0"
    yield analysis.more_often(label, reached, 0 * reached, SHARE)


def some_below(score: float, curve: str, means: Means) -> Iterator[analysis.Comparison]:
    """Some seeds of a curve have a score that is not above a number."""
    missed = 1 - means.above(score, curve)
    label = f"share of seeds, {curve}: with a score of at most {written(score)} > 0"
    yield analysis.more_often(label, missed, 0 * missed, SHARE)


def written(number: float) -> str:
    """Returns a number as people write it."""
    return f"{number:g}".replace("-", "−")


FEW, MANY, EXACT = (f"inner={size} outer=128" for size in ("128", "1024", "exact"))
BASE, SES, ESS = "comp=128 hessian=128", "comp=128 hessian=exact", "comp=exact hessian=128"
ON, OFF, OFF_ON, ON_OFF = (
    f"comp={c} hessian={h}" for c, h in (("on", "on"), ("off", "off"), ("off", "on"), ("on", "off"))
)
LARGER = ("1024", "exact")
COMPOSITIONS = tuple(f"comp={size} hessian=128" for size in ("128", *LARGER))
CLAIMS: tuple[Claim[Means], ...] = (
    Claim(
        "LOLA-1",
        "inner 128 / outer 128 fails to cooperate, inner 1024 / outer 128 does far better",
        (partial(fails, FEW), partial(better, MANY, FEW)),
    ),
    Claim("LOLA-2", "the outer estimate matters too", (partial(better, "inner=exact outer=exact", EXACT),)),
    Claim(
        "LOLA-3",
        "composition with 1024 samples or exact beats 128, Hessian at 128",
        tuple(partial(better, f"comp={size} hessian=128", BASE) for size in LARGER),
    ),
    Claim(
        "LOLA-4",
        "Hessian with 1024 samples or exact beats 128, and by more than the composition gains",
        (
            *(partial(better, f"comp=128 hessian={size}", BASE) for size in LARGER),
            *(partial(better, f"comp=128 hessian={size}", f"comp={size} hessian=128") for size in LARGER),
        ),
    ),
    Claim(
        "LOLA-5",
        "each of off/off, off/on, on/off beats on/on",
        tuple(partial(better, replayed, ON) for replayed in (OFF, OFF_ON, ON_OFF)),
    ),
    Claim(
        "LOLA-6",
        "an exact inner gradient raises accuracy a lot, yet the return only a little",
        (far_more_accurate, gains_little),
    ),
    Claim(
        "LOLA-7",
        "a higher correlation does not guarantee a higher return",
        (partial(more_accurate, EXACT, MANY), partial(no_better, EXACT, MANY)),
    ),
    Claim(
        "LOLA-8",
        "compositions with 128, 1024 samples or exact have comparable correlations, Hessian at 128",
        tuple(partial(as_accurate, *pair) for pair in combinations(COMPOSITIONS, 2)),
    ),
    Claim(
        "LOLA-9",
        "off/on gains little correlation over on/on, yet performance",
        (partial(as_accurate, OFF_ON, ON), partial(better, OFF_ON, ON)),
    ),
    Claim(
        "LOLA-10",
        "replay lowers the Hessian's variance",
        tuple(partial(less_error, "hessian_error_sq", replayed, ON) for replayed in (OFF, ON_OFF)),
    ),
    Claim(
        "LOLA-11",
        "replay lowers the error of composition",
        tuple(partial(less_error, "composition_error_sq", replayed, ON) for replayed in (OFF, OFF_ON)),
    ),
    Claim(
        "LOLA-12",
        "performance is highly sensitive to the seed",
        (partial(some_above, COOPERATES, FEW), partial(some_below, FAILS, FEW)),
    ),
    Claim(
        "LOLA-13",
        "both agents can reach social welfare, (−1, −1)",
        (partial(some_above, WELFARE - REWARD.delta, MANY),),
    ),
    Claim(
        "LOLA-14",
        "the gain of a corrected composition is not obvious because the Hessian's variance is large",
        (hidden_by_the_hessian,),
    ),
)


def claims(settings: Settings, frame: "pd.DataFrame") -> list[analysis.Verdict]:
    """Returns the verdicts on the paper's claims, which are about its own prisoner's dilemma."""
    its_game = game_of(settings).matrix_game().payoffs == Game().matrix_game().payoffs
    return verdicts(frame) if its_game and settings.figure != ("debias",) else []


def verdicts(frame: "pd.DataFrame") -> list[analysis.Verdict]:
    """Returns the verdicts on `CLAIMS`; none is decided before the last updates are in."""
    updates = frame["update"].max()
    enough = updates >= LAST
    means = Means(frame if enough else frame.iloc[:0])
    decided = [claim.verdict(means) for claim in CLAIMS]
    if enough:
        return decided
    return [replace(verdict, measured=f"{updates} updates, expected at least {LAST}") for verdict in decided]
