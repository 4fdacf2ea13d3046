"""What apps/mgrl_atari.py makes of its rows: progress lines, verdicts on MGRL-1 to MGRL-3, closing table."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import gm_lab
from gm_lab import Comparison, Verdict, decided
from gm_mgrl_atari import NAMES, PAPER_GAMES, PARTS, rom_name, study

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Row = gm_lab.Row
KEY = ("figure", "game", "algorithm", "seed", "updates", "variant")
PROGRESS = ("env_steps", "emulated_steps", "episode_return", "episode_length", "episodes", *NAMES)
TERMS = ("policy_term", "value_term", "entropy_term")
RATES = ("steps_per_second", "emulator_steps_per_second", "learner_steps_per_second")
MEASURES, ENDS = ("accuracy", "bias_sq", "variance", "change"), ("", "_low", "_high")
"""Of meta-gradients, and the ends of their intervals."""
QUALITY = (
    "windows",
    *(f"{measure}{end}" for measure in MEASURES for end in ENDS),
    "distance",
    *(f"gradient_{name}" for name in NAMES),
)
SECONDS = tuple(f"seconds_{part.replace(' ', '_')}" for part in PARTS)
"""Wall time of a run's parts, since it was last begun."""
COLUMNS = (*KEY, *PROGRESS, *TERMS, *RATES, *SECONDS, *QUALITY)
CURVE = ("figure", "game", "algorithm", "seed")
WATCHED = (*PROGRESS[1:], *TERMS, "steps_per_second")
FINAL = 0.9
"""Returns from this part of a run on count as its final ones."""
ENOUGH_SEEDS, ENOUGH_STEPS = 5, 39_000_000
ROUNDING = 1e-4
PAPER = {"estimator": None, "inner_steps": 3, "schedule": "discard"}
"""Settings with which MGRL-1 and MGRL-2 are about the paper's algorithms."""
MGRL_1 = ("MGRL-1", "3-step MGRL with LVC ≥ 3-step MGRL in almost all of the paper's eight games")
MGRL_2 = ("MGRL-2", "the two drive γ, λ, value and entropy coefficients along different paths")
MGRL_3 = ("MGRL-3", "K=1: AD and LVC give the same meta-gradient; K>1: they differ")


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
    """Per game and algorithm, means over seeds: final return and meta-parameters, steps per second."""
    import pandas as pd

    rates = _rates(frame)["steps_per_second"]
    final = final_rows(frame[frame["figure"] == "returns"])
    learnt = final.groupby(["game", "algorithm"])[["episode_return", *NAMES]].mean()
    table = pd.concat([learnt, rates], axis=1)
    table.insert(0, "run", [f"{game} {algorithm}" for game, algorithm in table.index])
    names = {"episode_return": "return", "gamma": "γ", "gae_lambda": "λ", "value_coef": "c_v", "entropy_coef": "c_e"}
    return table.rename(columns=names | {"steps_per_second": "steps/s"})


def _rates(frame: "pd.DataFrame") -> "pd.DataFrame":
    return frame[frame["figure"] == "throughput"].groupby(["game", "algorithm"])[list(RATES)].mean()


def throughputs(frame: "pd.DataFrame") -> "Table":
    """Environment steps per second of runs beside the emulator and the learner alone, means over seeds."""
    from rich.table import Table

    title = "Steps per second; per cent of 1/(1/emulator + 1/learner)"
    table = Table("run", "whole", "emulator alone", "learner alone", "per cent", title=title, title_justify="left")
    for game, algorithm, whole, emulator, learner in _rates(frame).reset_index().itertuples(index=False):
        part = 100 * whole * (1 / emulator + 1 / learner)
        table.add_row(f"{game} {algorithm}", *(f"{value:.4g}" for value in (whole, emulator, learner)), f"{part:.0f}")
    return table


