"""What apps/mgrl_atari.py makes of its rows: progress lines, verdicts on MGRL-1 to MGRL-3, closing table."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import gm_lab
from gm_lab import Comparison, Verdict, decided
from gm_mgrl_atari import NAMES, PAPER_GAMES, PARTS, rom_name

if TYPE_CHECKING:
    import pandas as pd

Row = gm_lab.Row
KEY = ("figure", "game", "algorithm", "seed", "updates", "variant")
PROGRESS = ("env_steps", "emulated_steps", "episode_return", "episode_length", "episodes", *NAMES)
TERMS = ("policy_term", "value_term", "entropy_term")
RATES = ("steps_per_second", "emulator_steps_per_second", "learner_steps_per_second")
QUALITY = ("windows", "accuracy", "bias_sq", "variance", "distance", *(f"gradient_{name}" for name in NAMES))
SECONDS = tuple(f"seconds_{part.replace(' ', '_')}" for part in PARTS)
"""Wall time of a run's parts, since it was last begun."""
COLUMNS = (*KEY, *PROGRESS, *TERMS, *RATES, *SECONDS, *QUALITY)
CURVE = ("figure", "game", "algorithm", "seed")
WATCHED = (*PROGRESS[1:], *TERMS, "steps_per_second")
FINAL = 0.9
"""Returns from this part of a run on count as its final ones."""
ENOUGH_SEEDS, ENOUGH_STEPS = 5, 39_000_000
ROUNDING = 1e-4


def completed(row: Row) -> Row:
    """The row with every column: no text where there is none, NaN where there is no number."""
    return {column: row.get(column, "" if column == "variant" else math.nan) for column in COLUMNS}


def tell(text: str) -> None:
    """Shows a line beside the progress."""
    print(f"mgrl_atari: {text}", file=sys.stderr, flush=True)


class Teller:
    """Shows a run's progress every ten seconds."""

    def __init__(self, label: str, updates: int) -> None:
        self._label, self._updates, self._shown = label, updates, time.monotonic()

    def __call__(self, row: Mapping[str, str | int | float]) -> None:
        """Shows a row of the log, unless one has just been shown."""
        now = time.monotonic()
        if now - self._shown < 10 and row["updates"] != self._updates:
            return
        self._shown = now
        tell(
            f"{self._label}: {row['updates']}/{self._updates} updates, return {row['episode_return']:.4g}, "
            f"γ {row['gamma']:.4f}, λ {row['gae_lambda']:.4f}, {row['steps_per_second']:.0f} steps/s"
        )


def mean_rate(log: Sequence[Mapping[str, str | int | float]]) -> Row:
    """Steps per second of the whole run, from the rates of its parts."""
    before, seconds = 0.0, 0.0
    for row in log:
        seconds += (float(row["emulated_steps"]) - before) / float(row["steps_per_second"])
        before = float(row["emulated_steps"])
    return {"steps_per_second": before / seconds, "emulated_steps": before, "updates": log[-1]["updates"]}


