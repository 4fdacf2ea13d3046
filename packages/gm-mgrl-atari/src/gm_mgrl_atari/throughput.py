"""Steps per second of the emulator alone and of the learner alone."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy import ndarray

from gm_mgrl_atari.games import Games, Step
from gm_mgrl_atari.learner import NotFiniteError, Training
from gm_mgrl_atari.trainer import Trainer

__all__ = ["Still", "emulator_rate", "learner_rate"]


class Still:
    """Environments that take no time: every step answers the same random picture."""

    def __init__(self, envs: int, actions: int) -> None:
        self.envs, self.actions = envs, actions
        draw = np.random.default_rng(0)
        flags = np.zeros(envs, dtype=bool)
        picture = draw.integers(0, 256, (envs, 4, 84, 84), dtype=np.uint8)
        reward = draw.integers(-1, 2, envs).astype(np.float32)
        self._step = Step(picture, reward, flags, flags, ~flags, np.zeros(0), np.zeros(0, dtype=np.int64))

    def reset(self) -> UInt8[ndarray, "env frames side side"]:
        """The picture."""
        return self._step.observation

    def send(self, action: Int[ndarray, "env"]) -> None:
        """Does nothing."""

    def receive(self) -> Step:
        """The picture, and random rewards."""
        return self._step


def emulator_rate(groups: Sequence[Games], seconds: float = 2.0, seed: int = 0) -> float:
    """Environment steps per second with random actions."""
    draw = np.random.default_rng(seed)
    for group in groups:
        group.reset()

    def steps() -> int:
        for group in groups:
            group.send(draw.integers(0, group.actions, group.envs))
        return sum(len(group.receive().reward) for group in groups)

    return _rate(steps, seconds)


def learner_rate(
    training: Training, actions: int, seconds: float = 2.0, *, device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.channels_last, keep_activations: bool = True,
) -> float:  # fmt: skip
    """Environment steps per second of acting and updating alone; NaN if numbers aren't finite there."""
    training = replace(training, updates=10**12)  # however fast, it doesn't come to an end
    groups = [Still(training.envs, actions)]
    trainer = Trainer(training, groups, device=device, memory_format=memory_format, keep_activations=keep_activations)

    def steps() -> int:
        before = trainer.progress.emulated
        trainer.step()
        return trainer.progress.emulated - before

    try:
        return _rate(steps, seconds)
    except NotFiniteError:
        return math.nan


def _rate(steps: Callable[[], int], seconds: float) -> float:
    steps()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        done += steps()
    return done / elapsed
