"""MAML with samples of different sizes for its roles, at any point of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import gm_estimators as estimators
from gm_envs_tabular import Rollout
from gm_estimators import TabularProblem
from gm_estimators.decomposition import Objective, Role
from gm_estimators.tabular import TabularSample
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.problem import maml


@dataclass(frozen=True)
class Blocks:
    """A sample whose size is counted in blocks."""

    sample: TabularSample
    block: int

    @property
    def size(self) -> int:
        """How many blocks."""
        return self.sample.cell.shape[-2] // self.block

    def first(self, size: int) -> "Blocks":
        """The first `size` blocks."""
        return Blocks(self.sample.first(size * self.block), self.block)


class SplitProblem:
    """A problem whose roles have samples of different sizes: sizes that it is asked for count blocks.

    Args:
        problems: for each role one and the same problem, or its parts.
        block: trajectories of a block, by role.
        shared: whether II reads the trajectories of I.
    """

    meta_is_params = True

    def __init__(self, problems: Mapping[Role, TabularProblem], block: Mapping[Role, int], *, shared: bool) -> None:
        self.problems, self.block, self.shared = problems, block, shared
        self.params = problems["outer"].params
        # what I has drawn, II need not draw again
        self._latest: dict[tuple[Role, int], tuple[Tensor, Blocks]] = {}

    def exact(self, role: Role, params: Tensor) -> Objective:
        """The exact objective."""
        return self.problems[role].exact(role, params)

    def draw(self, role: Role, step: int, params: Tensor, size: int) -> Blocks:
        """That many blocks."""
        source: Role = "inner" if self.shared and role == "hessian" else role
        at, blocks = self._latest.get((source, step), (None, None))
        if blocks is None or at is not params or blocks.size != size:
            drawn = self.problems[source].draw(source, step, params, size * self.block[source])
            blocks = Blocks(drawn, self.block[source])
            self._latest[source, step] = params, blocks
        return blocks

    def sampled(self, role: Role, estimator: estimators.Estimator, sample: Blocks, params: Tensor) -> Objective:
        """The estimated objective."""
        return self.problems[role].sampled(role, estimator, sample.sample, params)

    def parts(self, numbers: Sequence[Tensor]) -> "list[SplitProblem]":
        """The problem with those blocks of its samples along a new first axis."""
        by_part: list[dict[Role, TabularProblem]] = [{} for _ in numbers]
        for role, problem in self.problems.items():
            within = torch.arange(self.block[role], device=numbers[0].device)
            rows = [(some.unsqueeze(-1) * self.block[role] + within).flatten(-2) for some in numbers]
            parts = problem.parts(rows)
            assert parts is not None  # only an intrinsic reward forbids it
            for problems, part in zip(by_part, parts, strict=True):
                problems[role] = part
        return [SplitProblem(problems, self.block, shared=self.shared) for problems in by_part]


def maml_at(mdps: RandomMDPs, params: Tensor, gae_lambdas: Sequence[float], most: int) -> dict[float, TabularProblem]:
    """MAML on random MDPs at any φ = θ⁰, for each λ; all of them share what is drawn at θ⁰.

    Args:
        mdps: the MDPs.
        params: θ⁰, shape `[mdp, repeat, state, action]`.
        gae_lambdas: the λ.
        most: trajectories of the largest sample.
    """
    start: dict[str, Rollout] = {}

    def rollout(role: str, step: int, policy: Tensor, rows: slice | Tensor) -> Rollout:
        if step > 0:
            return mdps.rollout(role, step, policy, rows)
        if role not in start:
            start[role] = mdps.rollout(role, step, policy, slice(most))
        return Rollout(*(x[..., rows, :] for x in start[role]))

    return {value: maml(mdps, params, gae_lambda=value, rollout=rollout) for value in gae_lambdas}
