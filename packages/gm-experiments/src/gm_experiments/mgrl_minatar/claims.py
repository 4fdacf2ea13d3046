"""The paper's claims about MGRL at MinAtar's scale, as docs/claims.toml says they are decided."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.claims import GAME_RETURN, Claim
from gm_experiments.common.findings import joined
from gm_experiments.mgrl.training import NAMES
from gm_experiments.mgrl_minatar.findings import SYMBOLS
from gm_experiments.mgrl_minatar.scores import UNITS, final_coefficients, final_returns
from gm_experiments.mgrl_minatar.settings import GAMES, Settings
from gm_lab.analysis import Comparison, Verdict, at_least, looks, mean_interval, next_look
from gm_lab.analysis.claims import together
from gm_lab.analysis.comparisons import Outcome

if TYPE_CHECKING:
    import pandas as pd

STEPS = 1_000_000
NEEDED = {"inner_steps": 3, "estimator": None}
"""Settings with which the claims are about the paper's algorithms."""
SMALL = 0.1
"""A difference of a logit that doesn't matter: 0.001 of γ = 0.99, 0.025 of a coefficient of 0.5."""
CONFIDENCE = 1 - 0.05 / (len(NAMES) * len(GAMES))
LEAST, FIRST, FURTHEST, TINY = 2, 10, 10 * 2**16, 1e-12


class Runs:
    """They are the logged runs, compared by what is left at their ends."""

    def __init__(self, log: "pd.DataFrame") -> None:
        self._returns = final_returns(log)
        self._coefficients = {name: final_coefficients(log, name) for name in NAMES}

    def seeds(self) -> dict[str, int]:
        """How many seeds of both algorithms each of the five games has."""
        gains = self.gains()
        return {game: int(gains[game].notna().sum()) if game in gains else 0 for game in GAMES}

    def gains(self) -> "pd.DataFrame":
        """By how much LVC's final return is above AD's, by seed and game, in units of the game."""
        import pandas as pd

        return pd.DataFrame({game: self._gain(self._returns, game) / UNITS[game] for game in self.games})

    def moved(self, game: str, name: str) -> "pd.Series[float]":
        """By how much LVC's final logit of a coefficient is above AD's, by seed."""
        return self._gain(self._coefficients[name], game).dropna()

    @property
    def games(self) -> list[str]:
        """Those with runs of both."""
        return [game for game in GAMES if {(game, "mgrl"), (game, "mgrl-lvc")} <= {*self._returns}]

    @staticmethod
    def _gain(table: "pd.DataFrame", game: str) -> "pd.Series[float]":
        gain: pd.Series[float] = table[game, "mgrl-lvc"] - table[game, "mgrl"]
        return gain


def not_worse(runs: Runs) -> Iterator[Comparison]:
    """LVC's final returns are not below AD's by more than a little, game by game and in the mean over games."""
    gains = runs.gains()
    for game in GAMES:
        yield at_least(f"{game}: MGRL + LVC less MGRL", gains[game].dropna(), -GAME_RETURN.delta, GAME_RETURN)
    yield at_least("mean over games", gains.dropna().mean(axis=1), -GAME_RETURN.delta, GAME_RETURN)


RETURNS = Claim(
    "MINATAR-1",
    "3-step MGRL with LVC ends no worse than 3-step MGRL, by more than a twentieth of a game's unit, in all five games",
    (not_worse,),
    examples=6,
)
PATHS = "in each game LVC drives γ, λ, the value or the entropy coefficient elsewhere than AD does"


def claims(settings: Settings, frame: "pd.DataFrame") -> list[Verdict]:
    """Returns the verdicts on MINATAR-1 and MINATAR-2; runs count only if they are long enough, and the paper's."""
    lacking = [f"--{name.replace('_', '-')} {value}" for name, value in NEEDED.items() if _other(settings, name)]
    lacking += [f"--env-steps {STEPS:_}"] if settings.env_steps < STEPS else []
    if lacking:
        needed = f"needs {', '.join(lacking).replace('--estimator None', 'no --estimator')}, of all games"
        return [Verdict(name, words, "not measured", needed) for name, words in _words().items()]
    runs = Runs(frame)
    if min(runs.seeds().values()) < LEAST:
        there = joined(f"{count} in {game}" for game, count in runs.seeds().items())
        needed = f"needs {FIRST} seeds of both algorithms in each game for a first look; there are {there}"
        return [Verdict(name, words, "not measured", needed) for name, words in _words().items()]
    return [RETURNS.verdict(runs), paths(runs)]


def _other(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, name) != NEEDED[name])


def _words() -> dict[str, str]:
    return {RETURNS.id: RETURNS.words, "MINATAR-2": PATHS}


def paths(runs: Runs) -> Verdict:
    """In each game some coefficient's final logit differs: supported if it does in all, contradicted if in one not."""
    found = [_in_game(runs, game) for game in GAMES]
    outcome = together([outcome for outcome, _, _ in found])
    said = "; ".join(words for _, words, _ in found)
    if outcome == "undecided":
        seeds = max(seeds for outcome, _, seeds in found if outcome == "undecided")
        wanted = f"about {seeds:,.0f} seeds" if seeds < math.inf else f"more than {FURTHEST:,} seeds"
        said = f"{wanted} would decide it if the means stay what they are; {said}"
    return Verdict("MINATAR-2", PATHS, outcome, said)


def _in_game(runs: Runs, game: str) -> tuple[Outcome, str, float]:
    """Whether some coefficient ends apart in a game, with the clearest difference, and at how many seeds it is told.

    The intervals of all games and coefficients hold together, by Bonferroni, and are those of a look of
    `gm_lab.analysis.decisions`.
    """
    differences = {name: runs.moved(game, name) for name in NAMES}
    seeds = min(map(len, differences.values()))
    at = (looks(seeds) or [seeds])[-1]
    found = {name: mean_interval(values[:at], CONFIDENCE) for name, values in differences.items()}
    clearest = max(NAMES, key=lambda name: abs(found[name].mean) / max(found[name].high - found[name].mean, TINY))
    words = f"{game}: logit of the {SYMBOLS[clearest]} {found[clearest]}"
    if looks(seeds):
        if any(interval.low > 0 or interval.high < 0 for interval in found.values()):
            return "supported", words, seeds
        if all(interval.low > -SMALL and interval.high < SMALL for interval in found.values()):
            return "contradicted", words, seeds
    return "undecided", words, _wanted(differences[clearest])


def _wanted(values: "pd.Series[float]") -> float:
    """At how many seeds the interval would leave out zero, if more of them are as these are."""
    seeds = next_look(len(values)) if looks(len(values)) else FIRST
    while seeds < FURTHEST:
        interval = mean_interval(np.resize(values.to_numpy(), seeds), CONFIDENCE)
        if interval.low > 0 or interval.high < 0:
            return seeds
        seeds *= 2
    return math.inf
