"""Tabular problems and games of any number, on any device."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import gm_envs_ipd
import gm_envs_tabular
import gm_estimators as estimators
import gm_exact
from gm_estimators.surrogates import Trajectories, mean_surrogate

STATES, ACTIONS = 20, 5


def tabular(count: int, on: torch.device) -> gm_exact.TabularMDP:
    """Random MDPs."""
    draw = torch.Generator().manual_seed(0)
    transition = torch.rand(count, STATES, ACTIONS, STATES, generator=draw, dtype=torch.float64).pow(8)
    reward = torch.randn(count, STATES, ACTIONS, generator=draw, dtype=torch.float64)
    return gm_exact.TabularMDP.unchecked((transition / transition.sum(-1, keepdim=True)).to(on), reward.to(on), 0, 0.9)


def theta(count: int, on: torch.device) -> torch.Tensor:
    """Parameters of their policies."""
    return torch.randn(count, STATES, ACTIONS, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(on)


def maml(count: int, on: torch.device, kept: dict[Any, Any] = {}) -> torch.Tensor:  # noqa: B006 (drawn once)
    """Exact meta-gradients through three steps."""
    mdps, params = kept.setdefault((count, on), (tabular(count, on), theta(count, on)))
    return gm_exact.maml_meta_gradient(mdps, params, inner_lr=0.5, inner_steps=3)


def lola(count: int, on: torch.device) -> torch.Tensor:
    """Exact three-look-ahead meta-gradients of both players."""
    params = torch.randn(count, 2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(on)
    payoffs = gm_envs_ipd.GAMES["ipd"].tensor().to(on)
    found = gm_exact.lola_meta_gradient(payoffs, params, discount=0.96, inner_lr=0.3, inner_steps=3)
    return torch.cat([part.flatten() for part in found])


def policy_gradient(on: torch.device) -> torch.Tensor:
    """Exact policy gradients."""
    return gm_exact.gradient(tabular(10, on), theta(10, on))


def hessian(on: torch.device) -> torch.Tensor:
    """Exact Hessians."""
    return gm_exact.hessian(tabular(3, on), theta(3, on))


def lola_dice(
    seeds: int, on: torch.device, trajectories: int = 128, rounds: int = 100, discount: float = 0.96,
    inner_lr: float = 0.3, policies: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Sampled meta-gradients of both players, who look one step ahead: rollouts, inner and outer gradients.

    ∇_{θⁱ} J^i(θⁱ, θ^{-i} + α ∇J^{-i}(θⁱ, θ^{-i})),   J by DiCE
    """
    payoffs = gm_envs_ipd.GAMES["ipd"].tensor().to(on).flatten(-2)
    draw = torch.Generator().manual_seed(5)
    policies = torch.randn(seeds, 2, 5, generator=draw, dtype=torch.float64) if policies is None else policies
    policies = policies.to(on)
    decay = discount ** torch.arange(rounds + 1, device=on, dtype=torch.float64)
    rng = np.random.default_rng(0)

    def value(of: int, params: torch.Tensor) -> torch.Tensor:
        """One player's objective, differentiable in the policies of both."""
        outcome = gm_envs_ipd.rollout(params.detach(), gm_envs_ipd.draws(rng, (seeds,), trajectories, rounds, on))
        taken = gm_envs_ipd.log_probs(gm_envs_ipd.log_policy(params).unsqueeze(-4), outcome)
        zero = torch.zeros(*outcome.shape[:-1], rounds + 1, device=on, dtype=torch.float64)
        reward = payoffs[of][outcome.long()]
        seen = Trajectories(log_prob=taken.sum(-2), reward=reward, discount=decay, value=zero, advantage=reward)
        return mean_surrogate(estimators.load("dice").surrogate, seen).sum()

    found = []
    for player in (0, 1):
        own = policies[:, player].clone().requires_grad_()
        other = policies[:, 1 - player].clone().requires_grad_()

        def together(opponent: torch.Tensor, own: torch.Tensor = own, player: int = player) -> torch.Tensor:
            return torch.stack((own, opponent) if player == 0 else (opponent, own), -2)

        (step,) = torch.autograd.grad(value(1 - player, together(other)), other, create_graph=True)
        found.append(torch.autograd.grad(value(player, together(other.detach() + inner_lr * step)), own)[0])
    return torch.stack(found)


def played(count: int, on: torch.device) -> torch.Tensor:
    """Joint actions of two players."""
    numbers = gm_envs_ipd.draws(np.random.default_rng(0), (count,), 64, 50, on)
    params = torch.randn(count, 2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(on)
    return gm_envs_ipd.rollout(params, numbers)


def travelled(count: int, on: torch.device) -> torch.Tensor:
    """States that policies pass."""
    mdps = tabular(count, on)
    uniform = gm_envs_tabular.uniforms(np.random.default_rng(0), (count,), 64, 20, on)
    policy = theta(count, on).softmax(-1)
    return gm_envs_tabular.rollout(policy, gm_envs_tabular.successors(mdps.transition), uniform)[0]


def surrogate_gradient(name: str) -> Callable[[torch.device], torch.Tensor]:
    """The gradient of an estimator's mean surrogate in the log-probabilities."""

    def function(on: torch.device) -> torch.Tensor:
        draw = torch.Generator().manual_seed(4)
        log_prob, reward = (torch.randn(8, 64, 20, generator=draw, dtype=torch.float64).to(on) for _ in range(2))
        value = torch.randn(8, 64, 21, generator=draw, dtype=torch.float64).to(on)
        log_prob.requires_grad_()
        seen = Trajectories(
            log_prob=log_prob, reward=reward, discount=0.9 ** torch.arange(21, device=on).double(),
            value=value, advantage=reward,
        )  # fmt: skip
        return torch.autograd.grad(mean_surrogate(estimators.load(name).surrogate, seen).sum(), log_prob)[0]

    return function
