"""One cell of the attribution experiment in matrix games to its rows."""

import gm_lab
from gm_estimators.attribution import AdamDistortion
from gm_experiments.attribution import sources
from gm_experiments.attribution.lola.problem import estimates, trained
from gm_experiments.attribution.lola.settings import Cell
from gm_experiments.common.checks import estimators_are_input, require_truth
from gm_experiments.lola.problem import exact_meta_gradients
from gm_experiments.lola.run import finite_or_refused


def run_cell(cell: Cell, _context: gm_lab.Context) -> list[gm_lab.Row]:
    """Returns a cell's rows; `BadInput` if a user's estimator fails or there is no truth to measure by."""
    rows: list[gm_lab.Row] = []
    for name in cell.estimators:
        for size in cell.sample_sizes:
            with estimators_are_input(), finite_or_refused(f"{name}, {size} trajectories"):
                learner, followed = trained(cell, name, size)
                truth = exact_meta_gradients(learner.game, learner.policies)
                require_truth(truth, "seed", cell.runs, cell.game.updates)
                adam = AdamDistortion.after(followed, truth)
                estimate = sources.in_practice(estimates(cell, learner, size), adam, cell.clip_norm)
                rows += sources.rows(
                    estimate, cell.sources, adam.truth, "seed", cell.runs,
                    figure="attribution", algorithm="lola", estimator=name, permutation="SSS", sample_size=size,
                    inner_steps=cell.game.inner_steps, inner_lr=cell.game.inner_lr, updates=cell.game.updates,
                )  # fmt: skip
    return rows
