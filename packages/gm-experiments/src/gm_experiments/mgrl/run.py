"""A cell trains one run, or goes on training it, and returns the rows of its log, throughput and meta-gradients."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import gm_lab
import gm_mgrl_atari as mgrl
from gm_experiments.common.checks import device_of, require_finite
from gm_experiments.mgrl.settings import (
    INTERVALS,
    MEASURES,
    SECONDS,
    TERMS,
    MgrlCell,
    Settings,
    cells,
    completed,
    study_work,
    training_work,
)
from gm_experiments.mgrl.training import NAMES
from gm_lab.run import usable_cores, worker_count
from gm_mgrl_atari import study, throughput

LOG_ROWS = 500
LOG_EVERY = 5
SHOW_SECONDS = 10.0
THROUGHPUT_SECONDS = 2.0


@dataclass(frozen=True)
class AtariContext(gm_lab.Context):
    """It also says how often a run writes checkpoints, in seconds."""

    checkpoint_seconds: float = 600.0


def prepare(settings: Settings) -> AtariContext:
    """Gives each worker its share of the cores, or the GPU; raises `BadInput` if the device is not there or broken."""
    device = device_of(settings)
    threads = threads_of(settings)
    torch.set_num_threads(threads)
    return AtariContext(settings.run_dir, device, threads, 60 * settings.checkpoint_minutes)


def threads_of(settings: Settings) -> int:
    """Returns a worker's share of the cores, for the emulators and for the learner."""
    if settings.launcher == "ray":
        return max(1, int(settings.cpus_per_cell))
    folder = settings.run_dir or Path()
    pending = sum(not (folder / "cells" / f"{gm_lab.cell_id(cell)}.json").exists() for cell in cells(settings))
    return max(1, usable_cores() // max(1, min(worker_count(settings), pending)))


def run_cell(cell: MgrlCell, context: AtariContext) -> list[gm_lab.Row]:
    """Computes the rows of results.csv of one run."""
    training = cell.training
    common: gm_lab.Row = {"game": cell.game, "algorithm": training.algorithm, "seed": cell.seed}
    rates = throughput_of(cell, context)
    trainer = trainer_of(cell, context)
    work = Work(cell, trainer.progress.updates)
    log = trainer.run(
        log_every=max(training.updates // LOG_ROWS, min(LOG_EVERY, training.updates // 20), 1),
        checkpoint_seconds=context.checkpoint_seconds,
        keep_at=cell.points,
        on_row=watched(cell, context, common, work),
    )
    rows: list[gm_lab.Row] = [{**common, "figure": "returns", **row} for row in log]
    parts = dict(zip(SECONDS, trainer.lap.seconds.values(), strict=True))
    rows.append({**common, "figure": "throughput", **rates, **mean_rate(log), **parts})
    for place, point in enumerate(cell.points):
        measured = gradient_rows(cell, context, trainer, point, partial(work.studied, place))
        rows += [common | row for row in measured]
    require_finite(rows, (*NAMES, *TERMS), "--inner-lr", "--meta-lr", unbounded=INTERVALS)
    return [completed(row) for row in rows]


def trainer_of(cell: MgrlCell, context: AtariContext) -> mgrl.Trainer:
    """Makes the trainer, which goes on from the run's checkpoint; `BadInput` if there are some, but none is usable."""
    try:
        return mgrl.Trainer(
            cell.training,
            environments(cell, context, "games"),
            seed=gm_lab.seed_of(cell.root_seed, cell.game, cell.seed, "policy") % 2**30,
            device=context.device,
            folder=context.run_dir and context.run_dir / "training" / label_of(cell),
            warn=tell,
        )
    except mgrl.CheckpointError as error:
        raise gm_lab.BadInput(str(error)) from error


def environments(cell: MgrlCell, context: AtariContext, purpose: str) -> list[mgrl.Games]:
    """Makes the run's games: in two groups beside a GPU, which decides for one while the other emulates."""
    envs = cell.training.envs
    seed = gm_lab.seed_of(cell.root_seed, cell.game, cell.seed, purpose) % 2**30
    first = envs // 2 if context.device != "cpu" else 0
    sizes = [size for size in (first, envs - first) if size]
    return [mgrl.AtariGames(cell.game, size, seed + i * first, context.threads) for i, size in enumerate(sizes)]


def label_of(cell: MgrlCell) -> str:
    """Names a run in its folder and in what is told of it."""
    return f"{cell.game}-{cell.training.algorithm}-{cell.seed}"


class Work:
    """It tells those who watch how far a cell is, of which so many updates were done before."""

    def __init__(self, cell: MgrlCell, before: int) -> None:
        self._training, self._study = training_work(cell.training), study_work(cell)
        self._updates = cell.training.updates
        self._total = self._training + self._study * len(cell.points)
        self._before = self._training * before / self._updates
        self.trained(before)

    def trained(self, updates: float) -> None:
        """So many updates are done."""
        gm_lab.progressed(self._training * updates / self._updates, self._total, self._before)

    def studied(self, points: int, part: float) -> None:
        """The meta-gradient is measured at so many points, and at a part of the next one."""
        gm_lab.progressed(self._training + self._study * (points + part), self._total, self._before)


def watched(
    cell: MgrlCell, context: AtariContext, common: gm_lab.Row, work: Work
) -> Callable[[dict[str, int | float]], None]:
    """Makes what is called with each row of the log: it tells people, and leaves the row where others look for it."""
    training = cell.training
    teller = Teller(label_of(cell), training.updates)
    live = context.run_dir and gm_lab.LiveRows(context.run_dir, cell, step="env_steps")

    def on_row(row: dict[str, int | float]) -> None:
        teller(row)
        work.trained(row["updates"])
        if live:
            live.append({**common, "figure": "returns", **row})

    return on_row


class Teller:
    """It shows a run's progress every ten seconds."""

    def __init__(self, label: str, updates: int) -> None:
        self._label, self._updates, self._shown = label, updates, time.monotonic()

    def __call__(self, row: Mapping[str, str | int | float]) -> None:
        """Shows a row of the log, unless one has just been shown."""
        now = time.monotonic()
        if now - self._shown < SHOW_SECONDS and row["updates"] != self._updates:
            return
        self._shown = now
        unknown = math.isnan(float(row["episode_return"]))
        reached = "no episode ended yet" if unknown else f"return {row['episode_return']:.4g}"
        tell(
            f"{self._label}: {row['updates']}/{self._updates} updates, {reached}, "
            f"γ {row['gamma']:.4f}, λ {row['gae_lambda']:.4f}, {row['steps_per_second']:.0f} steps/s"
        )


def tell(text: str) -> None:
    """Shows a line beside the progress."""
    print(f"mgrl_atari: {text}", file=sys.stderr, flush=True)


def throughput_of(cell: MgrlCell, context: AtariContext) -> dict[str, float]:
    """Measures the emulator alone and the learner alone."""
    games = environments(cell, context, "emulator alone")
    learner = throughput.learner_rate(cell.training, games[0].actions, THROUGHPUT_SECONDS, device=context.device)
    alone = throughput.emulator_rate(games, THROUGHPUT_SECONDS)
    return {"emulator_steps_per_second": alone, "learner_steps_per_second": learner}


def mean_rate(log: Sequence[Mapping[str, str | int | float]]) -> gm_lab.Row:
    """Returns the steps per second of the whole run, from the rates of its parts."""
    before, seconds = 0.0, 0.0
    for row in log:
        seconds += (float(row["emulated_steps"]) - before) / float(row["steps_per_second"])
        before = float(row["emulated_steps"])
    return {"steps_per_second": before / seconds, "emulated_steps": before, "updates": log[-1]["updates"]}


def gradient_rows(
    cell: MgrlCell, context: AtariContext, trainer: mgrl.Trainer, updates: int, on_part: Callable[[float], None]
) -> list[gm_lab.Row]:
    """Measures the variants of the meta-gradient at one point of a run, unless its checkpoint is lost."""
    try:
        progress = trainer.kept(updates)
    except mgrl.CheckpointError as error:
        tell(f"no meta-gradients after {updates} updates: {error}")
        return []
    tell(f"{cell.game}: measuring meta-gradients after {updates} updates")
    games = environments(cell, context, f"gradient {updates}")
    seed = gm_lab.seed_of(cell.root_seed, "gradient", updates) % 2**30
    generator = torch.Generator(context.device).manual_seed(seed)
    collector = mgrl.Collector(games, trainer.network, cell.training.steps, generator, context.device)
    qualities = study.measure(
        cell.training, trainer.network, progress.point, progress.logits, collector, count=cell.windows,
        on_part=on_part,
    )  # fmt: skip
    label: gm_lab.Row = {"figure": "gradient", "updates": updates, "windows": cell.windows}
    return [{**label, "variant": variant, **columns_of(quality)} for variant, quality in qualities.items()]


def columns_of(quality: study.WindowQuality) -> gm_lab.Row:
    """Turns what a variant's meta-gradients are like into columns."""
    values = [value for measure in MEASURES for value in getattr(quality, measure)]
    intervals = dict(zip(INTERVALS, values, strict=True))
    mean = {f"gradient_{name}": value for name, value in zip(mgrl.NAMES, quality.mean, strict=True)}
    return {"distance": quality.distance, **intervals, **mean}
