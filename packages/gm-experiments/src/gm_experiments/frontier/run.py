"""What to do with a budget of trajectories: the frontier of bias and variance of a MAML-RL meta-gradient."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

import frontier_map
import frontier_report
import gm_estimators as estimators
import gm_exact
import gm_lab
import tabular
from frontier_problem import ROLES, SplitProblem, allocate, maml_at, split_of, trained

if TYPE_CHECKING:
    import pandas as pd

Figure = Literal["frontier", "budgets", "training"]
METRICS = ("bias_sq", "variance", "mse", "accuracy", "truth_sq", "value")
KEY = (*tabular.KEY[:-1], "updates", "gae_lambda", "split", "debias", "mdp")
SIZES = ("inner_size", "hessian_size", "outer_size", "drawn")


@dataclass(frozen=True)
class Choices:
    """What there is to choose from beside the estimator."""

    gae_lambdas: tuple[float, ...] = (1.0, 0.9, 0.7)
    splits: tuple[str, ...] = ("1:1:1", "1:1:2", "2:1:1", "1:1", "1:3", "3:1")
    debias: tuple[str, ...] = ("none", "jackknife")


GRIDS: dict[Figure, estimators.Grid] = {
    "frontier": estimators.Grid(
        estimators=("ad", "loaded_dice", "lvc"), permutations=("SSS",), sample_sizes=(256,), inner_steps=(1, 3)
    ),
    "budgets": estimators.Grid(
        estimators=("ad", "loaded_dice", "lvc"),
        permutations=("SSS",),
        sample_sizes=(16, 64, 256, 1024),
        inner_lrs=(3.0, 10.0, 30.0),
    ),
    "training": estimators.Grid(estimators=("loaded_dice", "lvc"), permutations=("SSS",), sample_sizes=(256,)),
}
CHOICES: dict[Figure, Choices] = {
    "frontier": Choices(),
    "budgets": Choices(gae_lambdas=(1.0, 0.7), splits=("1:1:1", "1:1", "1:3")),
    "training": Choices(gae_lambdas=(1.0,), splits=("1:1",)),
}


@dataclass(frozen=True)
class Settings(tabular.TabularSettings):
    """I have 256 trajectories for a meta-gradient: which estimator, which λ, split how, with a jackknife or without?

    Without a flag: MAML on random MDPs with one and three inner steps, at the start of exact training and along it.
    """

    figure: tuple[Figure, ...] = ("frontier",)
    """frontier: bias and variance of every choice; budgets: the best choice for each budget and α; training: what a
    lower bias is worth in MAML training."""
    sample_sizes: tuple[int, ...] | None = None
    """Instead of the figure's: trajectories for one meta-gradient, those of all roles and steps together."""
    gae_lambdas: tuple[float, ...] | None = None
    """Instead of the figure's: λ of the advantages."""
    splits: tuple[str, ...] | None = None
    """Instead of the figure's: a:b:c for inner gradient, Hessian and outer gradient, a:b if the first two share."""
    debias: tuple[str, ...] | None = None
    """Instead of the figure's: none, jackknife, jackknifeB or jackknifeB.p for B blocks and order p."""
    points: tuple[int, ...] = (0, 10, 50)
    """frontier, budgets: after how many exact meta-gradient steps to measure."""
    meta_lr: float = 1.0
    """Size of a meta-gradient step."""
    updates: int = 50
    """training: how many meta-gradient steps."""


@dataclass(frozen=True)
class Cell(tabular.Cell):
    """Some MDPs at one K, α and budget: at one point, or all of the training for training."""

    choices: Choices = Choices()
    updates: int = 0
    meta_lr: float = 1.0


def cells(settings: Settings) -> list[Cell]:
    """One cell for each block of MDPs, K, α, budget and point.

    Raises:
        BadInput: if a flag is out of range.
    """
    flag = settings.samples
    gm_lab.require(settings, "samples", "independent, since --splits says what is shared", flag == "independent")
    gm_lab.require(settings, "permutations", "SSS, since every role draws samples", settings.permutations is None)
    gm_lab.require(settings, "meta_lr", "a positive number", settings.meta_lr > 0)
    gm_lab.require(settings, "updates", "an integer of at least 1", settings.updates >= 1)
    most = tabular.MOST_UPDATES
    gm_lab.require(settings, "updates", f"at most {most} updates", settings.updates <= most)
    _distinct("points", settings.points)
    tabular.require_points(settings)
    found: list[Cell] = []
    for figure in dict.fromkeys(settings.figure):
        chosen = _chosen(settings, figure)
        points = (settings.updates,) if figure == "training" else settings.points
        for cell in tabular.cells(settings, {figure: GRIDS[figure]}):
            grid = dict(cell.grids)[figure]
            for name in grid.estimators:
                estimator = estimators.load(name)
                if estimator.debias is not None:
                    raise gm_lab.BadInput(f"--estimators: expected plain ones beside --debias, got {name!r}")
                if estimator.gae_lambda is not None:
                    raise gm_lab.BadInput(f"--estimators: expected ones without τ beside --gae-lambdas, got {name!r}")
            for budget, point in product(grid.sample_sizes, points):
                for split, debias in product(chosen.splits, chosen.debias):
                    allocate(budget, split_of(split), _load("lvc", debias).debias, cell.inner_steps)
                one = grid.override(sample_sizes=(budget,), inner_steps=(cell.inner_steps,), inner_lrs=(cell.inner_lr,))
                found.append(
                    Cell(
                        cell.seed, cell.mdps, cell.inner_steps, cell.inner_lr, ((figure, one),), cell.tabular,
                        choices=chosen, updates=point, meta_lr=settings.meta_lr,
                    )
                )  # fmt: skip
    return found


