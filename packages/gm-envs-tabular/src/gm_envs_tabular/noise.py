"""Common random numbers: the same stream for the same purpose, whoever asks and in whatever order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gm_envs_tabular.checks import integer


@dataclass(frozen=True)
class CommonNoise:
    """Random numbers of one experiment, one stream for each (role, step).

    Two estimates that differ in anything else, such as the estimator or the policy, get the same numbers, and the
    first n of `size` trajectories have the numbers that n trajectories would have.

    Attributes:
        generators: one for each problem of the leading batch axis: (role, step) ↦ a fresh generator of that stream.
        batch: the other batch axes, the independent repeats of a problem.
        size: number of trajectories N.
        horizon: number of steps T.
        states: number of states S.
        device: where the numbers go.
    """

    generators: Sequence[Callable[[str, int], np.random.Generator]]
    batch: tuple[int, ...]
    size: int
    horizon: int
    states: int
    device: torch.device | str = "cpu"
    _drawn: dict[tuple[str, int], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.generators:
            raise ValueError("generators: expected at least one problem's, got none")
        for name in ("size", "horizon", "states"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))

    def critic(self, role: str, step: int) -> Float[Tensor, "problem *batch state"]:
        """A standard normal number for each state, the error of a critic."""
        return self._stream(role, step)[0]

    def uniform(self, role: str, step: int) -> Float[Tensor, "problem *batch trajectory time"]:
        """A uniform number for each step of each trajectory, for `rollout`."""
        return self._stream(role, step)[1]

    def _stream(self, role: str, step: int) -> tuple[Tensor, Tensor]:
        if (role, step) not in self._drawn:
            rngs = [generator(role, step) for generator in self.generators]
            normal = torch.stack([torch.from_numpy(rng.standard_normal((*self.batch, self.states))) for rng in rngs])
            # drawn trajectory by trajectory, so that more of them extend fewer; stored time first, as they are read
            uniform = torch.empty(self.horizon, self.size, len(rngs), *self.batch, dtype=torch.float64, device="cpu")
            for problem, rng in enumerate(rngs):
                drawn = torch.from_numpy(rng.random((self.size, self.horizon, *self.batch)))
                uniform[:, :, problem] = drawn.transpose(0, 1)
            self._drawn[role, step] = normal.to(self.device), uniform.to(self.device).movedim((0, 1), (-1, -2))
        return self._drawn[role, step]
