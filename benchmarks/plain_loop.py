"""The MAML meta-gradient as one would write it first: one problem, one trajectory, one step at a time.

It is the oracle of the batched path, and what that path's speed is measured against. It shares no code with the
packages; only the meaning of a uniform number is the same: it picks (a, s′) by the cumulative distribution of π(a |
s) p(s′ | s, a), next states in order of falling probability.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Randomness:
    """What one estimate draws: a uniform number for each step, a normal number for each state's critic."""

    uniform: Sequence[Sequence[float]]
    normal: Tensor


@dataclass(frozen=True)
class Problem:
    """One MDP of the paper's tabular experiments."""

    transition: Tensor
    reward: Tensor
    discount: float
    critic_noise: float = 1.0

    def values(self, theta: Tensor) -> Tensor:
        """V = (I − γ P_π)⁻¹ r_π."""
        policy = theta.softmax(-1)
        chain = torch.einsum("sa,sax->sx", policy, self.transition)
        return torch.linalg.solve(
            torch.eye(len(chain), dtype=chain.dtype) - self.discount * chain, (policy * self.reward).sum(-1)
        )


def outcomes(problem: Problem, policy: Tensor) -> list[tuple[list[float], list[tuple[int, int]]]]:
    """For each state the cumulative probabilities of its outcomes and the outcomes (a, s′) themselves."""
    table = []
    for s in range(policy.shape[0]):
        cumulative: list[float] = []
        pairs: list[tuple[int, int]] = []
        for a in range(policy.shape[1]):
            probabilities, successors = torch.sort(problem.transition[s, a], descending=True, stable=True)
            for p, x in zip((policy[s, a] * probabilities).tolist(), successors.tolist(), strict=True):
                cumulative.append((cumulative[-1] if cumulative else 0.0) + p)
                pairs.append((a, x))
        table.append((cumulative, pairs))
    return table


def trajectory(
    table: list[tuple[list[float], list[tuple[int, int]]]], uniform: Sequence[float]
) -> tuple[list[int], list[int]]:
    """States and actions, starting in state 0."""
    states, actions = [0], []
    for u in uniform:
        cumulative, pairs = table[states[-1]]
        action, successor = pairs[min(bisect_right(cumulative, u), len(pairs) - 1)]
        actions.append(action)
        states.append(successor)
    return states, actions


def surrogate(
    estimator: str, discount: float, log_probs: list[Tensor], rewards: list[float], values: list[float]
) -> Tensor:
    """The surrogate of one trajectory; `values` are V(s_0) … V(s_T)."""
    horizon = len(rewards)
    total = torch.zeros((), dtype=log_probs[0].dtype)
    cumulative = torch.zeros((), dtype=log_probs[0].dtype)
    for t in range(horizon):
        advantage = -values[t]
        for u in range(t, horizon):
            advantage += discount ** (u - t) * rewards[u]
        advantage += discount ** (horizon - t) * values[horizon]
        before, cumulative = cumulative, cumulative + log_probs[t]
        box = torch.exp(cumulative - cumulative.detach())
        if estimator == "ad":
            total = total + discount**t * advantage * log_probs[t]
        elif estimator == "lvc":
            total = total + discount**t * advantage * torch.exp(log_probs[t] - log_probs[t].detach())
        elif estimator == "loaded_dice":
            total = total + discount**t * advantage * (box - torch.exp(before - before.detach()))
        elif estimator == "dice":
            total = total + discount**t * rewards[t] * box
        else:
            raise ValueError(f"estimator: expected ad, dice, loaded_dice or lvc, got {estimator!r}")
    return total


def sampled_objective(problem: Problem, estimator: str, at: Tensor, random: Randomness) -> Callable[[Tensor], Tensor]:
    """θ ↦ mean surrogate of trajectories that are drawn at the given parameters."""
    policy = at.detach().softmax(-1)
    exact = problem.values(at.detach())
    critic = exact + problem.critic_noise * exact.norm() / len(exact) * random.normal
    table = outcomes(problem, policy)
    drawn = [trajectory(table, uniform) for uniform in random.uniform]

    def objective(theta: Tensor) -> Tensor:
        total = torch.zeros((), dtype=theta.dtype)
        for states, actions in drawn:
            log_probs = [theta[s].log_softmax(-1)[a] for s, a in zip(states, actions, strict=False)]
            rewards = [float(problem.reward[s, a]) for s, a in zip(states, actions, strict=False)]
            total = total + surrogate(estimator, problem.discount, log_probs, rewards, critic[states].tolist())
        return total / len(drawn)

    return objective


def meta_gradient(
    problem: Problem,
    theta: Tensor,
    random: Callable[[str, int], Randomness],
    *,
    estimator: str,
    permutation: str,
    inner_steps: int,
    inner_lr: float,
) -> Tensor:
    """∇_{θ⁰} of the outer objective at θᴷ, roles exact (E) or sampled (S) as the permutation says."""

    def role(letter: str, name: str, step: int, at: Tensor) -> Callable[[Tensor], Tensor]:
        if letter == "E":
            return lambda theta: problem.values(theta)[0]
        return sampled_objective(problem, estimator, at, random(name, step))

    start = theta.detach().requires_grad_()
    current = start
    for i in range(inner_steps):
        inner = role(permutation[0], "inner", i, current)
        (value,) = torch.autograd.grad(inner(current), current, retain_graph=True)
        hessian = role(permutation[1], "hessian", i, current)
        (jacobian,) = torch.autograd.grad(hessian(current), current, create_graph=True)
        composed, differentiable = current + inner_lr * value, current + inner_lr * jacobian
        current = composed.detach() + differentiable - differentiable.detach()
    outer = role(permutation[2], "outer", inner_steps, current)
    (result,) = torch.autograd.grad(outer(current), start)
    return result
