"""Random tabular MDPs, grid worlds, the discounting chain, batched seeded rollouts and a Gymnasium environment."""

from gm_envs_tabular.chains import (
    chain_counts,
    chain_observations,
    chain_rewards,
    chain_rollout,
    discounting_chain,
)
from gm_envs_tabular.grids import grid_world
from gm_envs_tabular.mdps import MDP, random_mdp, sparse_dirichlet
from gm_envs_tabular.noise import CommonNoise
from gm_envs_tabular.rollout import Rollout, Successors, rollout, successors, uniforms

__all__ = [
    "MDP", "CommonNoise", "Rollout", "Successors", "chain_counts", "chain_observations", "chain_rewards",
    "chain_rollout", "discounting_chain", "grid_world", "random_mdp", "rollout", "sparse_dirichlet", "successors",
    "uniforms",
]  # fmt: skip
