"""Where the error of a MAML-RL meta-gradient comes from, along training: each source's share of bias and variance."""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

import attribution_report
import gm_estimators as estimators
import gm_exact
import gm_lab
import tabular
from frontier_problem import maml_at
from gm_estimators.attribution import MEASURES

Source = Literal["composition", "hessian", "outer", "shared_batch", "critic", "clipping", "adam"]
SOURCES: tuple[Source, ...] = ("composition", "hessian", "outer", "shared_batch", "critic", "clipping", "adam")
ROLES = SOURCES[:3]
DECAYS = (0.9, 0.999)
KEY = (*tabular.KEY[:-1], "updates", "source", "mdp")
METRICS = ("bias_sq", "variance", "truth_sq")
ALL = "all"
"""The row with the error itself, to which the shares sum."""
GRID = estimators.Grid(
    estimators=("ad", "loaded_dice", "lvc"), permutations=("SSS",), sample_sizes=(64,), inner_steps=(2,)
)


@dataclass(frozen=True)
class Settings(tabular.TabularSettings):
    """How much of the meta-gradient's bias and variance has each of its sources, and how does it change with training?

    Without a flag: MAML on random MDPs with K = 2, 64 trajectories for each role and step, after 0 to 30 updates.
    """

    points: tuple[int, ...] = (0, 3, 10, 30)
    """After how many exact meta-gradient steps to measure."""
    meta_lr: float = 1.0
    """Size of a meta-gradient step."""
    sources: tuple[Source, ...] = SOURCES
    """What is as in practice, sampled or noisy; all else is exact or left out."""
    clip_norm: float = 1.0
    """clipping: the longest that an estimate may be, in units of the exact meta-gradient's length."""


@dataclass(frozen=True)
class Cell(tabular.Cell):
    """Some MDPs at one K, α and point of training."""

    updates: int = 0
    meta_lr: float = 1.0
    sources: tuple[str, ...] = SOURCES
    clip_norm: float = 1.0


def cells(settings: Settings) -> list[Cell]:
    """One cell for each block of MDPs, K, α and point.

    Raises:
        BadInput: if a flag is out of range.
    """
    independent = settings.samples == "independent"
    gm_lab.require(settings, "samples", "independent, since shared_batch is a source", independent)
    gm_lab.require(settings, "permutations", "SSS, since --sources says what is exact", settings.permutations is None)
    gm_lab.require(settings, "meta_lr", "a positive number", settings.meta_lr > 0)
    gm_lab.require(settings, "clip_norm", "a positive number", settings.clip_norm > 0)
    gm_lab.require(settings, "points", "integers of at least 0", min(settings.points) >= 0)
    for name in ("points", "sources"):
        values = getattr(settings, name)
        gm_lab.require(settings, name, "different values", len(set(values)) == len(values))
    return [
        Cell(
            cell.seed, cell.mdps, cell.inner_steps, cell.inner_lr, cell.grids, cell.tabular,
            updates=point, meta_lr=settings.meta_lr, sources=settings.sources, clip_norm=settings.clip_norm,
        )
        for cell in tabular.cells(settings, {"attribution": GRID})
        for point in settings.points
    ]  # fmt: skip


def clipped(x: Tensor, longest: Tensor) -> Tensor:
    """Estimates no longer than c: x · min(1, c / ‖x‖) (Pascanu, Mikolov and Bengio 2013), along the last axis."""
    short: Tensor = x * (longest / torch.linalg.vector_norm(x, dim=-1, keepdim=True)).clamp(max=1)
    return short


@dataclass(frozen=True)
class Adam:
    """What Adam makes of an error, its own step on the exact gradient y being the ideal (Kingma and Ba 2015).

        x ↦ y + (d(x) − d(y)) ‖y‖ / ‖d(y)‖,   d(x) = m̂ / (√v̂ + ε),   m = β₁ m + (1 − β₁) x,   v = β₂ v + (1 − β₂) x²

    Attributes:
        first: m before this update, from exact meta-gradients, `[mdp, size]`.
        second: v before this update, of the same shape.
        count: number of updates with this one.
        truth: y, the exact meta-gradient now, of the same shape.
    """

    first: Tensor
    second: Tensor
    count: int
    truth: Tensor

    def _direction(self, x: Tensor) -> Tensor:
        (b1, b2), first, second = DECAYS, self.first.unsqueeze(-2), self.second.unsqueeze(-2)
        mean = (b1 * first + (1 - b1) * x) / (1 - b1**self.count)
        square = (b2 * second + (1 - b2) * x.square()) / (1 - b2**self.count)
        return mean / (square.sqrt() + 1e-8)

    def __call__(self, x: Tensor) -> Tensor:
        """The estimates `[mdp, repeat, size]` as far from y as Adam's steps are, in the length of y."""
        y = self.truth.unsqueeze(-2)
        exact = self._direction(y)
        unit = torch.linalg.vector_norm(y, dim=-1, keepdim=True) / torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        moved: Tensor = y + (self._direction(x) - exact) * unit
        return moved


