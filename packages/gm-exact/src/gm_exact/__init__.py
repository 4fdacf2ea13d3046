"""Exact values, gradients, Hessians and meta-gradients of tabular reinforcement-learning problems."""

from gm_exact.enumerate import Expectation, Trajectories, expectation, trajectories
from gm_exact.evaluation import PolicyEvaluation, Tangent, evaluate
from gm_exact.mdp import (
    action_values,
    gradient,
    hessian,
    hessian_vector_product,
    occupancy,
    policy,
    state_values,
    value,
)
from gm_exact.meta import inner_path, lirpg_meta_gradient, maml_meta_gradient
from gm_exact.tabular import TabularMDP

__all__ = [
    "Expectation",
    "PolicyEvaluation",
    "TabularMDP",
    "Tangent",
    "Trajectories",
    "action_values",
    "evaluate",
    "expectation",
    "gradient",
    "hessian",
    "hessian_vector_product",
    "inner_path",
    "lirpg_meta_gradient",
    "maml_meta_gradient",
    "occupancy",
    "policy",
    "state_values",
    "trajectories",
    "value",
]
