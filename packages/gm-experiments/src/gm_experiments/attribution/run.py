"""One cell of the attribution experiment to its rows: MAML along training, as in practice source by source."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, product

from torch import Tensor

import gm_estimators as estimators
import gm_lab
from gm_estimators.attribution import SHARED_BATCH, AdamDistortion, permutations_of
from gm_experiments.attribution import sources
from gm_experiments.attribution.settings import Cell
from gm_experiments.common.checks import estimators_are_input, require_truth
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.maml.problem import exact_training, maml


def trained(cell: Cell, mdps: RandomMDPs) -> tuple[Tensor, AdamDistortion]:
    """φ after exact meta-gradient ascent, `[mdp, 1, state, action]`, and Adam's state there; see `require_truth`."""
    *path, (params, exact) = islice(exact_training(mdps, cell.meta_lr, **cell.terms), cell.updates + 1)
    truth = exact[:, 0].flatten(1)
    require_truth(truth, "MDP", cell.mdps, cell.updates)
    return params, AdamDistortion.after([followed[:, 0].flatten(1) for _, followed in path], truth)


def estimates(
    cell: Cell, mdps: RandomMDPs, params: Tensor, name: str, size: int
) -> Callable[[frozenset[str]], dict[str, Tensor]]:
    """What of critic and shared batch is as in practice ↦ the estimates `[mdp, repeat, size]` of each permutation."""
    estimator = estimators.load(name)
    # ideal is the exact critic for those, too, that learn one
    ideal = replace(estimator, critic=True) if estimator.critic == "learnt" else estimator

    def sampled(practice: frozenset[str]) -> dict[str, Tensor]:
        learnt = "critic" in practice
        judged = mdps.varied(critic_noise=cell.tabular.critic_noise if learnt else 0.0)
        by_permutation = estimators.decompose(
            maml(judged, params), [estimator if learnt else ideal], permutations=permutations_of(cell.sources),
            sizes=[estimators.Sizes.each(size, shared=SHARED_BATCH in practice)], **cell.terms,
        )  # fmt: skip
        return {permutation: estimate.flatten(2) for (_, permutation, _), estimate in by_permutation.items()}

    return sampled


def run_cell(cell: Cell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K, α and point."""
    ((figure, grid),) = cell.grids
    mdps = RandomMDPs(cell, context.device)
    at, adam = trained(cell, mdps)
    params = at.expand(mdps.shape).contiguous()
    rows: list[gm_lab.Row] = []
    for name, size in product(grid.estimators, grid.sample_sizes):
        estimate = sources.in_practice(estimates(cell, mdps, params, name, size), adam, cell.clip_norm)
        with estimators_are_input():
            rows += sources.rows(
                estimate, cell.sources, adam.truth, "mdp", cell.mdps,
                figure=figure, algorithm="maml", estimator=name, permutation="SSS", sample_size=size,
                updates=cell.updates, **cell.terms,
            )  # fmt: skip
    return rows