def meta_gradients(frame: "pd.DataFrame") -> "list[Table]":
    """The meta-gradient's variants per game and point of a run; numbers and interval ends are means over seeds."""
    from rich.table import Table
    from rich.text import Text

    tables = []
    measured = frame[frame["figure"] == "gradient"]
    for game, updates in measured[["game", "updates"]].drop_duplicates().itertuples(index=False):
        rows = measured[(measured["game"] == game) & (measured["updates"] == updates)]
        table = Table(
            *("variant", "cosine", "bias", "deviation", "change"),
            title=f"{game}, meta-gradients after {updates:g} updates: {rows['windows'].max():g} windows, 95% intervals",
            caption="bias and standard deviation of one window, and change of the mean from lvc's, in lengths of the "
            f"mean of {study.REFERENCE}, the reference; 0 where the unbiased estimate of the square is below",
            title_justify="left",
            caption_justify="left",
        )
        means = rows.groupby("variant")[[*QUALITY]].mean()
        length = means.loc[study.REFERENCE, [f"gradient_{name}" for name in NAMES]].pow(2).sum()
        for variant in variants_of(rows):
            values = means.loc[variant]
            cells = [[values[f"{measure}{end}"] for end in ENDS] for measure in MEASURES]
            cells[1:3] = [[_root(square / length) for square in squares] for squares in cells[1:3]]
            table.add_row(variant, *(Text(f"{value:.2g}\n[{low:.2g}, {high:.2g}]") for value, low, high in cells))
        tables.append(table)
    return tables


def variants_of(rows: "pd.DataFrame") -> list[str]:
    """The variants in some rows, in the order of the study, the reference first."""
    return [variant.name for variant in study.VARIANTS if (rows["variant"] == variant.name).any()]


def _root(square: float) -> float:
    return square if math.isnan(square) else math.sqrt(max(square, 0.0))


def final_rows(log: "pd.DataFrame") -> "pd.DataFrame":
    """The last tenth of every run."""
    ends = log.groupby(["game", "algorithm", "seed"])["env_steps"].transform("max")
    return log[log["env_steps"] >= FINAL * ends]


def claims(frame: "pd.DataFrame", settings: Mapping[str, object]) -> list[Verdict]:
    """Verdicts on MGRL-1 to MGRL-3, as docs/claims.toml states them.

    Args:
        frame: results.csv.
        settings: of the run; returns count only where they are the paper's.
    """
    log = frame[frame["figure"] == "returns"]
    other = {name: settings[name] for name, value in PAPER.items() if settings[name] != value}
    measured = _mgrl_3(frame[frame["figure"] == "gradient"], settings["inner_steps"] != 1)
    if other:
        return [*(_of_other_settings(*claim, other) for claim in (MGRL_1, MGRL_2)), measured]
    return [_mgrl_1(log), _mgrl_2(log), measured]


def _of_other_settings(claim: str, text: str, other: Mapping[str, object]) -> Verdict:
    got = ", ".join(f"{name} {value}" for name, value in other.items())
    needed = ", ".join(f"{name} {PAPER[name]}" for name in other)
    return Verdict(claim, text, None, f"needs {needed}, as in the paper; this is with {got}")


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
        return Verdict(*MGRL_1, None, f"{told} of 8 games have enough data; needs {needed}")
    holds = sum(outcome.holds is True for outcome in outcomes)
    numbers = "; ".join(f"{outcome.label} {outcome.detail}" for outcome in outcomes)
    return Verdict(*MGRL_1, holds >= 7, f"not worse in {holds} of 8 games. {numbers}")


def _mgrl_2(log: "pd.DataFrame") -> Verdict:
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
    return decided(*MGRL_2, outcomes)


def _mgrl_3(rows: "pd.DataFrame", several_steps: bool) -> Verdict:
    """In float32, whose rounding stays below `ROUNDING`; tests hold the equality to 1e-12 in float64."""
    one, several = (rows[rows["variant"] == name]["distance"].dropna() for name in ("lvc, K=1", "lvc"))
    if one.empty or several.empty or not several_steps:
        return decided(*MGRL_3, [Comparison("relative distance of LVC to AD", None, "no data")])
    return decided(
        *MGRL_3,
        [
            Comparison("relative distance of LVC to AD for K=1", bool(one.max() < ROUNDING), f"{one.max():.2g}"),
            Comparison("and for K>1", bool(several.min() > ROUNDING), f"{several.min():.2g}"),
        ],
    )