def _chosen(settings: Settings, figure: Figure) -> Choices:
    """The figure's choices, or those of the flags."""
    values = {field.name: getattr(settings, field.name) for field in fields(Choices)}
    chosen = Choices(**{k: getattr(CHOICES[figure], k) if v is None else v for k, v in values.items()})
    for name in values:
        _distinct(name, getattr(chosen, name))
    for value in chosen.gae_lambdas:
        if not 0 <= value <= 1:
            raise gm_lab.BadInput(f"--gae-lambdas: expected numbers from 0 to 1, got {value}")
    _different("debias", {name: _debias(name) for name in chosen.debias})
    _different("splits", {name: split_of(name).shares for name in chosen.splits})
    return chosen


def _debias(name: str) -> estimators.Debias | None:
    try:
        found = _load("lvc", name)
    except ValueError as error:
        raise gm_lab.BadInput(f"--debias: expected none or a jackknife, got {name!r}: {error}") from error
    if found != replace(estimators.load("lvc"), name=found.name, source=found.source, debias=found.debias):
        raise gm_lab.BadInput(f"--debias: expected none or a jackknife, got {name!r}")
    return found.debias


def _distinct(name: str, values: tuple[object, ...]) -> None:
    if len(set(values)) < len(values):
        raise gm_lab.BadInput(f"--{name.replace('_', '-')}: expected different values, got {list(values)}")


def _different(flag: str, meanings: Mapping[str, object]) -> None:
    """Names that mean the same would be measured twice."""
    first: dict[object, str] = {}
    for name, meaning in meanings.items():
        if meaning in first:
            raise gm_lab.BadInput(f"--{flag}: expected different values, got {first[meaning]} and {name}")
        first[meaning] = name


def _load(name: str, debias: str) -> estimators.Estimator:
    return estimators.load(name if debias == "none" else f"{name}+{debias}")


Choice = tuple[str, float, str, str]
"""Estimator, λ, split, debias."""
EXACT: Choice = ("exact", 1.0, "none", "none")


def _estimates(cell: Cell, mdps: tabular.RandomMDPs, params: Tensor) -> Iterator[tuple[Choice, dict[str, int], Tensor]]:
    """Each choice at θ⁰ `[mdp, repeat, state, action]`: what it draws, and its estimates."""
    ((_, grid),) = cell.grids
    (budget,) = grid.sample_sizes
    terms: Any = {"inner_steps": cell.inner_steps, "inner_lr": cell.inner_lr}
    problems = maml_at(mdps, params, cell.tabular, cell.choices.gae_lambdas, budget)
    with tabular.estimators_are_input():
        for debias, gae_lambda, split in product(cell.choices.debias, problems, cell.choices.splits):
            chosen = {name: _load(name, debias) for name in grid.estimators}
            allocation = allocate(budget, split_of(split), next(iter(chosen.values())).debias, cell.inner_steps)
            problem = SplitProblem(
                dict.fromkeys(ROLES, problems[gae_lambda]), allocation.block, shared=split_of(split).shared
            )
            found = estimators.decompose(
                problem, chosen.values(), permutations=["SSS"], sample_sizes=[allocation.blocks], **terms
            )
            sizes = {f"{role}_size": allocation.size(role) for role in ROLES} | {"drawn": allocation.drawn}
            for name, estimator in chosen.items():
                estimate = found[estimator.name, "SSS", allocation.blocks]
                yield (name, gae_lambda, split, debias), sizes, estimate


def _adapted(cell: Cell, mdps: tabular.RandomMDPs, params: Tensor) -> Tensor:
    """J after K exact inner steps, of the batch shape of φ."""
    path = gm_exact.inner_path(mdps.mdp, params, inner_lr=cell.inner_lr, inner_steps=cell.inner_steps)
    return gm_exact.value(mdps.mdp, path[-1])


