"""One cell of a tabular experiment to its rows of results.csv."""

import math
from itertools import product

import torch

import gm_estimators as estimators
import gm_lab
from gm_experiments.common.checks import estimators_are_input
from gm_experiments.common.grid import PERMUTATIONS
from gm_experiments.common.problem import TabularProblem
from gm_experiments.common.settings import Cell


def measured(problem: TabularProblem, cell: Cell, algorithm: str) -> list[gm_lab.Row]:
    """The rows of all figures of a cell, measured on shared samples.

    Args:
        problem: its batch axes are the MDPs and the repeats in each, at least 2, which share φ and θ⁰.
        cell: what is asked for.
        algorithm: of the problem, for the column of that name.

    Raises:
        BadInput: if a user's estimator fails.
    """
    grids = dict(cell.grids)
    sizes = {size: size_of(cell, size) for grid in grids.values() for size in grid.sample_sizes}
    with estimators_are_input():
        estimates = estimators.decompose(
            problem,
            [estimators.load(name) for name in sorted({name for grid in grids.values() for name in grid.estimators})],
            permutations=[p for p in PERMUTATIONS if any(p in grid.permutations for grid in grids.values())],
            sizes=[sizes[size] for size in sorted(sizes)],
            **cell.terms,
        )
    truth = estimators.exact_meta_gradient(problem, **cell.terms)[:, 0].flatten(1)
    stacked = torch.stack([estimate.flatten(2) for estimate in estimates.values()])
    metrics = estimators.metrics.summary(stacked, truth.expand(len(estimates), -1, -1))
    numbers = {name: dict(zip(estimates, values.tolist(), strict=True)) for name, values in metrics.items()}
    fixed: gm_lab.Row = dict.fromkeys(cell.unused, math.nan) | {"algorithm": algorithm} | cell.terms
    return [
        fixed
        | {"figure": figure, "estimator": name, "permutation": permutation, "sample_size": size, "mdp": mdp}
        | {metric: values[name, permutation, sizes[size]][i] for metric, values in numbers.items()}
        for figure, grid in grids.items()
        for name, permutation, size in product(grid.estimators, grid.permutations, grid.sample_sizes)
        for i, mdp in enumerate(cell.mdps)
    ]


def size_of(cell: Cell, size: int) -> estimators.Sizes:
    """The samples of each role, of which II and I may share one."""
    return estimators.Sizes.each(size, shared=cell.tabular.samples == "shared")
