"""MAML on random MDPs as a two-level problem, and exact training of its initial parameters."""

from collections.abc import Iterator

import torch
from torch import Tensor

import gm_exact
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.problem import TabularProblem


def maml(mdps: RandomMDPs, params: Tensor) -> TabularProblem:
    """MAML at any φ = θ⁰ `[mdp, repeat, state, action]`; the MDPs' settings say who gets the critic."""
    return TabularProblem(mdps.mdp, params, mdps, critic_for=mdps.tabular.critic)


def exact_training(
    mdps: RandomMDPs, meta_lr: float, *, inner_steps: int, inner_lr: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """φ along exact meta-gradient ascent from zero, and ∇φ Jᴷ there, both `[mdp, 1, state, action]`, without an end."""
    params = torch.zeros_like(mdps.reward)
    while True:
        exact = gm_exact.maml_meta_gradient(mdps.mdp, params, inner_steps=inner_steps, inner_lr=inner_lr)
        yield params, exact
        params = params + meta_lr * exact
