import functools
import time
from collections.abc import Callable

import hypothesis
import jaxtyping
import numpy as np
import pytest
import torch

with jaxtyping.install_import_hook("gm_mgrl_atari", "shapes.checked"):
    from gm_mgrl_atari import INITIAL_LOGITS, Batch, Network, Step

F64 = torch.float64
TINY = Network(actions=3, frames=2, size=6, layers=((3, 3, 2),), hidden=4, embedding=2)

torch.set_num_threads(1)
hypothesis.settings.register_profile("any machine", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def network() -> Network:
    return TINY


@pytest.fixture
def small_network(monkeypatch):
    """Trainers get a network of the Atari shape that is a thousandth of the paper's, where its size says nothing."""
    small = functools.partial(Network, layers=((4, 8, 8), (4, 4, 3)), hidden=8, embedding=2)
    monkeypatch.setattr("gm_mgrl_atari.trainer.Network", small)


@pytest.fixture(scope="session")
def random_batch() -> Callable[..., Batch]:
    return _random_batch


def _random_batch(seed: int, envs: int = 3, time: int = 4, network: Network = TINY) -> Batch:
    """Random experience that has a lost life, a time limit and a reset step."""
    draw = torch.Generator().manual_seed(seed)
    flags = torch.zeros(3, envs, time, dtype=torch.bool)
    flags[0, 0, 1] = flags[1, 1, 2] = flags[2, 1, 3] = True
    frames = (envs, time + 1, network.frames, network.size, network.size)
    return Batch(
        observation=torch.randint(0, 256, frames, generator=draw, dtype=torch.uint8),
        action=torch.randint(network.actions, (envs, time), generator=draw),
        reward=torch.randint(-1, 2, (envs, time), generator=draw).float(),
        terminated=flags[0],
        truncated=flags[1],
        valid=~flags[2],
    )


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.tensor(INITIAL_LOGITS, dtype=F64)


@pytest.fixture
def params() -> dict[str, torch.Tensor]:
    """θ of `TINY`, with weights large enough for every derivative to be felt."""
    draw = torch.Generator().manual_seed(0)
    initial = TINY.init(draw, dtype=F64)
    return {name: value + 0.3 * torch.randn(value.shape, generator=draw, dtype=F64) for name, value in initial.items()}


class WhichSide:
    """A bandit in pictures of the Atari shape: a bright square shows which of three actions pays 1; games of 8 steps.

    Noise and the square's height change from step to step; a life is lost after every fourth step.
    """

    actions = 3

    def __init__(self, envs: int, seed: int = 0, delay: float = 0.0) -> None:
        self.envs, self.delay = envs, delay
        self._draw = np.random.default_rng(seed)

    def reset(self) -> np.ndarray:
        self._time = np.arange(self.envs) % 8
        self._return = np.zeros(self.envs)
        return self._show()

    def _show(self) -> np.ndarray:
        self._side = self._draw.integers(0, 3, self.envs)
        frames = self._draw.integers(0, 60, (self.envs, 4, 84, 84), dtype=np.uint8)
        top = self._draw.integers(0, 60, self.envs)
        for env, (side, y) in enumerate(zip(self._side, top, strict=True)):
            frames[env, :, y : y + 24, 28 * side : 28 * side + 24] = 255
        return frames

    def send(self, action: np.ndarray) -> None:
        self._action = action

    def receive(self) -> Step:
        time.sleep(self.delay)
        reset = self._time == 8
        reward = np.where(reset, 0.0, self._action == self._side).astype(np.float32)
        ended = self._return[reset]
        self._return = np.where(reset, 0, self._return + reward)
        self._time = np.where(reset, 0, self._time + 1)
        return Step(
            self._show(),
            reward,
            ~reset & (self._time % 4 == 0),
            np.zeros(self.envs, dtype=bool),
            ~reset,
            ended,
            np.full(len(ended), 8),
        )


@pytest.fixture(scope="session")
def which_side() -> type[WhichSide]:
    return WhichSide