def _trained(cell: Cell, mdps: tabular.RandomMDPs) -> tuple[Tensor, Adam]:
    """φ after exact meta-gradient ascent, `[mdp, 1, state, action]`, and Adam's state there."""
    params = torch.zeros_like(mdps.reward)
    first = second = torch.zeros_like(params)[:, 0].flatten(1)
    for step in range(cell.updates + 1):
        exact = gm_exact.maml_meta_gradient(mdps.mdp, params, inner_steps=cell.inner_steps, inner_lr=cell.inner_lr)
        y = exact[:, 0].flatten(1)
        if step == cell.updates:
            break
        params = params + cell.meta_lr * exact
        first, second = (
            b * old + (1 - b) * new for b, old, new in zip(DECAYS, (first, second), (y, y**2), strict=True)
        )
    return params, Adam(first, second, cell.updates + 1, y)


def _estimates(
    cell: Cell, mdps: tabular.RandomMDPs, params: Tensor, adam: Adam, name: str, size: int
) -> Callable[[frozenset[str]], Tensor]:
    """S ↦ estimates `[mdp, repeat, size]` in which the sources S are as in practice."""
    estimator, truth = estimators.load(name), adam.truth.unsqueeze(-2)
    roles = [role for role in ROLES if role in cell.sources]
    wanted = [p for p in estimators.PERMUTATIONS if all(p[i] == "E" or r in roles for i, r in enumerate(ROLES))]
    found: dict[frozenset[str], dict[tuple[str, str, int], Tensor]] = {}

    def sampled(permutation: str, problem: frozenset[str]) -> Tensor:
        if problem not in found:
            noise = cell.tabular.critic_noise if "critic" in problem else 0.0
            samples: Any = "shared" if "shared_batch" in problem else "independent"
            other = copy.copy(mdps)
            other.tabular = replace(cell.tabular, critic_noise=noise, samples=samples)
            found[problem] = estimators.decompose(
                maml_at(other, params, other.tabular, (1.0,), size)[1.0],
                [estimator],
                permutations=wanted,
                sample_sizes=[size],
                inner_steps=cell.inner_steps,
                inner_lr=cell.inner_lr,
            )
        return found[problem][name, permutation, size].flatten(2)

    def estimate(some: frozenset[str]) -> Tensor:
        permutation = "".join("S" if role in some else "E" for role in ROLES)
        x = truth.expand(-1, 2, -1) if permutation == "EEE" else sampled(permutation, some & {"shared_batch", "critic"})
        if "clipping" in some:
            x = clipped(x, cell.clip_norm * torch.linalg.vector_norm(truth, dim=-1, keepdim=True))
        return adam(x) if "adam" in some else x

    return estimate


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K, α and point."""
    ((figure, grid),) = cell.grids
    mdps = tabular.RandomMDPs(cell, torch.get_default_device())
    at, adam = _trained(cell, mdps)
    params = at.expand(mdps.shape).contiguous()
    rows: list[gm_lab.Row] = []
    for name in grid.estimators:
        for size in grid.sample_sizes:
            with tabular.estimators_are_input():
                estimate = _estimates(cell, mdps, params, adam, name, size)
                shares = estimators.attribute(estimate, cell.sources, adam.truth)
                whole = estimate(frozenset(cell.sources))
            for measure, function in MEASURES.items():
                shares[measure] = {**shares[measure], ALL: function(whole, adam.truth)}
            unit = adam.truth.square().sum(-1)
            for source in (*cell.sources, ALL):
                for i, mdp in enumerate(cell.mdps):
                    row: gm_lab.Row = {"figure": figure, "algorithm": "maml", "estimator": name, "permutation": "SSS"}
                    row |= {"sample_size": size, "inner_steps": cell.inner_steps, "inner_lr": cell.inner_lr}
                    row |= {"updates": cell.updates, "source": source, "mdp": mdp, "truth_sq": float(unit[i])}
                    rows.append(row | {measure: float(shares[measure][source][i]) for measure in MEASURES})
    return rows


EXPERIMENT = gm_lab.Experiment(
    name="attribution",
    settings=Settings,
    columns=(*KEY, *METRICS),
    key=KEY,
    cells=cells,
    run_cell=run_cell,
    figures=lambda _settings, frame: attribution_report.figures(frame),
    claims=lambda _settings, _frame: [],
    summary=lambda _settings, frame: attribution_report.summary(frame),
    warm_up=tabular.warm_up,
    curves=(
        gm_lab.Curves(
            by=tuple(column for column in KEY if column not in ("updates", "mdp")),
            x="updates",
            y=("bias_sq", "variance"),
            over="mdp",
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
