"""One cell of the LIRPG experiment to its rows."""

import gm_lab
from gm_experiments.common.mdps import RandomMDPs, measured
from gm_experiments.common.settings import Cell
from gm_experiments.lirpg.entropy import beside
from gm_experiments.lirpg.problem import LirpgProblem
from gm_experiments.lirpg.settings import Lirpg


def run_cell(cell: Cell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α, from φ = 0 and the uniform policy."""
    mdps, settings = RandomMDPs(cell, context.device), cell.tabular
    assert isinstance(settings, Lirpg)
    problem = LirpgProblem(
        mdps.mdp, mdps.zeros(), mdps, mdps.zeros().requires_grad_(),
        critic_depends=settings.intrinsic_critic == "depends", gae_lambda=settings.gae_lambda,
        critic_for=settings.critic,
    )  # fmt: skip
    return beside(measured(problem, cell, "lirpg"), cell, mdps)
