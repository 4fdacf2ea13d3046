"""Where the error of a MAML-RL meta-gradient comes from, along training: each source's share of bias and variance."""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import attribution_report
import attribution_sources
import gm_estimators as estimators
import gm_exact
import gm_lab
import tabular
from attribution_sources import METRICS, SOURCES, Source
from frontier_problem import maml_at
from gm_estimators import Adam

KEY = (*attribution_sources.KEY, "mdp")
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
    attribution_sources.check(settings)
    return [
        Cell(
            cell.seed, cell.mdps, cell.inner_steps, cell.inner_lr, cell.grids, cell.tabular,
            updates=point, meta_lr=settings.meta_lr, sources=settings.sources, clip_norm=settings.clip_norm,
        )
        for cell in tabular.cells(settings, {"attribution": GRID})
        for point in settings.points
    ]  # fmt: skip


def _trained(cell: Cell, mdps: tabular.RandomMDPs) -> tuple[Tensor, Adam]:
    """φ after exact meta-gradient ascent, `[mdp, 1, state, action]`, and Adam's state there.

    Raises:
        BadInput: if the exact meta-gradient is zero there, or not finite.
    """
    params, followed = torch.zeros_like(mdps.reward), []
    for step in range(cell.updates + 1):
        exact = gm_exact.maml_meta_gradient(mdps.mdp, params, inner_steps=cell.inner_steps, inner_lr=cell.inner_lr)
        y = exact[:, 0].flatten(1)
        if step < cell.updates:
            params = params + cell.meta_lr * exact
            followed.append(y)
    tabular.require_truth(y, "MDP", cell.mdps, cell.updates)
    return params, Adam.after(followed, y)


def _sampled(
    cell: Cell, mdps: tabular.RandomMDPs, params: Tensor, name: str, size: int
) -> Callable[[frozenset[str]], dict[str, Tensor]]:
    """What of critic and shared batch is as in practice ↦ the estimates `[mdp, repeat, size]` of each permutation."""
    estimator, wanted = estimators.load(name), attribution_sources.permutations(cell.sources)

    def sampled(practice: frozenset[str]) -> dict[str, Tensor]:
        noise = cell.tabular.critic_noise if "critic" in practice else 0.0
        # ideal is the exact critic for those, too, that learn one
        learns = estimator.critic == "learnt" and "critic" not in practice
        samples: Any = "shared" if "shared_batch" in practice else "independent"
        other = copy.copy(mdps)
        other.tabular = replace(cell.tabular, critic_noise=noise, samples=samples)
        found = estimators.decompose(
            maml_at(other, params, other.tabular, (1.0,), size)[1.0],
            [replace(estimator, critic=True) if learns else estimator],
            permutations=wanted,
            sample_sizes=[size],
            inner_steps=cell.inner_steps,
            inner_lr=cell.inner_lr,
        )
        return {permutation: estimate.flatten(2) for (_, permutation, _), estimate in found.items()}

    return sampled


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K, α and point."""
    ((figure, grid),) = cell.grids
    mdps = tabular.RandomMDPs(cell, torch.get_default_device())
    at, adam = _trained(cell, mdps)
    params = at.expand(mdps.shape).contiguous()
    rows: list[gm_lab.Row] = []
    for name in grid.estimators:
        for size in grid.sample_sizes:
            estimate = attribution_sources.in_practice(_sampled(cell, mdps, params, name, size), adam, cell.clip_norm)
            with tabular.estimators_are_input():
                rows += attribution_sources.rows(
                    estimate, cell.sources, adam.truth, "mdp", cell.mdps,
                    figure=figure, algorithm="maml", estimator=name, permutation="SSS", sample_size=size,
                    inner_steps=cell.inner_steps, inner_lr=cell.inner_lr, updates=cell.updates,
                )  # fmt: skip
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
    curves=(attribution_sources.curves("mdp"),),
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
