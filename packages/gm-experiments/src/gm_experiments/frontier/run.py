"""One cell of the frontier experiment to its rows."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product

from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
from gm_experiments.common.checks import estimators_are_input, require_finite, require_truth
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.frontier.problem import allocate, debias_of, estimator_of, split_of
from gm_experiments.frontier.settings import METRICS, SIZES, Cell, Choices
from gm_experiments.maml.problem import exact_training, maml

Choice = tuple[str, float, str, str]
"""Estimator, λ, split, debias."""
SMALLER = ("--inner-lrs", "--meta-lr", "--critic-noise")
EXACT: Choice = ("exact", 1.0, "none", "none")


def run_cell(cell: Cell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K, α and budget."""
    mdps = RandomMDPs(cell, context.device)
    return _training(cell, mdps) if cell.grids[0][0] == "training" else _frontier(cell, mdps)


def _frontier(cell: Cell, mdps: RandomMDPs) -> list[gm_lab.Row]:
    at, exact = next(islice(exact_training(mdps, cell.meta_lr, **cell.terms), cell.updates, None))
    truth = exact[:, 0].flatten(1)
    require_truth(truth, "MDP", cell.mdps, cell.updates)
    fixed = {"truth_sq": truth.square().sum(-1), "value": _adapted(cell, mdps, at)[:, 0]}
    rows: list[gm_lab.Row] = []
    for choice, sizes, estimate in _estimates(cell, mdps, at.expand(mdps.shape).contiguous()):
        measured = estimators.metrics.summary(estimate.flatten(2), truth)
        mse = estimators.metrics.mse(estimate.flatten(2), truth)
        rows += _rows(cell, choice, cell.updates, sizes, measured | {"mse": mse} | fixed)
    require_finite(
        rows, ("bias_sq", "variance", "mse", "truth_sq", "value"), "--inner-lrs", "--meta-lr", "--critic-noise"
    )
    return rows


def _training(cell: Cell, mdps: RandomMDPs) -> list[gm_lab.Row]:
    """J after exact adaptation along gradient ascent on every choice's estimates; repeats are separate trainings."""
    ((_, grid),) = cell.grids
    rows: list[gm_lab.Row] = []
    for update, (at, _) in enumerate(islice(exact_training(mdps, cell.meta_lr, **cell.terms), cell.updates + 1)):
        rows += _rows(cell, EXACT, update, dict.fromkeys(SIZES, 0), {"value": _adapted(cell, mdps, at)[:, 0]})
    alone = [Choices(*((value,) for value in values)) for values in product(*vars(cell.choices).values())]
    for choices, name in product(alone, grid.estimators):
        one = replace(cell, grids=(("training", replace(grid, estimators=(name,))),), choices=choices)
        params = mdps.zeros()
        for update in range(cell.updates + 1):
            value = _adapted(cell, mdps, params).mean(-1)
            ((choice, sizes, estimate),) = _estimates(one, mdps.fresh("update", update), params)
            rows += _rows(cell, choice, update, sizes, {"value": value})
            params = params + cell.meta_lr * estimate
    require_finite(rows, ("value",), *SMALLER)
    return rows


def _estimates(cell: Cell, mdps: RandomMDPs, params: Tensor) -> Iterator[tuple[Choice, dict[str, int], Tensor]]:
    """Each choice at θ⁰ `[mdp, repeat, state, action]`: what it draws, and its estimates."""
    ((_, grid),) = cell.grids
    (budget,) = grid.sample_sizes
    problem, choices = maml(mdps, params), cell.choices
    with estimators_are_input():
        for debias in choices.debias:
            keys = list(product(choices.gae_lambdas, grid.estimators))
            chosen = {key: estimator_of(key[1], debias, key[0]) for key in keys}
            splits = {name: split_of(name) for name in choices.splits}
            gets = {k: allocate(budget, split, debias_of(debias), cell.inner_steps) for k, split in splits.items()}
            sizes = list(dict.fromkeys(each.sizes for each in gets.values()))
            estimates = estimators.decompose(problem, chosen.values(), permutations=["SSS"], sizes=sizes, **cell.terms)
            for gae_lambda, (split, each), name in product(choices.gae_lambdas, gets.items(), grid.estimators):
                estimate = estimates[chosen[gae_lambda, name].name, "SSS", each.sizes]
                yield (name, gae_lambda, split, debias), each.columns, estimate


def _adapted(cell: Cell, mdps: RandomMDPs, params: Tensor) -> Tensor:
    """J after K exact inner steps, of the batch shape of φ."""
    path = gm_exact.inner_path(mdps.mdp, params, **cell.terms)
    return gm_exact.value(mdps.mdp, path[-1])


def _rows(
    cell: Cell, choice: Choice, updates: int, sizes: dict[str, int], numbers: dict[str, Tensor]
) -> list[gm_lab.Row]:
    ((figure, grid),) = cell.grids
    name, gae_lambda, split, debias = choice
    fixed: gm_lab.Row = {"figure": figure, "algorithm": "maml", "estimator": name, "permutation": "SSS"}
    fixed |= {"sample_size": grid.sample_sizes[0], **cell.terms, "updates": updates}
    fixed |= {"gae_lambda": gae_lambda, "split": split, "debias": debias, **sizes}
    columns = {metric: numbers[metric].tolist() if metric in numbers else None for metric in METRICS}
    return [
        fixed | {"mdp": mdp} | {metric: math.nan if values is None else values[i] for metric, values in columns.items()}
        for i, mdp in enumerate(cell.mdps)
    ]
