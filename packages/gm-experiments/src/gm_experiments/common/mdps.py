"""Random MDPs wired to rollouts and a critic, on common random numbers."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
import gm_exact
import gm_lab
from gm_experiments.common.settings import Cell


class RandomMDPs:
    """The MDPs of a cell, batch axes [MDP, repeat], with common random numbers for rollouts and critics."""

    def __init__(self, cell: Cell, device: torch.device | str) -> None:
        self.tabular = tabular = cell.tabular
        self.shape = (len(cell.mdps), tabular.repeats, tabular.states, tabular.actions)

        def generator(mdp: int, *labels: str | int) -> np.random.Generator:
            return np.random.default_rng(gm_lab.seed_of(cell.seed, mdp, *labels))

        self._generators = [partial(generator, mdp) for mdp in cell.mdps]
        drawn = [
            envs.random_mdp(
                of_mdp("mdp"), states=tabular.states, actions=tabular.actions, concentration=tabular.concentration
            )
            for of_mdp in self._generators
        ]
        transition, self.reward = (torch.stack(x).unsqueeze(1).to(device) for x in zip(*drawn, strict=True))
        self.mdp = gm_exact.TabularMDP(transition, self.reward, 0, tabular.discount)
        self._next_states = envs.successors(transition)
        most = max(size for _, grid in cell.grids for size in grid.sample_sizes)
        self._noise = envs.CommonNoise(
            self._generators, (tabular.repeats,), most, tabular.horizon, tabular.states, device
        )

    def fresh(self, *labels: str | int) -> "RandomMDPs":
        """The same MDPs with random numbers of their own, such as those of one update of a training run."""
        other = copy.copy(self)
        other._generators = [partial(generator, *labels) for generator in self._generators]
        other._noise = replace(self._noise, generators=other._generators, _drawn={})
        return other

    def varied(self, **changes: Any) -> "RandomMDPs":
        """The same MDPs and random numbers with another critic."""
        other = copy.copy(self)
        other.tabular = replace(self.tabular, **changes)
        return other

    def zeros(self) -> Tensor:
        """θ of the uniform policy in every MDP and repeat."""
        return torch.zeros(self.shape, dtype=torch.float64, device=self.reward.device)

    def rollout(self, role: str, step: int, policy: Tensor, rows: slice | Tensor) -> envs.Rollout:
        """The trajectories of one role at one step that have those numbers."""
        return envs.rollout(policy, self._next_states, self._noise.uniform(role, step)[..., rows, :])

    def critic_error(self, role: str, step: int, value: Tensor) -> Tensor:
        """What the critic of one role and step is off by: a normal error of the size that the flags say."""
        size = torch.linalg.vector_norm(value, dim=-1, keepdim=True) / self.tabular.states
        error: Tensor = self.tabular.critic_noise * size * self._noise.critic(role, step)
        return error

    def normal(self, purpose: str, step: int) -> Tensor:
        """A standard normal number for each parameter of each repeat, for a purpose of one's own."""
        drawn = [generator(purpose, step).standard_normal(self.shape[1:]) for generator in self._generators]
        return torch.from_numpy(np.stack(drawn)).to(self.reward.device)
