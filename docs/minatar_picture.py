"""Draws a picture of MinAtar from docs/mgrl_minatar.csv, or keeps there what a run has so far.

    uv run docs/minatar_picture.py docs/images/mgrl_minatar_returns.png returns
    uv run docs/minatar_picture.py --keep runs/minatar

The run is hours long, so that its results are kept: each of its finished runs, in parts of 50,000 steps. Beside them,
in docs/verdicts/, are the verdicts and the table of returns that follow from them.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gm_experiments.mgrl.findings import LABELS
from gm_experiments.mgrl.training import NAMES
from gm_experiments.mgrl_minatar import claims, figures
from gm_experiments.mgrl_minatar.findings import algorithms, played
from gm_experiments.mgrl_minatar.scores import final_returns, iqm_interval, scores
from gm_experiments.mgrl_minatar.settings import Settings
from gm_lab.analysis import mean_interval, save

DOCS = Path(__file__).parent
TABLE = DOCS / "mgrl_minatar.csv"
VERDICTS, RETURNS = (DOCS / "verdicts" / f"{name}.md" for name in ("mgrl_minatar", "mgrl_minatar_returns"))
PART = 50_000
RUN = ["figure", "game", "algorithm", "seed"]
LAST = ["updates", "env_steps", *NAMES]
OURS = Settings(games=("all",), env_steps=1_000_000, seeds=5)


def finished(run_dir: Path) -> pd.DataFrame:
    """The rows of a run directory's runs that came to their end, of the seeds that most of them have."""
    found = [
        pd.DataFrame(json.loads(cell.read_text(), parse_constant=float)["rows"])
        for cell in sorted((run_dir / "cells").glob("*.json"))
    ]
    rows = pd.concat(found, ignore_index=True)
    runs = rows.groupby("seed")["updates"].transform(lambda updates: (updates == updates.max()).sum())
    return rows[runs == runs.max()]


def in_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of 50,000 steps each: mean return of the episodes that ended in them, meta-parameters at their end."""
    part = (rows["env_steps"] - 1) // PART
    sums = rows.assign(
        part=part, total=rows["episode_return"] * rows["episodes"], seconds=1 / rows["steps_per_second"]
    ).groupby([*RUN, "part"])
    kept = sums[LAST].last()
    kept["episodes"] = sums["episodes"].sum()
    kept["episode_return"] = sums["total"].sum() / kept["episodes"].where(kept["episodes"] > 0)
    kept["steps_per_second"] = 1 / sums["seconds"].mean()
    return kept.reset_index().drop(columns="part")


def rows_of(table: Path = TABLE) -> pd.DataFrame:
    """What is kept."""
    return pd.read_csv(table)


def verdicts(rows: pd.DataFrame) -> str:
    """The verdicts as a table of the page."""
    lines = ["| claim | verdict | measured |", "|---|---|---|"]
    for verdict in claims.claims(OURS, rows):
        lines.append(f"| {verdict.id}: {verdict.claim} | **{verdict.verdict}** | {verdict.measured} |")
    return "\n".join(lines) + "\n"


def returns(rows: pd.DataFrame) -> str:
    """Final returns with their intervals as a table of the page."""
    names = algorithms(rows)
    lines = [f"| game | seeds | {' | '.join(LABELS[name] for name in names)} |", "|---|---|" + "---|" * len(names)]
    final = final_returns(rows)
    for game in played(rows):
        of_game = [final[game, name].dropna() if (game, name) in final else final.iloc[:0, 0] for name in names]
        counts = sorted({len(each) for each in of_game})
        seeds = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        shown = " | ".join(_shown(mean_interval(each)) if len(each) else "–" for each in of_game)
        lines.append(f"| {game} | {seeds} | {shown} |")
    whole = scores(rows)
    seeds, games = whole[names[0]].shape
    if seeds and games > 1:
        shown = " | ".join(_shown(iqm_interval(whole[name])) for name in names)
        lines.append(f"| interquartile mean of {games} games, in their units | {seeds} | {shown} |")
    return "\n".join(lines) + "\n"


def _shown(interval: object) -> str:
    mean, low, high = (getattr(interval, name) for name in ("mean", "low", "high"))
    return f"{mean:.2f}" + (f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else "")


def main(arguments: Sequence[str]) -> int:
    """Writes the picture, or the table and what follows from it."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("out", nargs="?", type=Path)
    asked.add_argument("name", nargs="?")
    asked.add_argument("--keep", type=Path)
    flags = asked.parse_args(arguments)
    if flags.keep:
        kept = in_parts(finished(flags.keep))
        kept.to_csv(TABLE, index=False, float_format="%.5g")
        VERDICTS.write_text(verdicts(rows_of()))
        RETURNS.write_text(returns(rows_of()))
        return 0
    save(figures.figures(OURS, rows_of())[flags.name], flags.out.with_suffix(""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
