"""MGRL on Atari, with and without the LVC correction (paper, Section 5.3, Figures 3, 9, 10)."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro

import gm_lab
import gm_mgrl_atari as mgrl
import mgrl_figures
import mgrl_report
from gm_lab.settings import result_settings, usable_cores, worker_count
from gm_mgrl_atari import study, throughput

if TYPE_CHECKING:
    import pandas as pd

Algorithm = Literal["a2c", "mgrl", "mgrl-lvc"]
PAPER_ENVS, DEMO_ENVS, DEMO_UPDATES = 64, 8, 80
LOG_ROWS = 500
LOG_EVERY = 5
THROUGHPUT_SECONDS = 2.0


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """Does meta-gradient RL on Atari gain from correcting its Hessian?

    Without a flag: a demonstration of some minutes on two cores, A2C, 3-step MGRL and 3-step MGRL with LVC on one game,
    too short to tell which is the better. The paper's run: --games Qbert --env-steps 40_000_000 --seeds 5.
    """

    figure: tuple[Literal["returns", "gradient"], ...] = ("returns", "gradient")
    """returns: Figures 3, 9 and 10; gradient: the meta-gradient's bias, variance and direction at points of a run."""
    games: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--game",))] = ("Qbert",)
    """The paper's: Asteroids Qbert Tennis BeamRider Alien Assault DoubleDunk Seaquest; or any other that ALE has."""
    algorithms: Annotated[tuple[Algorithm, ...], tyro.conf.arg(aliases=("--algorithm",))] = ("a2c", "mgrl", "mgrl-lvc")
    """Which to train; gradient is measured in runs of the last one."""
    seeds: int = 1
    """Independent runs; the intervals are over these."""
    env_steps: int | None = None
    """Environment steps of kept updates, 40_000_000 in the paper; the demonstration's 3,200 if not given."""
    envs: int | None = None
    """Environments; 64 as in the paper, 8 in the demonstration."""
    steps: int = 5
    """Steps of each environment per update."""
    inner_steps: int = 3
    """K, updates that the meta-gradient looks through."""
    schedule: Literal["discard", "online"] = "discard"
    """discard: of K updates only the first is kept, as in the paper; online: all are kept."""
    estimator: str | None = None
    """Of MGRL's policy term instead of the algorithm's: ad, lvc, loaded_dice or your own as package.module:function."""
    inner_lr: float = 7e-4
    """Adam's learning rate, which decays linearly to 0."""
    meta_lr: float = 1e-3
    """Learning rate of the meta-parameters."""
    max_grad_norm: float = 0.5
    """Norm to which gradients are clipped."""
    adam_eps: float = 1e-8
    """Adam's ε."""
    conditioned: bool = True
    """Whether the critic is told γ, in A2C as well; the reference code's A2C isn't."""
    gradient_points: tuple[float, ...] = (0.0, 0.5)
    """Where in a run the meta-gradient is measured, as parts of its updates; at the end the learning rate is 0."""
    gradient_windows: int = 24
    """Windows of K + 1 batches at each point."""
    checkpoint_minutes: float = 10.0
    """Time between checkpoints; Ctrl-C or SIGTERM writes one, too, with any number of workers."""


@dataclass(frozen=True)
class Cell:
    """One run, and at how many updates its meta-gradient is measured."""

    root_seed: int
    game: str
    seed: int
    training: mgrl.Training
    points: tuple[int, ...]
    windows: int


@dataclass(frozen=True)
class Place:
    """Where and with what this process works; no bearing on results."""

    folder: Path | None = None
    device: str = "cpu"
    threads: int = 0
    checkpoint_seconds: float = 600.0


_place = Place()


