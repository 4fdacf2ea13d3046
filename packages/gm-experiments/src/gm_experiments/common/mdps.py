"""Random MDPs wired to rollouts and a critic on common random numbers, MAML on them, and what is measured there."""

import copy
import math
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
import gm_estimators as estimators
import gm_exact
import gm_lab
from gm_experiments.common.checks import estimators_are_input, require_finite, require_policy
from gm_experiments.common.problem import TabularProblem
from gm_experiments.common.settings import PERMUTATIONS, Cell

SMALLER = ("--inner-lrs", "--critic-noise")


class RandomMDPs:
    """The MDPs of a cell, batch axes [MDP, repeat], with common random numbers for rollouts and critics."""

    def __init__(self, cell: Cell, device: torch.device | str) -> None:
        self.tabular = tabular = cell.tabular
        self.shape = (len(cell.mdps), tabular.repeats, tabular.states, tabular.actions)

        def generator(mdp: int, *labels: str | int) -> np.random.Generator:
            return np.random.default_rng(gm_lab.seed_of(cell.seed, mdp, *labels))

        self._generators = [partial(generator, mdp) for mdp in cell.mdps]
        terms: dict[str, Any] = {name: getattr(tabular, name) for name in ("states", "actions", "concentration")}
        drawn = [envs.random_mdp(of_mdp("mdp"), **terms) for of_mdp in self._generators]
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
        """The trajectories of one role at one step that have those numbers; `BadInput` for a policy that has NaN."""
        require_policy(policy, f"{role} step {step}", *SMALLER)
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


def measured(problem: TabularProblem, cell: Cell, algorithm: str) -> list[gm_lab.Row]:
    """The rows of all figures of a cell, measured on shared samples; batch axes [MDP, repeat], which share φ and θ⁰."""
    grids = dict(cell.grids)
    each = partial(estimators.Sizes.each, shared=cell.tabular.samples == "shared")
    sizes = {size: each(size) for grid in grids.values() for size in grid.sample_sizes}
    with estimators_are_input():
        estimates = estimators.decompose(
            problem,
            [estimators.load(name) for name in sorted({name for grid in grids.values() for name in grid.estimators})],
            permutations=[p for p in PERMUTATIONS if any(p in grid.permutations for grid in grids.values())],
            sizes=[sizes[size] for size in sorted(sizes)],
            **cell.terms,
        )
    truth = estimators.exact_meta_gradient(problem, **cell.terms)[:, 0].flatten(1)
    squares = truth.square().sum(-1).tolist()
    stacked = torch.stack([estimate.flatten(2) for estimate in estimates.values()])
    metrics = estimators.metrics.summary(stacked, truth.expand(len(estimates), -1, -1))
    numbers = {name: dict(zip(estimates, values.tolist(), strict=True)) for name, values in metrics.items()}
    fixed: gm_lab.Row = dict.fromkeys(cell.unused, math.nan) | {"algorithm": algorithm} | cell.terms
    rows = [
        fixed
        | {"figure": figure, "estimator": name, "permutation": permutation, "sample_size": size, "mdp": mdp}
        | {metric: values[name, permutation, sizes[size]][i] for metric, values in numbers.items()}
        | {"truth_sq": squares[i]}
        for figure, grid in grids.items()
        for name, permutation, size in product(grid.estimators, grid.permutations, grid.sample_sizes)
        for i, mdp in enumerate(cell.mdps)
    ]
    require_finite(rows, ("variance", "std_sum", "bias_sq", "truth_sq"), *SMALLER)
    return rows
