"""The claims of the paper about MGRL, as docs/claims.toml says they are decided."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from gm_experiments.common.claims import Claim
from gm_experiments.mgrl.settings import PAPER_GAMES, Settings
from gm_experiments.mgrl.tables import final_rows, games_of
from gm_experiments.mgrl.training import NAMES
from gm_lab.analysis import Comparison, Interval, Units, Verdict, check, paired_difference
from gm_lab.analysis.comparisons import Outcome
from gm_mgrl_atari import rom_name

if TYPE_CHECKING:
    import pandas as pd

ENOUGH_SEEDS, ENOUGH_STEPS = 5, 39_000_000
MOST_GAMES = 7
"""So many of the paper's games are almost all of them."""
ROUNDING = 1e-4
"""Relative differences below it are rounding in float32; tests hold the equality to 1e-12 in float64."""
PAPER = {"estimator": None, "inner_steps": 3, "schedule": "discard"}
"""Settings with which MGRL-1 and MGRL-2 are about the paper's algorithms."""


class Runs:
    """They are the logged runs, compared by what is left at their ends."""

    def __init__(self, log: "pd.DataFrame") -> None:
        self.games = games_of(log)
        self._final = Units(final_rows(log), "seed")
        self._steps = log.groupby(["game", "algorithm", "seed"])["env_steps"].max().groupby("game").min().to_dict()

    def difference(self, game: str, value: str) -> Interval | None:
        """Compares LVC's runs of a game with AD's; there is nothing to compare if they are too few or too short."""
        lvc, ad = (self._final(value, game=game, algorithm=name).dropna() for name in ("mgrl-lvc", "mgrl"))
        paired = len(lvc) >= ENOUGH_SEEDS and list(lvc.index) == list(ad.index)
        return paired_difference(lvc, ad) if paired and self._steps[game] >= ENOUGH_STEPS else None


class Distances(NamedTuple):
    """They are LVC's relative distances to AD on the same windows, of one step and of the run's own number of steps."""

    one: list[float]
    several: list[float]


def not_worse(runs: Runs) -> Iterator[Comparison]:
    """LVC's final returns are at least AD's, game by game."""
    played = {rom_name(game): game for game in runs.games}
    for name in PAPER_GAMES:
        difference = runs.difference(played.get(rom_name(name), name), "episode_return")
        if difference is None:
            yield check(name, None, "no data")
        else:
            yield check(name, difference.high >= 0, f"difference {difference}")


def ends_apart(runs: Runs) -> Iterator[Comparison]:
    """Some coefficient of each game ends apart."""
    for game in runs.games:
        differences = {name: interval for name in NAMES if (interval := runs.difference(game, name))}
        apart = any(interval.low > 0 or interval.high < 0 for interval in differences.values())
        detail = ", ".join(f"{name} {interval}" for name, interval in differences.items()) or "no data"
        yield check(f"{game}: some coefficient ends apart", apart if differences else None, detail)


def differ_beyond_one_step(distances: Distances) -> Iterator[Comparison]:
    """LVC's meta-gradient is AD's for K = 1 and another for K > 1."""
    one, several = distances
    if not one or not several:
        yield check("relative distance of LVC to AD", None, "no data")
        return
    yield check("relative distance of LVC to AD for K=1", max(one) < ROUNDING, f"{max(one):.2g}")
    yield check("and for K>1", min(several) > ROUNDING, f"{min(several):.2g}")


RETURNS = Claim("MGRL-1", "3-step MGRL with LVC ≥ 3-step MGRL in almost all of the paper's eight games", (not_worse,))
PATHS = Claim("MGRL-2", "the two drive γ, λ, value and entropy coefficients along different paths", (ends_apart,))
GRADIENTS = Claim("MGRL-3", "K=1: AD and LVC give the same meta-gradient; K>1: they differ", (differ_beyond_one_step,))


def claims(settings: Settings, frame: "pd.DataFrame") -> list[Verdict]:
    """Returns the verdicts on MGRL-1 to MGRL-3."""
    return verdicts(vars(settings), frame)


def verdicts(settings: Mapping[str, object], frame: "pd.DataFrame") -> list[Verdict]:
    """Decides the claims; returns count only where the settings are the paper's."""
    other = {name: settings[name] for name, value in PAPER.items() if settings[name] != value}
    measured = frame[frame["figure"] == "gradient"].dropna(subset=["distance"]).groupby("variant")["distance"]
    one, several = (measured.agg(list).get(name, []) for name in ("lvc, K=1", "lvc"))
    gradients = GRADIENTS.verdict(Distances(one, several if settings["inner_steps"] != 1 else []))
    if other:
        return [*(_of_other_settings(claim, other) for claim in (RETURNS, PATHS)), gradients]
    runs = Runs(frame[frame["figure"] == "returns"])
    return [_in_almost_all(RETURNS, list(not_worse(runs))), PATHS.verdict(runs), gradients]


def _of_other_settings(claim: Claim[Runs], other: Mapping[str, object]) -> Verdict:
    got = ", ".join(f"{name} {value}" for name, value in other.items())
    needed = ", ".join(f"{name} {PAPER[name]}" for name in other)
    return Verdict(claim.id, claim.words, "not measured", f"needs {needed}, as in the paper; this is with {got}")


def _in_almost_all(claim: Claim[Runs], games: list[Comparison]) -> Verdict:
    """The claim needs all games and allows for one that fails."""
    told = sum(game.settled != "not measured" for game in games)
    if told < len(games):
        needed = f"{ENOUGH_SEEDS} seeds of 40M steps of both algorithms in all eight games"
        return Verdict(claim.id, claim.words, "not measured", f"{told} of 8 games have enough data; needs {needed}")
    fine = sum(game.settled == "supported" for game in games)
    numbers = "; ".join(f"{game.label} {game.detail}" for game in games)
    outcome: Outcome = "supported" if fine >= MOST_GAMES else "contradicted"
    return Verdict(claim.id, claim.words, outcome, f"not worse in {fine} of 8 games. {numbers}")
