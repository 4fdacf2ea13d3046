"""One cell of the MAML experiment to its rows."""

from dataclasses import replace

import gm_lab
from gm_experiments.common.mdps import RandomMDPs, measured
from gm_experiments.common.settings import Cell
from gm_experiments.maml.problem import maml
from gm_experiments.maml.settings import FIGURES
from gm_experiments.theory.run import rows as theory_rows


def run_cell(cell: Cell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α: φ = θ⁰ = 0, returns to the horizon."""
    mdps = RandomMDPs(cell, context.device)
    problem = maml(mdps, mdps.zeros())
    figures = replace(cell, grids=tuple((name, grid) for name, grid in cell.grids if name in FIGURES))
    rows = measured(problem, figures, "maml") if figures.grids else []
    return rows + theory_rows(cell, mdps, problem)
