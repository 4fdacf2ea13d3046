"""What the tabular apps share: their settings, their cells, and random MDPs wired to rollouts and a critic."""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
import gm_estimators as estimators
import gm_exact
import gm_lab

# few enough for the caches, enough to hide what a call costs
BLOCK = 5
KEY = ("figure", "algorithm", "estimator", "permutation", "sample_size", "inner_steps", "inner_lr", "mdp")
METRICS = ("accuracy", "correlation", "variance", "std_sum", "bias_sq")
COLUMNS = (*KEY, *METRICS)
MOST_UPDATES = 100_000
"""Of a training run along which something is measured."""
ROUNDING = 1e-12
"""Shorter meta-gradients are zero: rewards are of order one."""


def curves(x: str, *figures: str) -> gm_lab.Curves:
    """Each estimator and permutation is a curve over `x`, averaged over the MDPs."""
    by = tuple(column for column in KEY if column not in (x, "mdp"))
    return gm_lab.Curves(by=by, x=x, y=METRICS, over="mdp", figures=figures)


@dataclass(frozen=True)
class Tabular:
    """The random MDPs, and what is sampled in them."""

    repeats: int = 20
    """Independent estimates in each MDP, from which bias and variance are told apart."""
    states: int = 20
    """States of an MDP."""
    actions: int = 5
    """Actions in each state."""
    horizon: int = 20
    """Steps of a trajectory; the truth has an infinite horizon."""
    discount: float = 0.8
    """γ."""
    concentration: float = 0.001
    """Dirichlet parameter of the transition probabilities; small means almost deterministic."""
    critic_noise: float = 1.0
    """Error of the critic: its standard deviation in units of ‖V‖₂ / states."""
    critic: Literal["paper", "all", "none"] = "paper"
    """Who gets the critic: everyone but DiCE as in the paper, all, or none."""
    samples: Literal["independent", "shared"] = "independent"
    """Whether the Hessian is estimated from trajectories of its own, or from those of the inner gradient."""


@dataclass(frozen=True)
class TabularSettings(Tabular, gm_lab.RunSettings):
    """Flags of every tabular app."""

    estimators: tuple[str, ...] | None = None
    """Instead of the figure's: ad, dice, loaded_dice, lvc, tmaml, loaded_dice@λ, loaded_dice@λ,τ, or your own as
    package.module:function; each perhaps with +learnt, +jackknife or +correction."""
    permutations: tuple[str, ...] | None = None
    """Instead of the figure's: S (sampled) or E (exact) for the inner gradient, the Hessian and the outer gradient."""
    sample_sizes: tuple[int, ...] | None = None
    """Instead of the figure's: trajectories per estimate."""
    inner_steps: tuple[int, ...] | None = None
    """Instead of the figure's: K, policy-gradient steps in the inner loop."""
    inner_lrs: tuple[float, ...] | None = None
    """Instead of the figure's: α, the size of an inner step."""
    mdps: int = 10
    """Random MDPs; the intervals are over these."""


@dataclass(frozen=True)
class Cell:
    """Some MDPs at one K and α, for all that the figures ask there."""

    seed: int
    mdps: tuple[int, ...]
    inner_steps: int
    inner_lr: float
    grids: tuple[tuple[str, estimators.Grid], ...]
    tabular: Tabular
    unused: tuple[str, ...] = ()
    """Columns that only other cells of the run have something for."""


def cells(
    settings: TabularSettings, figures: Mapping[str, estimators.Grid], kind: type[Tabular] = Tabular
) -> list[Cell]:
    """One cell for each block of MDPs, K and α, whichever figures need it.

    Args:
        settings: the flags.
        figures: the grids of the figures that were asked for.
        kind: what of the flags goes into a cell.

    Raises:
        BadInput: if a flag is out of range.
    """
    for name, least in (("mdps", 1), ("repeats", 2), ("states", 1), ("actions", 1), ("horizon", 1)):
        gm_lab.require(settings, name, f"an integer of at least {least}", getattr(settings, name) >= least)
    gm_lab.require(settings, "discount", "0 ≤ γ < 1", 0 <= settings.discount < 1)
    gm_lab.require(settings, "concentration", "a positive number", settings.concentration > 0)
    gm_lab.require(settings, "critic_noise", "a number of at least 0", settings.critic_noise >= 0)
    overrides = {field.name: getattr(settings, field.name) for field in fields(estimators.Grid)}
    try:
        grids = {figure: grid.override(**overrides) for figure, grid in figures.items()}
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise gm_lab.BadInput(f"--{name.replace('_', '-')}:{rest}") from error
    tabular = kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})
    blocks = [tuple(range(first, min(first + BLOCK, settings.mdps))) for first in range(0, settings.mdps, BLOCK)]
    return [
        Cell(settings.seed, block, *point, tuple((f, g) for f, g in grids.items() if point in g.points()), tabular)
        for point in sorted({point for grid in grids.values() for point in grid.points()})
        for block in blocks
    ]


