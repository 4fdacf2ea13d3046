"""Training on Atari beside the emulator alone and the learner alone, what a meta-gradient costs, and memory over time.

All figures of a table are from one run, in turns, so that a busy machine slows them alike.
"""

import os
import statistics
import time
from itertools import product
from pathlib import Path

import torch
from threads import one_thread  # noqa: F401

from gm_mgrl_atari import PARTS, AtariGames, Trainer, Training
from gm_mgrl_atari.throughput import Still, emulator_rate, learner_rate

ENVS, GAME, ROUNDS = 64, "Qbert", 5


def trainer_of(groups, **settings):
    """A trainer in memory."""
    return Trainer(Training(envs=sum(group.envs for group in groups), **settings), groups)


def seconds_per_update(trainer, least=0.0):
    """Of wall time, for one kept update."""
    before, start = trainer.progress.updates, time.perf_counter()
    trainer.lap.start()
    while trainer.progress.updates == before or time.perf_counter() - start < least:
        trainer.step()
    return (time.perf_counter() - start) / (trainer.progress.updates - before)


def test_what_a_meta_gradient_costs():
    """Median of the ratio to an A2C update, which draws and learns 320 steps."""
    kinds = {
        "A2C": {"algorithm": "a2c"},
        "3-step MGRL + LVC, discard": {"schedule": "discard"},
        "3-step MGRL + LVC, online": {"schedule": "online"},
        "3-step MGRL (AD), discard": {"algorithm": "mgrl"},
    }
    trainers = {name: trainer_of([AtariGames(GAME, ENVS, 0, 1)], **settings) for name, settings in kinds.items()}
    for trainer in trainers.values():
        trainer.lap.start()
        trainer.step()
    rounds = [{name: seconds_per_update(trainer) for name, trainer in trainers.items()} for _ in range(ROUNDS)]
    cost = {name: statistics.median(r[name] / r["A2C"] for r in rounds) for name in kinds}
    print("\nkept update, in A2C updates")
    for name, ratio in cost.items():
        print(f"{name:30s}{ratio:6.2f}   {statistics.median(r[name] for r in rounds):6.2f} s")
    print("\nwhere the time goes, per cent of wall time")
    print(f"{'':30s}" + "".join(f"{name.removeprefix('3-step '):>24s}" for name in kinds))
    for part in PARTS:
        shares = [100 * t.lap.seconds[part] / sum(t.lap.seconds.values()) for t in trainers.values()]
        print(f"{part:30s}" + "".join(f"{share:24.1f}" for share in shares))
    assert cost["3-step MGRL + LVC, discard"] <= 7
    assert cost["3-step MGRL + LVC, online"] <= 3.5


def test_throughput_beside_its_parts():
    """The whole reaches 90% of 1/(1/emulator + 1/learner); the learner pays for its memory format and its memory.

    The default is what one would write first: channels first, and a second forward pass to learn from what was seen.
    """
    games, training = [AtariGames(GAME, ENVS, 0, 1)], Training(algorithm="a2c", envs=ENVS)
    whole = trainer_of(games, algorithm="a2c")
    kinds = tuple(product((torch.channels_last, torch.contiguous_format), (True, False)))
    rows = []
    for _ in range(ROUNDS):
        emulator = emulator_rate([AtariGames(GAME, ENVS, 1, 1)], 1.0)
        learner, again, contiguous, default = (
            learner_rate(training, whole.network.actions, 2.0, memory_format=order, keep_activations=kept)
            for order, kept in kinds
        )
        rate = ENVS * training.steps / seconds_per_update(whole, 3.0)
        bound = 1 / (1 / emulator + 1 / learner)
        gains = learner / contiguous, learner / again, learner / default
        rows.append((emulator, learner, default, rate, rate / bound, *gains))
    names = ("emulator", "learner", "learner, default", "whole", "whole / bound")
    names += ("gain of channels last", "gain of one forward pass", "gain of both")
    found = {name: statistics.median(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    print("\nA2C, environment steps per second, one thread")
    for name, value in found.items():
        print(f"{name:26s}{value:10.3g}")
    assert found["whole / bound"] >= 0.9
    assert found["gain of both"] >= 1.3


def resident_megabytes():
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_memory_is_flat_over_two_thousand_updates():
    """Under 1% growth after the first 200, with graphs of three updates built and dropped all along."""
    trainer = trainer_of([Still(2, 6)], schedule="online", steps=2, updates=2000)
    sizes = {}
    while trainer.progress.updates < 2000:
        trainer.step()
        sizes[trainer.progress.updates] = resident_megabytes()
    settled = next(size for updates, size in sizes.items() if updates >= 200)
    print(f"\nresident memory after 200 updates {settled:.0f} MB, after 2,000 {sizes[2000]:.0f} MB (K = 3)")
    assert sizes[2000] < 1.01 * settled
