"""One cell of the explorer to its rows, which are those that the MAML experiment has at the same point."""

import gm_lab
from gm_experiments.common.mdps import RandomMDPs, measured
from gm_experiments.common.settings import Cell
from gm_experiments.maml.problem import maml


def run_cell(cell: Cell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α: φ = θ⁰ = 0, returns to the horizon."""
    mdps = RandomMDPs(cell, context.device)
    return measured(maml(mdps, mdps.zeros()), cell, "maml")