def cells(settings: Settings) -> list[Cell]:
    """One cell per game, seed and algorithm.

    Raises:
        BadInput: if a flag is out of range.
    """
    envs = settings.envs if settings.envs is not None else PAPER_ENVS if settings.env_steps else DEMO_ENVS
    for name in ("seeds", "steps", "inner_steps"):
        gm_lab.require(settings, name, "an integer of at least 1", getattr(settings, name) >= 1)
    gm_lab.require(settings, "envs", "an integer of at least 1", envs >= 1)
    batch = envs * settings.steps
    enough = settings.env_steps is None or settings.env_steps >= batch
    gm_lab.require(settings, "env_steps", f"at least {batch}, the steps of one update", enough)
    gm_lab.require(settings, "gradient_windows", "an integer of at least 2", settings.gradient_windows >= 2)
    inside = all(0 <= point <= 1 for point in settings.gradient_points)
    gm_lab.require(settings, "gradient_points", "numbers from 0 to 1", inside)
    gm_lab.require(settings, "checkpoint_minutes", "a positive number", settings.checkpoint_minutes > 0)
    updates = DEMO_UPDATES if settings.env_steps is None else settings.env_steps // batch
    shared = {
        field.name: getattr(settings, field.name) for field in fields(mgrl.Training) if hasattr(settings, field.name)
    }
    found = []
    for game in games_of(settings):
        for seed in range(settings.seeds):
            for algorithm in dict.fromkeys(settings.algorithms):
                own = {"estimator": None} if algorithm == "a2c" else {}
                training = mgrl.Training(**(shared | own | {"algorithm": algorithm, "updates": updates, "envs": envs}))
                try:
                    training.check()
                except ValueError as error:
                    name, _, rest = str(error).partition(":")
                    raise gm_lab.BadInput(f"--{name.replace('_', '-')}:{rest}") from error
                studied = "gradient" in settings.figure and algorithm == settings.algorithms[-1]
                at = points_of(settings, training) if studied else ()
                found.append(Cell(settings.seed, game, seed, training, at, settings.gradient_windows))
    other = settings.estimator is None or not {"mgrl", "mgrl-lvc"} <= {*settings.algorithms}
    gm_lab.require(settings, "estimator", "one of mgrl and mgrl-lvc beside it, which it makes the same", other)
    return found


def games_of(settings: Settings) -> list[str]:
    """The games, each once and in the one spelling.

    Raises:
        BadInput: ALE has no such game.
    """
    try:
        return list(dict.fromkeys(mgrl.game_name(game) for game in settings.games))
    except ValueError as error:
        raise gm_lab.BadInput(f"--games: {error}") from error


