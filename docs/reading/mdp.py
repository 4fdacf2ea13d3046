"""What MAML and LIRPG are made of: one MDP, one trajectory drawn step by step, and what an estimator makes of it."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Outcomes = list[tuple[list[float], list[tuple[int, int]]]]


@dataclass(frozen=True)
class MDP:
    """Tables p(s′ | s, a) and r(s, a) and the discount γ; everything starts in state 0."""

    transition: Tensor
    reward: Tensor
    discount: float


def state_values(mdp: MDP, theta: Tensor) -> Tensor:
    """The exact values of the softmax policy with logits θ are V = (I − γ P_π)⁻¹ r_π."""
    policy = theta.softmax(-1)
    chain = torch.einsum("sa,sax->sx", policy, mdp.transition)
    identity = torch.eye(len(chain), dtype=chain.dtype)
    values: Tensor = torch.linalg.solve(identity - mdp.discount * chain, (policy * mdp.reward).sum(-1))
    return values


def outcomes(mdp: MDP, policy: Tensor) -> Outcomes:
    """Each state has outcomes (a, s′) with cumulative probabilities, next states in order of falling probability."""
    table = []
    for s in range(policy.shape[0]):
        cumulative: list[float] = []
        pairs: list[tuple[int, int]] = []
        for a in range(policy.shape[1]):
            probabilities, successors = torch.sort(mdp.transition[s, a], descending=True, stable=True)
            for p, x in zip((policy[s, a] * probabilities).tolist(), successors.tolist(), strict=True):
                cumulative.append((cumulative[-1] if cumulative else 0.0) + p)
                pairs.append((a, x))
        table.append((cumulative, pairs))
    return table


def trajectory(table: Outcomes, uniform: Sequence[float]) -> tuple[list[int], list[int]]:
    """A uniform number for each step picks its outcome: states s_0 … s_T and actions."""
    states, actions = [0], []
    for u in uniform:
        cumulative, pairs = table[states[-1]]
        action, successor = pairs[min(bisect_right(cumulative, u), len(pairs) - 1)]
        actions.append(action)
        states.append(successor)
    return states, actions


def box(log_prob: Tensor) -> Tensor:
    """The magic box is one, with the derivatives of the probability ratio: □(x) = exp(x − ⊥x)."""
    return torch.exp(log_prob - log_prob.detach())


def surrogate(
    estimator: str,
    log_probs: Sequence[Tensor],
    rewards: Sequence[float | Tensor],
    values: Sequence[float | Tensor],
    discount: float,
    gae_lambda: float = 1.0,
) -> Tensor:
    """A trajectory's surrogate Σ_t γᵗ … is differentiated: its derivatives estimate those of the expected return.

    A_t = δ_t + γ λ A_{t+1},   δ_t = r_t + γ V(s_{t+1}) − V(s_t);      `values` are V(s_0) … V(s_T)
    """
    total: Tensor = torch.zeros((), dtype=log_probs[0].dtype)
    advantages: list[float | Tensor] = [0.0]
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + discount * values[t + 1] - values[t]
        advantages.insert(0, delta + discount * gae_lambda * advantages[0])
    past: Tensor = torch.zeros((), dtype=log_probs[0].dtype)  # Σ_{u<t} log π_u
    for t, log_prob in enumerate(log_probs):
        upto = past + log_prob
        if estimator == "ad":
            term = advantages[t] * log_prob
        elif estimator == "lvc":
            term = advantages[t] * box(log_prob)
        elif estimator == "loaded_dice":
            term = advantages[t] * (box(upto) - box(past))
        elif estimator == "dice":  # without a critic
            term = rewards[t] * box(upto)
        else:
            raise ValueError(f"estimator: expected ad, dice, loaded_dice or lvc, got {estimator!r}")
        total, past = total + discount**t * term, upto
    return total
