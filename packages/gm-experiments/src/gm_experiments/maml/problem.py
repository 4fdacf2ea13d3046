"""MAML as the paper's experiments have it."""

from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.problem import TabularProblem
from gm_experiments.common.training import maml


def maml_problem(mdps: RandomMDPs) -> TabularProblem:
    """MAML from the uniform policy: φ = θ⁰ = 0, returns to the horizon."""
    return maml(mdps, mdps.zeros())