def games_of(frame: "pd.DataFrame") -> list[str]:
    """The games of some rows."""
    return list(frame["game"].unique())


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Per game and algorithm, means over seeds: final return and meta-parameters, throughput beside its parts."""
    import pandas as pd

    rates = frame[frame["figure"] == "throughput"].groupby(["game", "algorithm"])[list(RATES)].mean()
    final = final_rows(frame[frame["figure"] == "returns"])
    learnt = final.groupby(["game", "algorithm"])[["episode_return", *NAMES]].mean()
    table = pd.concat([learnt, rates], axis=1)
    table.insert(0, "run", [f"{game} {algorithm}" for game, algorithm in table.index])
    names = {"episode_return": "return", "gamma": "γ", "gae_lambda": "λ", "value_coef": "c_v", "entropy_coef": "c_e"}
    names |= {
        "steps_per_second": "steps/s",
        "emulator_steps_per_second": "emulator",
        "learner_steps_per_second": "learner",
    }
    return table.rename(columns=names)


def final_rows(log: "pd.DataFrame") -> "pd.DataFrame":
    """The last tenth of every run."""
    ends = log.groupby(["game", "algorithm", "seed"])["env_steps"].transform("max")
    return log[log["env_steps"] >= FINAL * ends]


def claims(frame: "pd.DataFrame") -> list[Verdict]:
    """Verdicts on MGRL-1 to MGRL-3, as docs/claims.toml states them."""
    log = frame[frame["figure"] == "returns"]
    return [_mgrl_1(log), _mgrl_2(log), _mgrl_3(frame[frame["figure"] == "gradient"])]


def _per_seed(log: "pd.DataFrame", game: str, algorithm: str, value: str) -> "pd.Series[float]":
    rows = log[(log["game"] == game) & (log["algorithm"] == algorithm)]
    return gm_lab.per_unit(final_rows(rows).dropna(subset=[value]), value, "seed")


def _enough(first: "pd.Series[float]", second: "pd.Series[float]", log: "pd.DataFrame") -> bool:
    return (
        len(first) >= ENOUGH_SEEDS
        and list(first.index) == list(second.index)
        and bool((log.groupby(["algorithm", "seed"])["env_steps"].max() >= ENOUGH_STEPS).all())
    )


def _mgrl_1(log: "pd.DataFrame") -> Verdict:
    text = "3-step MGRL with LVC ≥ 3-step MGRL in almost all of the paper's eight games"
    played = {rom_name(game): game for game in games_of(log)}
    outcomes = []
    for name in PAPER_GAMES:
        game = played.get(rom_name(name), name)
        lvc, ad = (_per_seed(log, game, algorithm, "episode_return") for algorithm in ("mgrl-lvc", "mgrl"))
        if not _enough(lvc, ad, log[log["game"] == game]):
            outcomes.append(Comparison(name, None, "no data"))
            continue
        difference = gm_lab.paired_difference(lvc, ad)
        outcomes.append(Comparison(name, difference.high >= 0, f"difference {difference}"))
    if any(outcome.holds is None for outcome in outcomes):
        told = sum(outcome.holds is not None for outcome in outcomes)
        needed = f"{ENOUGH_SEEDS} seeds of 40M steps of both algorithms in all eight games"
        return Verdict("MGRL-1", text, None, f"{told} of 8 games have enough data; needs {needed}")
    holds = sum(outcome.holds is True for outcome in outcomes)
    numbers = "; ".join(f"{outcome.label} {outcome.detail}" for outcome in outcomes)
    return Verdict("MGRL-1", text, holds >= 7, f"not worse in {holds} of 8 games. {numbers}")


def _mgrl_2(log: "pd.DataFrame") -> Verdict:
    text = "the two drive γ, λ, value and entropy coefficients along different paths"
    outcomes = []
    for game in games_of(log):
        differences = {}
        for name in NAMES:
            lvc, ad = (_per_seed(log, game, algorithm, name) for algorithm in ("mgrl-lvc", "mgrl"))
            if _enough(lvc, ad, log[log["game"] == game]):
                differences[name] = gm_lab.paired_difference(lvc, ad)
        apart = [name for name, d in differences.items() if d.low > 0 or d.high < 0]
        detail = ", ".join(f"{name} {d}" for name, d in differences.items()) or "no data"
        outcomes.append(
            Comparison(f"{game}: some coefficient ends apart", bool(apart) if differences else None, detail)
        )
    return decided("MGRL-2", text, outcomes)


def _mgrl_3(rows: "pd.DataFrame") -> Verdict:
    """In float32, whose rounding stays below `ROUNDING`; tests hold the equality to 1e-12 in float64."""
    text = "K=1: AD and LVC give the same meta-gradient; K>1: they differ"
    one, several = (rows[rows["variant"] == name]["distance"] for name in ("lvc, K=1", "lvc"))
    if one.empty or several.empty:
        return decided("MGRL-3", text, [Comparison("relative distance of LVC to AD", None, "no data")])
    return decided(
        "MGRL-3",
        text,
        [
            Comparison("relative distance of LVC to AD for K=1", bool(one.max() < ROUNDING), f"{one.max():.2g}"),
            Comparison("and for K>1", bool(several.min() > ROUNDING), f"{several.min():.2g}"),
        ],
    )
