"""MAML on random MDPs: the two-level problem, and exact training of its initial parameters."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
from gm_envs_tabular import Rollout
from gm_experiments.common.mdps import RandomMDPs

Rollouts = Callable[[str, int, Tensor, slice | Tensor], Rollout]
"""(role, step, π, numbers of trajectories) ↦ these."""


def maml(
    mdps: RandomMDPs, params: Tensor, *, gae_lambda: float = 1.0, rollout: Rollouts | None = None
) -> estimators.TabularProblem:
    """MAML at any φ = θ⁰ `[mdp, repeat, state, action]`, the same objective inside and outside.

    Args:
        mdps: the MDPs; their settings say who gets the critic, and how good it is.
        params: θ⁰.
        gae_lambda: λ of the advantages; 1 gives the return to the horizon minus the critic.
        rollout: where trajectories come from, instead of the MDPs' own rollouts.
    """

    def critic(role: str, step: int, at: Tensor) -> Tensor:
        value = gm_exact.state_values(mdps.mdp, at)
        return value + mdps.critic_error(role, step, value)

    return estimators.TabularProblem(
        params=params,
        exact=lambda _role, at: estimators.ExactObjective(gm_exact.evaluate(mdps.mdp, at)),
        rollout=mdps.rollout if rollout is None else rollout,
        critic=critic,
        reward=mdps.reward,
        discount=mdps.tabular.discount,
        gae_lambda=gae_lambda,
        critic_for=mdps.tabular.critic,
    )


def exact_training(
    mdps: RandomMDPs, meta_lr: float, *, inner_steps: int, inner_lr: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """φ along exact meta-gradient ascent from zero, and ∇φ Jᴷ there, both `[mdp, 1, state, action]`, without an end."""
    params = torch.zeros_like(mdps.reward)
    while True:
        exact = gm_exact.maml_meta_gradient(mdps.mdp, params, inner_steps=inner_steps, inner_lr=inner_lr)
        yield params, exact
        params = params + meta_lr * exact
