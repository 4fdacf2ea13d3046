"""Bias and variance of the MAML-RL meta-gradient on random tabular MDPs (paper, Section 5.1 and G.1; Figures 1ab, 4, 5, 6)."""

import sys
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

import maml_report
import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
import gm_estimators as estimators
import gm_exact
import gm_lab

POWERS = (2, 4, 8, 16, 32, 64, 128, 256)
BLOCK = 5
Figure = Literal["fig1", "fig4", "fig5", "fig6"]


FIGURES: dict[str, estimators.Grid] = {
    "fig1": estimators.Grid(estimators=("lvc", "ad"), permutations=("SSE", "SEE", "ESE"), sample_sizes=POWERS),
    "fig4": estimators.Grid(sample_sizes=POWERS),
    "fig5": estimators.Grid(inner_lrs=(1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0)),
    "fig6": estimators.Grid(inner_steps=(1, 2, 3, 4, 5, 6)),
}


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
class Settings(Tabular, gm_lab.RunSettings):
    """How biased is the MAML-RL meta-gradient, where does the bias come from, and which estimator fixes it?

    Without a flag: Figures 1(a,b) and 4 of the paper at its full budget, with the exact meta-gradient beside every estimate.
    """

    figure: tuple[Figure, ...] = ("fig1", "fig4")
    """Figures to reproduce; fig1 and fig4 vary the sample size, fig5 the inner learning rate, fig6 the inner steps."""
    estimators: tuple[str, ...] | None = None
    """Instead of the figure's: ad, dice, loaded-dice, lvc, or your own as package.module:function."""
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


class ExactValue:
    """J(θ) of an MDP, as `gm_estimators.decompose` asks for exact objectives."""

    meta_gradient = None

    def __init__(self, mdp: gm_exact.TabularMDP, params: Tensor) -> None:
        self._evaluation = gm_exact.evaluate(mdp, params)
        self.gradient = self._evaluation.gradient

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, None]:
        """Hessian-vector products."""
        return self._evaluation.hessian_vector_product(cotangent), None


def maml_problem(cell: Cell, size: int, device: torch.device) -> estimators.TabularProblem:
    """MAML on random MDPs; every repeat draws its own trajectories, at most `size` for an estimate."""
    tabular = cell.tabular
    shape = (tabular.states, tabular.actions)

    def generator(mdp: int, *labels: str | int) -> np.random.Generator:
        return np.random.default_rng(gm_lab.seed_of(cell.seed, mdp, *labels))

    drawn = [
        envs.random_mdp(
            generator(mdp, "mdp"), states=shape[0], actions=shape[1], concentration=tabular.concentration
        )
        for mdp in cell.mdps
    ]
    # axes: MDP, repeat
    transition, reward = (torch.stack(x).unsqueeze(1).to(device) for x in zip(*drawn, strict=True))
    mdp = gm_exact.TabularMDP(transition, reward, 0, tabular.discount)
    next_states = envs.successors(transition)
    noise = envs.CommonNoise(
        [partial(generator, mdp) for mdp in cell.mdps], (tabular.repeats,), size, tabular.horizon, shape[0], device
    )

    def stream(role: str) -> str:
        return "inner" if role == "hessian" and tabular.samples == "shared" else role

    def rollout(role: str, step: int, policy: Tensor, count: int) -> envs.Rollout:
        return envs.rollout(policy, next_states, noise.uniform(stream(role), step)[..., :count, :])

    def critic(role: str, step: int, params: Tensor) -> Tensor:
        value = gm_exact.state_values(mdp, params)
        error = tabular.critic_noise * value.norm(dim=-1, keepdim=True) / tabular.states
        return value + error * noise.critic(stream(role), step)

    return estimators.TabularProblem(
        params=torch.zeros(len(cell.mdps), tabular.repeats, *shape, dtype=torch.float64, device=device),
        exact=lambda _role, params: ExactValue(mdp, params),
        rollout=rollout,
        critic=critic,
        reward=reward,
        discount=tabular.discount,
        critic_for=tabular.critic,
    )


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α."""
    grids = dict(cell.grids)
    size = max(size for grid in grids.values() for size in grid.sample_sizes)
    problem = maml_problem(cell, size, torch.get_default_device())
    try:
        rows = estimators.measure(problem, grids, cell.mdps, inner_steps=cell.inner_steps, inner_lr=cell.inner_lr)
    except estimators.EstimatorError as error:
        raise gm_lab.BadInput(str(error)) from error
    return [row | {"algorithm": "maml"} for row in rows]


def cells(settings: Settings) -> list[Cell]:
    """One cell for each block of MDPs, K and α, whichever figures need it."""
    tabular = Tabular(**{field.name: getattr(settings, field.name) for field in fields(Tabular)})
    names = [field.name for field in fields(estimators.Grid)]
    try:
        grids = {
            figure: FIGURES[figure].override(**{name: getattr(settings, name) for name in names})
            for figure in settings.figure
        }
    except ValueError as error:
        raise gm_lab.BadInput(f"--{str(error).replace('_', '-', 1)}") from error
    points = sorted({point for grid in grids.values() for point in grid.points()})
    blocks = [tuple(range(first, min(first + BLOCK, settings.mdps))) for first in range(0, settings.mdps, BLOCK)]
    return [
        Cell(settings.seed, block, *point, tuple((f, g) for f, g in grids.items() if point in g.points()), tabular)
        for point in points
        for block in blocks
    ]
