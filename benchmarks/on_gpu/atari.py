"""A2C and MGRL with LVC on Atari: the emulator, the learner and the whole, and some training."""

import contextlib
import os
import time
from functools import partial

from gm_mgrl_atari import AtariGames, Trainer, Training
from gm_mgrl_atari.throughput import emulator_rate, learner_rate
from on_gpu.machine import Machine, Rows

GAME = "Qbert"
CORES = os.cpu_count() or 1


def atari(at: Machine) -> Rows:
    """Environment steps a second: the emulator alone, the learner alone, the whole, in one and in two groups."""
    for envs in (4,) if at.small else (64, 256):
        for groups in (1,) if at.small else (1, 2):
            games = [AtariGames(GAME, envs // groups, group, CORES) for group in range(groups)]
            emulator = emulator_rate(games, at.seconds)
            for algorithm in ("mgrl-lvc",) if at.small else ("a2c", "mgrl-lvc"):
                training = Training(algorithm=algorithm, schedule="online", envs=envs, updates=10**9)
                alone = learner_rate(training, games[0].actions, at.seconds, device=at.device)
                whole = _whole(at, Trainer(training, games, device=at.device))
                found = {"emulator": emulator, "learner": alone, "whole": whole}
                yield f"{algorithm}, {envs} environments, groups: {groups}", found


def _whole(at: Machine, trainer: Trainer) -> float:
    trainer.step()
    emulated, begin = trainer.progress.emulated, time.perf_counter()
    while time.perf_counter() - begin < 2 * at.seconds:
        trainer.step()
    return (trainer.progress.emulated - emulated) / (time.perf_counter() - begin)


def training(at: Machine, env_steps: int = 3_000_000) -> Rows:
    """Returns after 3 million environment steps, or as many as fit into the time left; one seed: no verdict."""
    algorithms = ("a2c", "mgrl-lvc")
    for place, algorithm in enumerate(algorithms):
        envs = 4 if at.small else 256
        settings = Training(algorithm=algorithm, schedule="online", envs=envs, updates=env_steps // (5 * envs))
        trainer = Trainer(settings, [AtariGames(GAME, envs, 0, CORES)], device=at.device)
        begin = time.perf_counter()
        share = at.seconds if at.small else 0.9 * at.left / (len(algorithms) - place)
        log: list[dict[str, int | float]] = []
        with contextlib.suppress(_Over):
            trainer.run(log_every=1 if at.small else 50, on_row=partial(_until, begin + share, log))
        games = sum(row["episodes"] for row in log[-10:])
        scored = sum(row["episode_return"] * row["episodes"] for row in log[-10:] if row["episodes"])
        yield algorithm, {
            "steps": log[-1]["emulated_steps"], "seconds": time.perf_counter() - begin,
            "return": scored / games if games else float("nan"), "games": games,
        }  # fmt: skip


class _Over(Exception):  # noqa: N818 - nothing is wrong
    """Its time is over."""


def _until(end: float, log: list[dict[str, int | float]], row: dict[str, int | float]) -> None:
    """Keeps a row of the log, and ends training once the time is up."""
    log.append(row)
    if time.perf_counter() > end:
        raise _Over
