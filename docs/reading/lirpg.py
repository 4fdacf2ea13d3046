"""LIRPG as one would write it first: a reward φ that only the inner steps see is learnt (Zheng, Oh and Singh 2018).

    θ^{i+1} = θ^i + α ∇θ J_{r+φ}(θ^i),  i = 0 … K−1,      the meta-gradient is ∇φ J_r(θᴷ)              (paper, Eq. 7)

As in `maml.py` a permutation such as "SSE" says which J is sampled. What is new: φ enters through rewards, values and
advantages, so that these are tensors, and the derivative of a step is taken in φ, too.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from reading.maml import Randomness
from reading.mdp import MDP, outcomes, state_values, surrogate, trajectory


def meta_gradient(
    mdp: MDP,
    reward: Tensor,
    theta: Tensor,
    random: Callable[[str, int], Randomness],
    *,
    estimator: str,
    permutation: str,
    inner_steps: int,
    inner_lr: float,
    gae_lambda: float,
) -> Tensor:
    """The meta-gradient in φ = `reward`, learning from θ⁰ = `theta`, with the random numbers of each role and step."""
    phi = reward.detach().requires_grad_()

    def objective(place: int, step: int, at: Tensor) -> Callable[[Tensor], Tensor]:
        seen = mdp if place == 2 else replace(mdp, reward=mdp.reward + phi)
        if permutation[place] == "E":
            return lambda theta: state_values(seen, theta)[0]
        numbers = random(("inner", "hessian", "outer")[place], step)
        exact = state_values(mdp, at.detach())
        critic = state_values(seen, at.detach()) + exact.norm() / len(exact) * numbers.normal
        return sampled(seen, critic, estimator, at.detach(), numbers, gae_lambda)

    current = theta.detach().requires_grad_()
    for i in range(inner_steps):
        inner, hessian = objective(0, i, current), objective(1, i, current)
        (gradient,) = torch.autograd.grad(inner(current), current)
        (derivative,) = torch.autograd.grad(hessian(current), current, create_graph=True)
        goes_to, differentiable = current + inner_lr * gradient, current + inner_lr * derivative
        current = goes_to.detach() + differentiable - differentiable.detach()
    outer = objective(2, inner_steps, current)
    return torch.autograd.grad(outer(current), phi)[0]


def sampled(
    mdp: MDP, critic: Tensor, estimator: str, at: Tensor, random: Randomness, gae_lambda: float
) -> Callable[[Tensor], Tensor]:
    """A sampled J is the mean surrogate of trajectories drawn at the given parameters, a function of others and φ."""
    table = outcomes(mdp, at.softmax(-1))
    drawn = [trajectory(table, uniform) for uniform in random.uniform]

    def objective(theta: Tensor) -> Tensor:
        total = torch.zeros((), dtype=theta.dtype)
        for states, actions in drawn:
            log_probs = theta.log_softmax(-1)[states[:-1], actions].unbind()
            rewards, values = mdp.reward[states[:-1], actions].unbind(), critic[states].unbind()
            total = total + surrogate(estimator, log_probs, rewards, values, mdp.discount, gae_lambda)
        return total / len(drawn)

    return objective