def _rows(
    cell: Cell, choice: Choice, updates: int, sizes: dict[str, int], numbers: dict[str, Tensor]
) -> list[gm_lab.Row]:
    ((figure, grid),) = cell.grids
    name, gae_lambda, split, debias = choice
    fixed: gm_lab.Row = {"figure": figure, "algorithm": "maml", "estimator": name, "permutation": "SSS"}
    fixed |= {"sample_size": grid.sample_sizes[0], "inner_steps": cell.inner_steps, "inner_lr": cell.inner_lr}
    fixed |= {"updates": updates, "gae_lambda": gae_lambda, "split": split, "debias": debias, **sizes}
    columns = {metric: numbers[metric].tolist() if metric in numbers else None for metric in METRICS}
    return [
        fixed | {"mdp": mdp} | {metric: math.nan if values is None else values[i] for metric, values in columns.items()}
        for i, mdp in enumerate(cell.mdps)
    ]


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K, α and budget."""
    mdps = tabular.RandomMDPs(cell, torch.get_default_device())
    return _training(cell, mdps) if cell.grids[0][0] == "training" else _frontier(cell, mdps)


def _frontier(cell: Cell, mdps: tabular.RandomMDPs) -> list[gm_lab.Row]:
    """Squared bias, variance and mean squared error of every choice."""
    terms: Any = {"inner_steps": cell.inner_steps, "inner_lr": cell.inner_lr}
    at = trained(mdps, cell.updates, cell.meta_lr, **terms)
    params = at.expand(mdps.shape).contiguous()
    truth = gm_exact.maml_meta_gradient(mdps.mdp, at, **terms)[:, 0].flatten(1)
    tabular.require_truth(truth, "MDP", cell.mdps, cell.updates)
    fixed = {"truth_sq": truth.square().sum(-1), "value": _adapted(cell, mdps, at)[:, 0]}
    rows: list[gm_lab.Row] = []
    for choice, sizes, estimate in _estimates(cell, mdps, params):
        numbers = estimators.summary(estimate.flatten(2), truth) | {"mse": estimators.mse(estimate.flatten(2), truth)}
        rows += _rows(cell, choice, cell.updates, sizes, numbers | fixed)
    tabular.require_finite(rows, ("bias_sq", "variance", "mse", "truth_sq", "value"))
    return rows


def _training(cell: Cell, mdps: tabular.RandomMDPs) -> list[gm_lab.Row]:
    """J after exact adaptation along gradient ascent on every choice's estimates; repeats are separate trainings."""
    ((_, grid),) = cell.grids
    rows: list[gm_lab.Row] = []
    for update in range(cell.updates + 1):
        at = trained(mdps, update, cell.meta_lr, inner_steps=cell.inner_steps, inner_lr=cell.inner_lr)
        rows += _rows(cell, EXACT, update, dict.fromkeys(SIZES, 0), {"value": _adapted(cell, mdps, at)[:, 0]})
    alone = [Choices(*((value,) for value in values)) for values in product(*vars(cell.choices).values())]
    for choices, name in product(alone, grid.estimators):
        one = replace(cell, grids=(("training", grid.override(estimators=(name,))),), choices=choices)
        params = torch.zeros(mdps.shape, dtype=torch.float64, device=mdps.reward.device)
        for update in range(cell.updates + 1):
            value = _adapted(cell, mdps, params).mean(-1)
            ((choice, sizes, estimate),) = _estimates(one, mdps.fresh("update", update), params)
            rows += _rows(cell, choice, update, sizes, {"value": value})
            params = params + cell.meta_lr * estimate
    tabular.require_finite(rows, ("value",))
    return rows


def _curves(x: str, y: tuple[str, ...], figure: Figure) -> gm_lab.Curves:
    by = tuple(column for column in KEY if column not in (x, "mdp"))
    return gm_lab.Curves(by=by, x=x, y=y, over="mdp", figures=(figure,))


def figures(_settings: Settings, frame: "pd.DataFrame") -> dict[str, Any]:
    """One frontier for each K, α and budget, a map of the best choices, and the training curves."""
    maps = frame[frame["figure"] == "budgets"]
    return frontier_report.figures(frame) | (frontier_map.figures(maps) if len(maps) else {})


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """The closing table: of the map if that is all there is."""
    if (frame["figure"] == "budgets").all():
        return frontier_map.summary(frame)
    return frontier_report.summary(frame)


EXPERIMENT = gm_lab.Experiment(
    name="frontier",
    settings=Settings,
    columns=(*KEY, *SIZES, *METRICS),
    key=KEY,
    cells=cells,
    run_cell=run_cell,
    figures=figures,
    claims=lambda _settings, _frame: [],
    summary=summary,
    warm_up=tabular.warm_up,
    curves=(
        _curves("updates", ("bias_sq", "variance", "mse", "accuracy"), "frontier"),
        _curves("sample_size", ("bias_sq", "variance", "mse", "accuracy"), "budgets"),
        _curves("updates", ("value",), "training"),
    ),
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