def points_of(settings: Settings, training: mgrl.Training) -> tuple[int, ...]:
    """After how many updates the meta-gradient is measured: with the online schedule at the end of a window.

    Raises:
        BadInput: a window there would reach the end of training, where the learning rate is 0.
    """
    at = {round(part * training.updates) for part in settings.gradient_points}
    if training.schedule == "online":
        at = {-(-point // training.inner_steps) * training.inner_steps for point in at}
    expected = (
        f"points whose windows of {training.inner_steps} updates end within the run's {training.updates}, after which "
        "the learning rate is 0 (--figure returns measures none)"
    )
    gm_lab.require(settings, "gradient_points", expected, max(at) <= study.last_point(training))
    return tuple(sorted(at))


def environments(cell: Cell, purpose: str, envs: int) -> list[mgrl.Games]:
    """The run's games: in two groups beside a GPU, which decides for one while the other emulates."""
    seed = gm_lab.seed_of(cell.root_seed, cell.game, cell.seed, purpose) % 2**30
    first = envs // 2 if _place.device != "cpu" else 0
    sizes = [size for size in (first, envs - first) if size]
    return [mgrl.AtariGames(cell.game, size, seed + i * first, _place.threads) for i, size in enumerate(sizes)]


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """Trains, or goes on training, one run; the rows of results.csv of its log, throughput and meta-gradients.

    Raises:
        BadInput: if none of its checkpoints can be used.
    """
    training, label = cell.training, f"{cell.game}-{cell.training.algorithm}-{cell.seed}"
    folder = None if _place.folder is None else _place.folder / "training" / label
    seed = gm_lab.seed_of(cell.root_seed, cell.game, cell.seed, "policy") % 2**30
    common: gm_lab.Row = {"game": cell.game, "algorithm": training.algorithm, "seed": cell.seed}
    rates = _rates(cell)
    try:
        trainer = mgrl.Trainer(
            training,
            environments(cell, "games", training.envs),
            seed=seed,
            device=_place.device,
            folder=folder,
            warn=mgrl_report.tell,
        )
    except mgrl.CheckpointError as error:
        raise gm_lab.BadInput(str(error)) from error
    teller, live = mgrl_report.Teller(label, training.updates), _live(cell)

    def on_row(row: dict[str, int | float]) -> None:
        teller(row)
        live({**common, "figure": "returns", **row})

    log = trainer.run(
        log_every=max(training.updates // LOG_ROWS, min(LOG_EVERY, training.updates // 20), 1),
        checkpoint_seconds=_place.checkpoint_seconds,
        keep_at=cell.points,
        on_row=on_row,
    )
    found = [{**common, "figure": "returns", **row} for row in log]
    parts = dict(zip(mgrl_report.SECONDS, trainer.lap.seconds.values(), strict=True))
    found.append({**common, "figure": "throughput", **rates, **mgrl_report.mean_rate(log), **parts})
    found += [common | row for point in cell.points for row in _gradient_rows(cell, trainer, point)]
    return [mgrl_report.completed(row) for row in found]


def _live(cell: Cell) -> Callable[[gm_lab.Row], None]:
    """Appends a row where the tracker and `mgrl_report` look for those of unfinished runs."""
    if _place.folder is None:
        return lambda _row: None
    return gm_lab.LiveRows(_place.folder, cell, step="env_steps").append


def _rates(cell: Cell) -> dict[str, float]:
    games = environments(cell, "emulator alone", cell.training.envs)
    learner = throughput.learner_rate(cell.training, games[0].actions, THROUGHPUT_SECONDS, device=_place.device)
    alone = throughput.emulator_rate(games, THROUGHPUT_SECONDS)
    return {"emulator_steps_per_second": alone, "learner_steps_per_second": learner}


def _gradient_rows(cell: Cell, trainer: mgrl.Trainer, updates: int) -> list[gm_lab.Row]:
    try:
        progress = trainer.kept(updates)
    except mgrl.CheckpointError as error:
        mgrl_report.tell(f"no meta-gradients after {updates} updates: {error}")
        return []
    mgrl_report.tell(f"{cell.game}: measuring meta-gradients after {updates} updates")
    games = environments(cell, f"gradient {updates}", cell.training.envs)
    generator = torch.Generator(_place.device).manual_seed(gm_lab.seed_of(cell.root_seed, "gradient", updates) % 2**30)
    collector = mgrl.Collector(games, trainer.network, cell.training.steps, generator, _place.device)
    qualities = study.measure(
        cell.training, trainer.network, progress.point, progress.logits, collector, count=cell.windows
    )
    return [
        {
            "figure": "gradient",
            "updates": updates,
            "variant": variant,
            "windows": cell.windows,
            "distance": q.distance,
            **{
                f"{measure}{end}": value
                for measure in mgrl_report.MEASURES
                for end, value in zip(mgrl_report.ENDS, getattr(q, measure), strict=True)
            },
            **{f"gradient_{name}": value for name, value in zip(mgrl.NAMES, q.mean, strict=True)},
        }
        for variant, q in qualities.items()
    ]


def closing(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The closing table, before which those are shown for which it has no columns left."""
    from rich.console import Console

    for table in (mgrl_report.throughputs(frame), *mgrl_report.meta_gradients(frame)):
        Console().print(table)
    return mgrl_report.summary(frame)


def warm_up(settings: Settings) -> None:
    """Says where checkpoints go and what computes; each worker gets its share of the cores."""
    global _place
    device = "cpu" if settings.device == "auto" else settings.device
    kind, _, index = device.partition(":")
    there = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    if device != "cpu" and not (kind == "cuda" and (index or "0").isdigit() and int(index or 0) < there):
        raise gm_lab.BadInput(f"--device: expected cpu, or cuda where there is a GPU, got {settings.device!r}")
    if kind == "cuda":
        # what is listed may be out of order or taken; the one worker is this process, or a task of Ray
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise gm_lab.BadInput(f"--device: expected a GPU that works as {device}, got: {reason}") from error
    threads = threads_of(settings)
    torch.set_num_threads(threads)
    _place = Place(settings.run_dir, device, threads, 60 * settings.checkpoint_minutes)


def threads_of(settings: Settings) -> int:
    """A worker's share of the cores, for the emulators and for the learner."""
    if settings.launcher == "ray":
        return max(1, int(settings.cpus_per_cell))
    folder = settings.run_dir or Path()
    pending = sum(not (folder / "cells" / f"{gm_lab.cell_id(cell)}.json").exists() for cell in cells(settings))
    return max(1, usable_cores() // max(1, min(worker_count(settings), pending)))


EXPERIMENT = gm_lab.Experiment(
    name="mgrl_atari",
    settings=Settings,
    columns=mgrl_report.COLUMNS,
    key=mgrl_report.KEY,
    cells=cells,
    run_cell=run_cell,
    figures=lambda _settings, frame: mgrl_figures.figures(frame),
    claims=lambda settings, frame: mgrl_report.claims(frame, result_settings(settings)),
    summary=lambda _settings, frame: closing(frame),
    warm_up=warm_up,
    curves=(gm_lab.Curves(mgrl_report.CURVE, x="env_steps", y=mgrl_report.WATCHED, figures=("returns",)),),
    resumable_cells=True,
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
