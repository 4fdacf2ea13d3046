"""Training: A2C or MGRL on batches from environments, with a log and checkpoints."""

import csv
import dataclasses
import inspect
import io
import math
import reprlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from gm_estimators.optimisers import AdamState, adam, adam_state, constant
from gm_mgrl_atari import checkpoints
from gm_mgrl_atari.actor_critic import ActorCritic, described, functional, require_fitting
from gm_mgrl_atari.checks import integer, require_memory
from gm_mgrl_atari.distributions import Distribution
from gm_mgrl_atari.games import Games
from gm_mgrl_atari.learner import Laps, NotFiniteError, Point, Training, all_of_float32, require_finite
from gm_mgrl_atari.network import Network, Params
from gm_mgrl_atari.objectives import INITIAL_LOGITS, NAMES, Batch, Terms, coefficients
from gm_mgrl_atari.rollouts import Collector
from gm_mgrl_atari.vector import GymnasiumGames

Row = dict[str, int | float]
COLUMNS = (
    *("updates", "env_steps", "emulated_steps", "episode_return", "episode_length", "episodes"), *NAMES,
    *(f"{name}_term" for name in Terms._fields), "steps_per_second",
)  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """All that changes in training but the environments: φ and Adam's state for it, updates kept, steps of all, log."""

    point: Point
    logits: Tensor
    meta: AdamState
    updates: int
    emulated: int
    rows: tuple[Row, ...]


Environments = Games | VectorEnv | Sequence[Games | VectorEnv]


