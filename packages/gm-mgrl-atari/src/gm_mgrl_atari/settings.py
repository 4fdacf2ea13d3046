"""What a training run's numbers depend on."""

from dataclasses import dataclass
from typing import Literal

import torch

from gm_estimators import EstimatorError
from gm_estimators.optimisers import adam, linear_decay
from gm_mgrl_atari.laps import Laps
from gm_mgrl_atari.learner import Learner
from gm_mgrl_atari.network import Network
from gm_mgrl_atari.objectives import policy_estimator

ALGORITHMS: dict[str, str] = {"a2c": "ad", "mgrl": "ad", "mgrl-lvc": "lvc"}
"""Each with the estimator of its policy term; A2C's first derivatives are the same for all."""
FLOAT32 = torch.finfo(torch.float32)
LEAST = FLOAT32.tiny / 0.03
"""Adam multiplies ε by √(1 − 0.999ⁱ) ≥ 0.03: below this it is no float32 number any more, and a step is 0 / 0."""


@dataclass(frozen=True)
class Training:
    """What a run's numbers depend on besides the seed (paper, Table 4)."""

    algorithm: str = "mgrl-lvc"
    """a2c keeps the four coefficients, mgrl learns them, mgrl-lvc with LVC in the policy term."""
    estimator: str | None = None
    """Of the policy term, instead of the algorithm's: ad, lvc, loaded_dice or your own as package.module:function."""
    schedule: Literal["discard", "online"] = "discard"
    """discard: of each window's K updates only the first is kept, as in the paper; online: all are kept, and the outer
    batch is the next window's first."""
    inner_steps: int = 3
    """K, updates that the meta-gradient looks through."""
    updates: int = 125_000
    """Kept updates."""
    envs: int = 64
    """Environments."""
    steps: int = 5
    """Steps of each environment per update."""
    inner_lr: float = 7e-4
    """Adam's learning rate, which decays linearly to 0."""
    meta_lr: float = 1e-3
    """Learning rate of the meta-parameters' Adam."""
    max_grad_norm: float = 0.5
    """Norm to which gradients of θ are clipped."""
    adam_eps: float = 1e-8
    """ε of Adam."""
    conditioned: bool = True
    """Whether the critic is told γ, in A2C as well."""

    def check(self) -> None:
        """Refuses settings that make no sense.

        Raises:
            ValueError: with the name, what was expected and what came.
        """
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: expected one of {', '.join(ALGORITHMS)}, got {self.algorithm!r}")
        for name in ("inner_steps", "updates", "envs", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {getattr(self, name)}")
        for name in ("inner_lr", "max_grad_norm", "adam_eps"):
            if not LEAST <= getattr(self, name) <= FLOAT32.max:
                raise ValueError(
                    f"{name}: expected a finite number above 0, also in float32, got {getattr(self, name)}"
                )
        if not 0 <= self.meta_lr <= FLOAT32.max:
            raise ValueError(f"meta_lr: expected a finite number of at least 0, also in float32, got {self.meta_lr}")
        if self.estimator is not None:
            try:
                policy_estimator(self.estimator)
            except EstimatorError as error:
                raise ValueError(f"estimator: {error}") from error

    def learner(self, network: Network, lap: Laps | None = None) -> Learner:
        """The learner of these settings.

        Args:
            network: π and V.
            lap: told when a part of the work is done.
        """
        rate = linear_decay(self.inner_lr, self.updates)
        estimator = policy_estimator(self.estimator or ALGORITHMS[self.algorithm])
        rule = adam(rate, max_norm=self.max_grad_norm, eps=self.adam_eps)
        return Learner(network, estimator, rule, lap=lap or Laps())
