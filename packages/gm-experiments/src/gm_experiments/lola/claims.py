"""The paper's claims on LOLA-1 to LOLA-6, as docs/claims.toml says they are decided."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gm_experiments.common.claims import ACCURACY, REWARD, Claim
from gm_experiments.lola.figures import LAST, last_updates
from gm_experiments.lola.settings import Game, Settings, game_of
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd


class Means:
    """Each curve's mean of every seed: of the score in the last updates, of the accuracy in all."""

    def __init__(self, frame: "pd.DataFrame") -> None:
        self._score = _by_curve(last_updates(frame), "score")
        self._accuracy = _by_curve(frame, "accuracy_outer_exact")

    def score(self, curve: str) -> "pd.Series[float]":
        """Returns the reward per round by seed; empty if the curve was not measured."""
        return self._score.get(curve, self._score[""])

    def accuracy(self, curve: str) -> "pd.Series[float]":
        """Returns the accuracy with an exact outer gradient by seed; empty if the curve was not measured."""
        return self._accuracy.get(curve, self._accuracy[""])

    def gain(self, high: str, low: str) -> "pd.Series[float]":
        """Returns by how much one score is above another, by seed."""
        return self.score(high) - self.score(low)


def _by_curve(frame: "pd.DataFrame", measure: str) -> "dict[str, pd.Series[float]]":
    """Means over updates, by curve and seed; an empty one under the empty name."""
    means = frame.groupby(["curve", "seed"], sort=True)[measure].mean()
    by_curve = {str(curve): rows.droplevel("curve") for curve, rows in means.groupby(level="curve")}
    return {"": means.iloc[:0].droplevel("curve"), **by_curve}


def better(high: str, low: str, means: Means) -> Iterator[analysis.Comparison]:
    """The score of one curve is above another's."""
    yield analysis.above(f"{high} > {low}", means.score(high), means.score(low), REWARD)


def fails(curve: str, means: Means) -> Iterator[analysis.Comparison]:
    """The score of a curve is below −1.5."""
    yield analysis.at_most(f"{curve}: score < −1.5", means.score(curve), -1.5, REWARD)


def far_more_accurate(means: Means) -> Iterator[analysis.Comparison]:
    """An exact inner gradient adds .2 to the accuracy that 1024 trajectories have."""
    gain = means.accuracy(EXACT) - means.accuracy(MANY)
    yield analysis.at_least("accuracy with exact outer: exact − 1024 > .2", gain, 0.2, ACCURACY)


def gains_little(means: Means) -> Iterator[analysis.Comparison]:
    """An exact inner gradient adds less to the score of 1024 trajectories than these do to that of 128."""
    yield analysis.above("score: 1024 − 128 > exact − 1024", means.gain(MANY, FEW), means.gain(EXACT, MANY), REWARD)


FEW, MANY, EXACT = (f"inner={size} outer=128" for size in ("128", "1024", "exact"))
BASE, ON = "comp=128 hessian=128", "comp=on hessian=on"
LARGER = ("1024", "exact")
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
        tuple(partial(better, f"comp={c} hessian={h}", ON) for c, h in (("off", "off"), ("off", "on"), ("on", "off"))),
    ),
    Claim(
        "LOLA-6",
        "an exact inner gradient raises accuracy a lot, yet the return only a little",
        (far_more_accurate, gains_little),
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
