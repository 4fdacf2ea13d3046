"""Exact values, gradients, Hessians and meta-gradients of tabular reinforcement-learning problems."""

from gm_exact.actor_critic import (
    ActorCritic,
    Dependence,
    MetaParams,
    actor_critic_path,
    actor_critic_step,
    mgrl_meta_gradient,
)
from gm_exact.bounds import Constants, Errors, eq6_compositional_bias, eq9_bias, eq10_variance, eq44_bias, eq57_variance
from gm_exact.constants import global_constants, local_c2, local_constants
from gm_exact.enumerate import Expectation, Trajectories, expectation, trajectories
from gm_exact.evaluation import (
    PolicyEvaluation,
    Tangent,
    action_values,
    evaluate,
    gradient,
    hessian,
    hessian_vector_product,
    occupancy,
    policy,
    state_values,
    value,
)
from gm_exact.games import GameEvaluation, LolaMetaGradient, evaluate_game, game_value, lola_meta_gradient
from gm_exact.meta import inner_path, lirpg_meta_gradient, maml_meta_gradient
from gm_exact.tabular import TabularMDP

__all__ = [
    "ActorCritic",
    "Constants",
    "Dependence",
    "Errors",
    "Expectation",
    "GameEvaluation",
    "LolaMetaGradient",
    "MetaParams",
    "PolicyEvaluation",
    "TabularMDP",
    "Tangent",
    "Trajectories",
    "action_values",
    "actor_critic_path",
    "actor_critic_step",
    "eq6_compositional_bias",
    "eq9_bias",
    "eq10_variance",
    "eq44_bias",
    "eq57_variance",
    "evaluate",
    "evaluate_game",
    "expectation",
    "game_value",
    "global_constants",
    "gradient",
    "hessian",
    "hessian_vector_product",
    "inner_path",
    "lirpg_meta_gradient",
    "local_c2",
    "local_constants",
    "lola_meta_gradient",
    "maml_meta_gradient",
    "mgrl_meta_gradient",
    "occupancy",
    "policy",
    "state_values",
    "trajectories",
    "value",
]  # fmt: skip
