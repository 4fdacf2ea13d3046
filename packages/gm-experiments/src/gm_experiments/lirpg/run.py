"""One cell of the LIRPG experiment to its rows."""

import gm_lab
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.run import measured
from gm_experiments.common.settings import Cell
from gm_experiments.lirpg.problem import lirpg_problem


def run_cell(cell: Cell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α."""
    return measured(lirpg_problem(RandomMDPs(cell, context.device)), cell, "lirpg")