class Trainer:
    """A run; `run` goes on from the last checkpoint in its folder.

    The environments are `AtariGames` or other `Games`, or a `gymnasium.vector.VectorEnv`, or several of a kind. The
    network is an `ActorCritic` or a plain `torch.nn.Module`, which `functional` makes one of; without it, the paper's
    `Network` for Atari. Actions are drawn from `distribution`, or the network's own, or that of the action space.

    A resumed run has all that the checkpoint holds; environments begin new games, and a game's unfinished return is
    lost. On another kind of device than the checkpoint's the random stream is another, too. Nothing is written without
    a folder. With `keep_activations` learning uses what acting computed at the same θ, if the network can.

    Raises:
        ValueError: for environments that aren't `training.envs` of one kind, or whose observations or actions are not
            those of the network and the distribution.
        CheckpointError: if there are checkpoints in the folder and none of them is of this run.

    Examples:
        >>> import gymnasium, torch
        >>> from gm_mgrl_atari import Trainer, Training
        >>> class Policy(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.actor, self.critic = torch.nn.Linear(4, 2), torch.nn.Linear(4, 1)
        ...
        ...     def forward(self, observation):
        ...         return self.actor(observation), self.critic(observation)
        >>> training = Training(algorithm="mgrl-lvc", envs=3, updates=2)
        >>> trainer = Trainer(training, gymnasium.make_vec("CartPole-v1", num_envs=3), network=Policy())
        >>> trainer.run(log_every=2)[-1]["env_steps"]
        30
    """

    def __init__(
        self, training: Training, environments: Environments, *,
        network: ActorCritic | torch.nn.Module | None = None, distribution: Distribution | None = None,
        seed: SupportsIndex = 0, device: torch.device | str = "cpu", folder: Path | None = None,
        memory_format: torch.memory_format = torch.channels_last,
        warn: Callable[[str], None] = print, keep_activations: bool = True,
    ) -> None:  # fmt: skip
        training.check()
        seed = integer("seed", seed, -(2**63), 2**64 - 1)
        groups = games_of(environments, seed)
        if (envs := sum(group.envs for group in groups)) != training.envs:
            raise ValueError(f"environments: expected {training.envs} in all, got {envs}")
        played = sorted({f"{getattr(group, 'game', '')}, {group.actions} actions" for group in groups})
        if len(played) > 1:
            raise ValueError(f"environments: expected one game, got {' and '.join(played)}")
        self.training, self.folder, self._device, self._seed = training, folder, torch.device(device), seed
        self._game, self._warn = getattr(groups[0], "game", ""), warn
        self._game_seed = getattr(groups[0], "seed", None)
        self._described: str | None = None
        if network is None:
            require_memory(training.envs, training.bytes_per_env())
            self.network: ActorCritic = Network(groups[0].actions, conditioned=training.conditioned)
        else:
            self.network = functional(network) if isinstance(network, torch.nn.Module) else network
            self._described = described(self.network)
        self.lap = Laps()
        self.learner = training.learner(self.network, self.lap)
        self._meta_rule = adam(constant(training.meta_lr))
        self._generator = torch.Generator(device).manual_seed(seed)
        drawn = torch.Generator().manual_seed(seed)
        ordered = "memory_format" in inspect.signature(self.network.init).parameters
        like: dict[str, Any] = {"memory_format": memory_format} if ordered else {}
        params = self.network.init(drawn, device=device, **like)
        logits = torch.tensor(INITIAL_LOGITS, device=device)
        self.progress = Progress(Point(params, adam_state(params)), logits, adam_state({"": logits}), 0, 0, ())
        if folder is not None:
            resumed = checkpoints.latest(folder, self._form(), self._restored, warn)
            self.progress, self._generator = resumed or (self.progress, self._generator)
        self._collector = Collector(
            groups, self.network, training.steps, self._generator, device, memory_format=memory_format, lap=self.lap,
            keep_activations=keep_activations, distribution=distribution,
        )  # fmt: skip
        require_fitting(
            self.network, params, self._collector.distribution, self._collector.observation[0], groups[0].actions,
            continuous=getattr(groups[0], "continuous", False),
        )  # fmt: skip
        self._next_batch: Batch | None = None
        self._kept: dict[int, Progress] = {}

    def record(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        now, state = self.progress, self.progress.point.optimiser
        assert isinstance(state, AdamState)
        named = {} if self._described is None else {"network": self._described}
        return {
            "settings": dataclasses.asdict(self.training), "game": self._game, "seed": self._seed,
            "game_seed": self._game_seed, **named, "params": now.point.params, "adam": dataclasses.asdict(state),
            "logits": now.logits, "meta_adam": dataclasses.asdict(now.meta), "updates": now.updates,
            "emulated": now.emulated, "device": self._device.type, "generator": self._generator.get_state(),
            "rows": list(now.rows),
        }  # fmt: skip

    def _form(self) -> dict[str, Any]:
        """What a checkpoint must look like; a generator's state differs from device to device."""
        return {name: value for name, value in self.record().items() if name != "generator"}

    def _restored(self, record: dict[str, Any]) -> tuple[Progress, torch.Generator]:
        """What a checkpoint of the right form holds; raises `CheckpointError` if it can't be of this run."""
        if reason := _impossible(record, self.training):
            raise checkpoints.CheckpointError(reason)
        like = self.progress.point.params

        def moved(tensors: Params, form: Params) -> Params:
            # copied into place, so that the memory format is ours
            return {name: torch.empty_like(value).copy_(tensors[name].detach()) for name, value in form.items()}

        def state(saved: dict[str, Any], form: Params) -> AdamState:
            return AdamState(saved["step"], moved(saved["first"], form), moved(saved["second"], form))

        logits = record["logits"].detach().to(self._device)
        progress = Progress(
            Point(moved(record["params"], like), state(record["adam"], like)), logits,
            state(record["meta_adam"], {"": logits}), record["updates"], record["emulated"], tuple(record["rows"]),
        )  # fmt: skip
        generator = torch.Generator(self._device)
        if record["device"] == self._device.type:
            generator.set_state(record["generator"])
        else:
            mixed = np.random.SeedSequence([self._seed % 2**64, progress.updates])
            generator.manual_seed(int(mixed.generate_state(1)[0]))
        return progress, generator

    def save(self) -> None:
        """Writes a checkpoint, if there is a folder; raises `NotFiniteError` instead if NaN or infinity is in it."""
        self._save(self.progress.updates, "checkpoint")

    def _save(self, updates: int, prefix: str) -> None:
        if self.folder is None:
            return
        record = self.record()
        numbers = {name: record[name] for name in ("params", "adam", "logits", "meta_adam")}
        require_finite(dict(checkpoints.tensors(numbers)))
        checkpoints.save(self.folder, record, updates, prefix=prefix)

    def _keep(self, at: int) -> None:
        self._save(at, "point")
        self._kept[at] = self.progress

    def _has(self, at: int) -> bool:
        return at in self._kept or (self.folder is not None and checkpoints.file_of(self.folder, at, "point").exists())

    @property
    def _kept_at_once(self) -> int:
        """Updates that a step keeps."""
        online = self.training.schedule == "online" and self.training.algorithm != "a2c"
        return self.training.inner_steps if online else 1

    def kept(self, at: int) -> Progress:
        """The copy that `run` was asked to keep at a number of updates, now or before it was resumed."""
        if at not in self._kept:
            if self.folder is None:
                raise checkpoints.CheckpointError(f"expected one of the updates kept, {sorted(self._kept)}, got {at}")
            path = checkpoints.file_of(self.folder, at, "point")
            self._kept[at], _ = checkpoints.load(path, self._form(), self._restored, self._kept_at_once - 1)
        return self._kept[at]

    def run(
        self, *, log_every: SupportsIndex = 100, checkpoint_seconds: float = 600.0, keep_at: Sequence[int] = (),
        on_row: Callable[[Row], None] = lambda _row: None,
    ) -> list[Row]:  # fmt: skip
        """To the end or any interruption but `NotFiniteError`, then a checkpoint; those at `keep_at` updates stay."""
        log_every = integer("log_every", log_every)
        if not checkpoint_seconds >= 0:  # NaN, too
            raise ValueError(f"checkpoint_seconds: expected a number of at least 0, got {checkpoint_seconds}")
        self._write_log()
        self.lap.start()
        saved = clock = time.perf_counter()
        emulated = self.progress.emulated
        whole = self.progress  # has all rows of its updates
        try:
            for at in keep_at:
                # also what an interruption kept from being written
                if at <= self.progress.updates < at + self._kept_at_once and not self._has(at):
                    self._keep(at)
            while self.progress.updates < self.training.updates:
                before = self.progress.updates
                parts = self.step()
                now = self.progress.updates
                if now // log_every > before // log_every or now == self.training.updates:
                    elapsed, clock = time.perf_counter() - clock, time.perf_counter()
                    row = self._row(parts, (self.progress.emulated - emulated) / elapsed)
                    emulated = self.progress.emulated
                    self.progress = dataclasses.replace(self.progress, rows=(*self.progress.rows, row))
                    self._write_log(row)
                    on_row(row)
                whole = self.progress
                for at in keep_at:
                    if before < at <= now:
                        self._keep(at)
                if time.perf_counter() - saved > checkpoint_seconds:
                    self.save()
                    saved = time.perf_counter()
                self.lap("log and checkpoints")
        except NotFiniteError:
            raise
        except BaseException:
            self.progress = whole
            self.save()
            raise
        self.save()
        return list(self.progress.rows)

    @all_of_float32()
    def step(self) -> Terms:
        """One kept update of A2C or of discarding MGRL, or a window of K kept ones; the terms before it."""
        if self.progress.updates >= self.training.updates:
            raise ValueError(f"updates: expected fewer than {self.training.updates} so far, when all are done")
        now, emulated = self.progress, self._collector.emulated
        if self.training.algorithm == "a2c":
            batch = self._collector.collect(now.point.params)
            point, parts = self.learner.update(now.point, batch, coefficients(now.logits))
            logits, meta, kept = now.logits, now.meta, 1
        else:
            point, parts, kept, logits, meta = self._meta_step(now)
        self.progress = Progress(
            point, logits, meta, now.updates + kept, now.emulated + self._collector.emulated - emulated, now.rows
        )
        return parts

    def _meta_step(self, now: Progress) -> tuple[Point, Terms, int, Tensor, AdamState]:
        online = self.training.schedule == "online"
        inner_steps = self.training.inner_steps
        if online:
            inner_steps = min(inner_steps, self.training.updates - now.updates)

        def batch_at(params: Params, step: int) -> Batch:
            carried, self._next_batch = self._next_batch, None
            return carried if step == 0 and carried is not None else self._collector.collect(params)

        window = self.learner.window(now.point, now.logits, batch_at, inner_steps)
        with torch.no_grad():
            moved, meta = self._meta_rule({"": now.logits}, {"": window.meta_gradient}, now.meta)
        require_finite({"meta-parameters": moved[""]})
        self.lap("optimisers")
        assert isinstance(meta, AdamState)
        if online:
            self._next_batch = window.batches[-1]
        kept = inner_steps if online else 1
        return window.path[kept - 1], window.terms, kept, moved[""], meta

    def _row(self, parts: Terms, rate: float) -> Row:
        returns, lengths = self._collector.finished()
        now = self.progress
        learnt = dict(zip(NAMES, (float(value) for value in coefficients(now.logits)), strict=True))
        return {
            "updates": now.updates, "env_steps": now.updates * self.training.envs * self.training.steps,
            "emulated_steps": now.emulated, "episode_return": sum(returns) / len(returns) if returns else math.nan,
            "episode_length": sum(lengths) / len(lengths) if lengths else math.nan, "episodes": len(returns), **learnt,
            **{f"{name}_term": float(value) for name, value in parts._asdict().items()}, "steps_per_second": rate,
        }  # fmt: skip

    def _write_log(self, row: Row | None = None) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self.progress.rows if row is None else (row,)
        names = list(self.progress.rows[0]) if self.progress.rows else []
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        if row is None or len(self.progress.rows) == 1:
            table.writerows([names] if names else [])
        table.writerows([list(r.values()) for r in rows])
        if row is None:
            checkpoints.replace(self.folder / "log.csv", text.getvalue().encode())
        else:
            with (self.folder / "log.csv").open("a", newline="") as file:
                file.write(text.getvalue())


def games_of(environments: Environments, seed: int) -> list[Games]:
    """Games of what a trainer is given; seeds of vector environments count on from the run's."""
    given = environments if isinstance(environments, Sequence) else [environments]
    if not given:
        raise ValueError("environments: expected at least one group, got none")
    games: list[Games] = []
    for group in given:
        before = sum(earlier.envs for earlier in games)
        at = (seed + before) % 2**30
        games.append(group if isinstance(group, Games) else GymnasiumGames(group, at))
    return games


def _impossible(record: dict[str, Any], training: Training) -> str | None:
    """What in a record of the right form no training with these settings can have led to, if anything."""
    updates, meta_steps = record["updates"], record["meta_adam"]["step"]
    least = updates * training.envs * training.steps
    for name, expected, got, holds in (
        ("updates", f"0 to {training.updates}", updates, 0 <= updates <= training.updates),
        ("adam step", f"{updates}, the number of updates", (step := record["adam"]["step"]), step == updates),
        ("meta_adam step", f"0 to {updates}", meta_steps, 0 <= meta_steps <= updates),
        ("emulated", f"at least {least}", record["emulated"], record["emulated"] >= least),
    ):
        if not holds:
            return f"{name}: expected {expected}, got {got}"
    for name, second in checkpoints.tensors({f"{key} second": record[key]["second"] for key in ("adam", "meta_adam")}):
        if bool((second < 0).any()):
            return f"{name}: expected numbers of at least 0 as second moments, got some below"
    before = 0
    for row in record["rows"]:
        if not isinstance(row, dict) or tuple(row) != COLUMNS or {*map(type, row.values())} - {int, float}:
            return f"rows: expected numbers for {', '.join(COLUMNS)}, got {reprlib.repr(row)}"
        if not before < row["updates"] <= updates:
            return f"rows: expected growing numbers of updates up to {updates}, got {row['updates']} after {before}"
        before = row["updates"]
    return None
