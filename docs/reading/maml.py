"""MAML with policy gradients as one would write it first: one MDP, one trajectory, one step at a time.

    θ^{i+1} = θ^i + α ∇J(θ^i),  i = 0 … K−1,      the meta-gradient is ∇_{θ⁰} J(θᴷ)                    (paper, Eq. 4)

Each of three places has a J of its own, exact (E) or sampled (S), and a permutation such as "SSE" names them in this
order: I, where a step goes; II, what the step's derivative is; III, the outer gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reading.mdp import MDP, outcomes, state_values, surrogate, trajectory


@dataclass(frozen=True)
class Randomness:
    """What one estimate draws: a uniform number for each step, a normal number for each state's critic."""

    uniform: Sequence[Sequence[float]]
    normal: Tensor


def meta_gradient(
    mdp: MDP,
    theta: Tensor,
    random: Callable[[str, int], Randomness],
    *,
    estimator: str,
    permutation: str,
    inner_steps: int,
    inner_lr: float,
) -> Tensor:
    """The meta-gradient at θ⁰ = `theta`, with the random numbers of each role and step."""

    def objective(place: int, step: int, at: Tensor) -> Callable[[Tensor], Tensor]:
        if permutation[place] == "E":
            return lambda theta: state_values(mdp, theta)[0]
        return sampled(mdp, estimator, at.detach(), random(("inner", "hessian", "outer")[place], step))

    start = current = theta.detach().requires_grad_()
    for i in range(inner_steps):
        inner, hessian = objective(0, i, current), objective(1, i, current)
        (gradient,) = torch.autograd.grad(inner(current), current, retain_graph=True)
        (derivative,) = torch.autograd.grad(hessian(current), current, create_graph=True)
        goes_to, differentiable = current + inner_lr * gradient, current + inner_lr * derivative
        current = goes_to.detach() + differentiable - differentiable.detach()
    outer = objective(2, inner_steps, current)
    return torch.autograd.grad(outer(current), start)[0]


def sampled(mdp: MDP, estimator: str, at: Tensor, random: Randomness) -> Callable[[Tensor], Tensor]:
    """A sampled J is the mean surrogate of trajectories drawn at the given parameters, as a function of others."""
    exact = state_values(mdp, at)
    critic = exact + exact.norm() / len(exact) * random.normal
    table = outcomes(mdp, at.softmax(-1))
    drawn = [trajectory(table, uniform) for uniform in random.uniform]

    def objective(theta: Tensor) -> Tensor:
        total = torch.zeros((), dtype=theta.dtype)
        for states, actions in drawn:
            log_probs = [theta[s].log_softmax(-1)[a] for s, a in zip(states, actions, strict=False)]
            rewards = [float(mdp.reward[s, a]) for s, a in zip(states, actions, strict=False)]
            total = total + surrogate(estimator, log_probs, rewards, critic[states].tolist(), mdp.discount)
        return total / len(drawn)

    return objective