def measured(problem: estimators.TabularProblem, cell: Cell, algorithm: str) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α.

    Raises:
        BadInput: if a user's estimator fails.
    """
    grids = dict(cell.grids)
    with estimators_are_input():
        rows = estimators.measure(problem, grids, cell.mdps, inner_steps=cell.inner_steps, inner_lr=cell.inner_lr)
    return [dict.fromkeys(cell.unused, math.nan) | row | {"algorithm": algorithm} for row in rows]


@contextlib.contextmanager
def estimators_are_input() -> Iterator[None]:
    """Turns the fault of a user's estimator into `BadInput`."""
    try:
        yield
    except estimators.EstimatorError as error:
        raise gm_lab.BadInput(str(error)) from error


def require_points(settings: Any) -> None:
    """`--points`, the updates after which to measure.

    Raises:
        BadInput: if one is negative or out of reach.
    """
    gm_lab.require(settings, "points", "integers of at least 0", min(settings.points) >= 0)
    gm_lab.require(settings, "points", f"at most {MOST_UPDATES} updates", max(settings.points) <= MOST_UPDATES)


def require_truth(truth: Tensor, unit: str, numbers: Sequence[int], updates: int) -> None:
    """The exact meta-gradients `[unit, *, size]`, whose length errors are measured in.

    Raises:
        BadInput: if one is zero up to rounding, or not finite.
    """
    length = torch.linalg.vector_norm(truth, dim=-1).reshape(len(numbers), -1)
    for number, of_unit in zip(numbers, length.tolist(), strict=True):
        for found in of_unit:
            if not ROUNDING < found < math.inf:
                raise gm_lab.BadInput(
                    f"{unit} {number} after {updates} updates: expected an exact meta-gradient that is finite and not "
                    f"zero, got one of length {found:.3g}; there is nothing to measure errors by"
                )


def require_finite(rows: Sequence[gm_lab.Row], columns: Sequence[str]) -> None:
    """What was measured in those columns.

    Raises:
        BadInput: if a number is infinite or NaN.
    """
    for row in rows:
        for column in columns:
            if not math.isfinite(float(row[column])):
                where = ", ".join(f"{name} {row[name]}" for name in ("estimator", "inner_lr", "updates"))
                raise gm_lab.BadInput(f"expected finite measurements, got {column} {row[column]} at {where}")


class RandomMDPs:
    """The MDPs of a cell, batch axes [MDP, repeat], with common random numbers for rollouts and critics."""

    def __init__(self, cell: Cell, device: torch.device) -> None:
        self.tabular = tabular = cell.tabular
        size = max(size for _, grid in cell.grids for size in grid.sample_sizes)
        self.shape = (len(cell.mdps), tabular.repeats, tabular.states, tabular.actions)

        def generator(mdp: int, *labels: str | int) -> np.random.Generator:
            return np.random.default_rng(gm_lab.seed_of(cell.seed, mdp, *labels))

        self._generators = [partial(generator, mdp) for mdp in cell.mdps]
        drawn = [
            envs.random_mdp(
                generator(mdp, "mdp"),
                states=tabular.states,
                actions=tabular.actions,
                concentration=tabular.concentration,
            )
            for mdp in cell.mdps
        ]
        transition, self.reward = (torch.stack(x).unsqueeze(1).to(device) for x in zip(*drawn, strict=True))
        self.mdp = gm_exact.TabularMDP(transition, self.reward, 0, tabular.discount)
        self._next_states = envs.successors(transition)
        self._noise = envs.CommonNoise(
            self._generators,
            (tabular.repeats,),
            size,
            tabular.horizon,
            tabular.states,
            device,
        )

    def fresh(self, *labels: str | int) -> "RandomMDPs":
        """The same MDPs with random numbers of their own, such as those of one update of a training run."""
        other = copy.copy(self)
        other._generators = [partial(generator, *labels) for generator in self._generators]
        other._noise = replace(self._noise, generators=other._generators, _drawn={})
        return other

    def _stream(self, role: str) -> str:
        return "inner" if role == "hessian" and self.tabular.samples == "shared" else role

    def rollout(self, role: str, step: int, policy: Tensor, rows: slice | Tensor) -> envs.Rollout:
        """The trajectories of one role at one step that have those numbers."""
        return envs.rollout(policy, self._next_states, self._noise.uniform(self._stream(role), step)[..., rows, :])

    def critic_error(self, role: str, step: int, value: Tensor) -> Tensor:
        """What the critic of one role and step is off by: a normal error of the size that the flags say."""
        size = torch.linalg.vector_norm(value, dim=-1, keepdim=True) / self.tabular.states
        error: Tensor = self.tabular.critic_noise * size * self._noise.critic(self._stream(role), step)
        return error

    def normal(self, purpose: str, step: int) -> Tensor:
        """A standard normal number for each parameter of each repeat, for a purpose of one's own."""
        drawn = [generator(purpose, step).standard_normal(self.shape[1:]) for generator in self._generators]
        return torch.from_numpy(np.stack(drawn)).to(self.reward.device)


def warm_up(settings: gm_lab.RunSettings) -> None:
    """One thread for each worker, since the workers fill the cores; tensors go to the device that was asked for."""
    torch.set_num_threads(1)
    try:
        torch.set_default_device("cpu" if settings.device == "auto" else settings.device)
        torch.zeros(1)
    except (RuntimeError, AssertionError) as error:
        found = f"got {settings.device!r}"
        raise gm_lab.BadInput(f"--device: expected cpu, or cuda where there is a GPU, {found}") from error
