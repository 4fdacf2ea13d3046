"""One budget of trajectories split between inner gradient, Hessian and outer gradient, at a point of a training run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
import tabular
from gm_envs_tabular import Rollout
from gm_estimators import TabularProblem
from gm_estimators.debias import trajectories_drawn
from gm_estimators.decomposition import Objective, Role
from gm_estimators.tabular import TabularSample
from maml_tabular import ExactValue

ROLES: tuple[Role, ...] = ("inner", "hessian", "outer")


@dataclass(frozen=True)
class Split:
    """How a budget is divided.

    Attributes:
        name: "a:b:c" for inner gradient, Hessian and outer gradient, "a:b" if the first two read one batch.
        weights: the numbers in it.
    """

    name: str
    weights: tuple[int, ...]

    @property
    def shares(self) -> tuple[int, ...]:
        """The weights without a common factor."""
        return tuple(weight // math.gcd(*self.weights) for weight in self.weights)

    @property
    def shared(self) -> bool:
        """Whether inner gradient and Hessian read one batch."""
        return len(self.weights) == 2


def split_of(name: str) -> Split:
    """The split of a name.

    Raises:
        BadInput: if it is not two or three positive whole numbers with colons between them.
    """
    parts = name.split(":")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise gm_lab.BadInput(f"--splits: expected a:b:c, or a:b for a batch that I and II share, got {name!r}")
    return Split(name, tuple(int(part) for part in parts))


@dataclass(frozen=True)
class Allocation:
    """What each role gets of a budget.

    Attributes:
        blocks: into how many blocks a sample is cut, 1 unless there is a jackknife.
        block: trajectories of a block, by role.
        drawn: trajectories of all roles and steps, with those that a jackknife draws again; at most the budget.
    """

    blocks: int
    block: Mapping[Role, int]
    drawn: int

    def size(self, role: Role) -> int:
        """Trajectories of one role in a step."""
        return self.blocks * self.block[role]


def allocate(budget: int, split: Split, debias: estimators.Debias | None, inner_steps: int) -> Allocation:
    """The largest samples that a split has for a budget B.

        n_r = blocks · ⌊B w_r / (Σ w · c_r)⌋,   c_I = c_II = d₀ + (K − 1) d,   c_III = d

    with d₀ and d trajectories drawn at θ⁰ and at a later θ for each trajectory of a block (`trajectories_drawn`).

    Args:
        budget: B, trajectories in all.
        split: the weights w.
        debias: what the estimate is combined of.
        inner_steps: K.

    Raises:
        BadInput: if a role is left without a trajectory.
    """
    blocks = debias.blocks if isinstance(debias, estimators.Jackknife) else 1
    first, later = trajectories_drawn(debias, blocks)
    costs: dict[Role, int] = {"inner": first + (inner_steps - 1) * later, "outer": later}
    costs["hessian"] = costs["inner"]
    paid: tuple[Role, ...] = ("inner", "outer") if split.shared else ROLES
    total = sum(split.weights)
    block: dict[Role, int] = {
        role: budget * w // (total * costs[role]) for role, w in zip(paid, split.weights, strict=True)
    }
    if not all(block.values()):
        raise gm_lab.BadInput(
            f"--sample-sizes: expected enough for the split {split.name} at K = {inner_steps}, got {budget}"
        )
    drawn = sum(block[role] * costs[role] for role in paid)
    block.setdefault("hessian", block["inner"])
    return Allocation(blocks, block, drawn)


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
        found: list[dict[Role, TabularProblem]] = [{} for _ in numbers]
        for role, problem in self.problems.items():
            within = torch.arange(self.block[role], device=numbers[0].device)
            rows = [(some.unsqueeze(-1) * self.block[role] + within).flatten(-2) for some in numbers]
            parts = problem.parts(rows)
            assert parts is not None  # only an intrinsic reward forbids it
            for problems, part in zip(found, parts, strict=True):
                problems[role] = part
        return [SplitProblem(problems, self.block, shared=self.shared) for problems in found]


def maml_at(
    mdps: tabular.RandomMDPs, params: Tensor, settings: tabular.Tabular, gae_lambdas: tuple[float, ...], most: int
) -> dict[float, TabularProblem]:
    """MAML on random MDPs at any φ = θ⁰, for each λ; all of them share what is drawn at θ⁰.

    Args:
        mdps: the MDPs.
        params: θ⁰, shape `[mdp, repeat, state, action]`.
        settings: discount, and who gets the critic.
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

    def critic(role: str, step: int, at: Tensor) -> Tensor:
        value = gm_exact.state_values(mdps.mdp, at)
        return value + mdps.critic_error(role, step, value)

    return {
        gae_lambda: TabularProblem(
            params=params,
            exact=lambda _role, at: ExactValue(mdps.mdp, at),
            rollout=rollout,
            critic=critic,
            reward=mdps.reward,
            discount=settings.discount,
            gae_lambda=gae_lambda,
            critic_for=settings.critic,
        )
        for gae_lambda in gae_lambdas
    }


def trained(mdps: tabular.RandomMDPs, updates: int, meta_lr: float, *, inner_steps: int, inner_lr: float) -> Tensor:
    """φ after some exact meta-gradient steps from zero, shape `[mdp, 1, state, action]`."""
    params = torch.zeros_like(mdps.reward)
    for _ in range(updates):
        step = gm_exact.maml_meta_gradient(mdps.mdp, params, inner_steps=inner_steps, inner_lr=inner_lr)
        params = params + meta_lr * step
    return params
