"""The paper's claims on LOLA-1 to LOLA-6, as docs/claims.toml says they are decided."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import gm_lab
from gm_experiments.lola.figures import LAST, last_updates
from gm_experiments.lola.settings import Game, Settings, game_of

if TYPE_CHECKING:
    import pandas as pd


class Means:
    """Each curve's mean of every seed: of the score in the last updates, of the accuracy in all.

    Args:
        frame: results.csv.
    """

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


Check = Callable[[Means], gm_lab.Comparison]


@dataclass(frozen=True)
class Claim:
    """A claim that holds if all of its comparisons do."""

    id: str
    text: str
    checks: tuple[Check, ...]


def better(high: str, low: str) -> Check:
    """The score of one curve is above another's."""
    return lambda means: gm_lab.above(f"{high} > {low}", means.score(high), means.score(low))


def below(curve: str, bound: float) -> Check:
    """The score of a curve is below a bound."""
    label = f"{curve}: score < {bound}".replace("-", "−")
    return lambda means: gm_lab.at_most(label, means.score(curve), bound)


def more_accurate(label: str, high: str, low: str, least: float) -> Check:
    """The accuracy of one curve is above another's by a bound."""
    return lambda means: gm_lab.at_least(label, means.accuracy(high) - means.accuracy(low), least)


def gains_more(label: str, first: tuple[str, str], second: tuple[str, str]) -> Check:
    """The score gains more from one change than from another."""
    return lambda means: gm_lab.above(label, means.gain(*first), means.gain(*second))


FEW, MANY, EXACT = (f"inner={size} outer=128" for size in ("128", "1024", "exact"))
BASE, ON = "comp=128 hessian=128", "comp=on hessian=on"
LARGER = ("1024", "exact")
CLAIMS = (
    Claim(
        "LOLA-1",
        "inner 128 / outer 128 fails to cooperate, inner 1024 / outer 128 does far better",
        (below(FEW, -1.5), better(MANY, FEW)),
    ),
    Claim("LOLA-2", "the outer estimate matters too", (better("inner=exact outer=exact", EXACT),)),
    Claim(
        "LOLA-3",
        "composition with 1024 samples or exact beats 128, Hessian at 128",
        tuple(better(f"comp={size} hessian=128", BASE) for size in LARGER),
    ),
    Claim(
        "LOLA-4",
        "Hessian with 1024 samples or exact beats 128, and by more than the composition gains",
        (
            *(better(f"comp=128 hessian={size}", BASE) for size in LARGER),
            *(better(f"comp=128 hessian={size}", f"comp={size} hessian=128") for size in LARGER),
        ),
    ),
    Claim(
        "LOLA-5",
        "each of off/off, off/on, on/off beats on/on",
        tuple(better(f"comp={c} hessian={h}", ON) for c, h in (("off", "off"), ("off", "on"), ("on", "off"))),
    ),
    Claim(
        "LOLA-6",
        "an exact inner gradient raises accuracy a lot, yet the return only a little",
        (
            more_accurate("accuracy with exact outer: exact − 1024 > .2", EXACT, MANY, 0.2),
            gains_more("score: 1024 − 128 > exact − 1024", (MANY, FEW), (EXACT, MANY)),
        ),
    ),
)


def claims(settings: Settings, frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """Returns the verdicts on the paper's claims, which are about its own prisoner's dilemma."""
    its_game = game_of(settings).matrix_game().payoffs == Game().matrix_game().payoffs
    return verdicts(frame) if its_game and settings.figure != ("debias",) else []


def verdicts(frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """Returns the verdicts on `CLAIMS`; none is decided before the last updates are in."""
    updates = frame["update"].max()
    enough = updates >= LAST
    means = Means(frame if enough else frame.iloc[:0])
    decided = [gm_lab.decided(claim.id, claim.text, [check(means) for check in claim.checks]) for claim in CLAIMS]
    if enough:
        return decided
    return [replace(verdict, measured=f"{updates} updates, expected at least {LAST}") for verdict in decided]
