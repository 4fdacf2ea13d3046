"""A cell trains one run, or goes on training it, and returns the rows of its log."""

import contextlib
import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

import gm_lab
import gm_mgrl_atari as mgrl
from gm_experiments.common.checks import require_finite
from gm_experiments.mgrl.settings import TERMS
from gm_experiments.mgrl.training import NAMES
from gm_experiments.mgrl_minatar.problem import environments, network
from gm_experiments.mgrl_minatar.settings import LOGGED, MinAtarCell, Settings, completed

KEPT = {-1: 2**30, -3: 2**28}
"""Bytes from which glibc gives freed memory back (M_TRIM_THRESHOLD), and maps pieces by themselves (M_MMAP_…)."""


@dataclass(frozen=True)
class MinAtarContext(gm_lab.Context):
    """It also says how often a run writes checkpoints, in seconds."""

    checkpoint_seconds: float = 120.0


def prepare(settings: Settings) -> MinAtarContext:
    """One thread for each worker, since the workers fill the cores."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return MinAtarContext(settings.run_dir, checkpoint_seconds=60 * settings.checkpoint_minutes)


def keep_freed_memory() -> None:
    """Lets the C library keep freed memory for what comes next, if it is glibc.

    An update frees some megabytes and takes them again; that they are mapped anew each time costs MGRL a tenth.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, size in KEPT.items():
            library.mallopt(option, size)


def run_cell(cell: MinAtarCell, context: MinAtarContext) -> list[gm_lab.Row]:
    """Computes the rows of results.csv of one run."""
    common: gm_lab.Row = {"figure": "returns", "game": cell.game, "algorithm": cell.training.algorithm}
    common["seed"] = cell.seed
    log = trainer_of(cell, context).run(
        log_every=max(cell.training.updates // LOGGED, 1), checkpoint_seconds=context.checkpoint_seconds,
        on_row=watched(cell, context, common),
    )  # fmt: skip
    rows: list[gm_lab.Row] = [{**common, **row} for row in log]
    require_finite(rows, (*NAMES, *TERMS), "--inner-lr", "--meta-lr")
    return [completed(row) for row in rows]


def trainer_of(cell: MinAtarCell, context: MinAtarContext) -> mgrl.Trainer:
    """Makes the trainer, which goes on from the run's checkpoint; `BadInput` if there are some, but none is usable."""
    # the same environments and the same θ⁰ for all algorithms, so that they are compared seed by seed
    seed = gm_lab.seed_of(cell.root_seed, cell.game, cell.seed, "games") % 2**30
    games = environments(cell.game, cell.training.envs, seed)
    try:
        return mgrl.Trainer(
            cell.training,
            games,
            network=network(games, conditioned=cell.training.conditioned),
            seed=gm_lab.seed_of(cell.root_seed, cell.game, cell.seed, "policy") % 2**30,
            folder=context.run_dir and context.run_dir / "training" / label_of(cell),
            warn=tell,
        )
    except mgrl.CheckpointError as error:
        raise gm_lab.BadInput(str(error)) from error


def label_of(cell: MinAtarCell) -> str:
    """Names a run in its folder."""
    return f"{cell.game}-{cell.training.algorithm}-{cell.seed}"


def watched(cell: MinAtarCell, context: MinAtarContext, common: gm_lab.Row) -> Callable[[dict[str, int | float]], None]:
    """Makes what is called with each row of the log: it tells progress, and leaves the row where others look for it."""
    live = context.run_dir and gm_lab.LiveRows(context.run_dir, cell, step="env_steps")

    def on_row(row: dict[str, int | float]) -> None:
        gm_lab.progressed(row["updates"], cell.training.updates)
        if live:
            live.append({**common, **row})

    return on_row


def tell(text: str) -> None:
    """Shows a line beside the progress."""
    print(f"mgrl_minatar: {text}", file=sys.stderr, flush=True)
