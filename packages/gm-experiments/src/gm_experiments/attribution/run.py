"""One cell of the attribution experiment to its rows."""

import gm_lab
from gm_experiments.attribution import sources
from gm_experiments.attribution.problem import estimates, trained
from gm_experiments.attribution.settings import Cell
from gm_experiments.common.checks import estimators_are_input
from gm_experiments.common.mdps import RandomMDPs


def run_cell(cell: Cell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K, α and point.

    Raises:
        BadInput: if a user's estimator fails, or there is no exact meta-gradient to measure by.
    """
    ((figure, grid),) = cell.grids
    mdps = RandomMDPs(cell, context.device)
    at, adam = trained(cell, mdps)
    params = at.expand(mdps.shape).contiguous()
    rows: list[gm_lab.Row] = []
    for name in grid.estimators:
        for size in grid.sample_sizes:
            estimate = sources.in_practice(estimates(cell, mdps, params, name, size), adam, cell.clip_norm)
            with estimators_are_input():
                rows += sources.rows(
                    estimate, cell.sources, adam.truth, "mdp", cell.mdps,
                    figure=figure, algorithm="maml", estimator=name, permutation="SSS", sample_size=size,
                    updates=cell.updates, **cell.terms,
                )  # fmt: skip
    return rows
