"""LOLA-DiCE as one would write it first: one learner, one trajectory, one round at a time (paper, Section 5.2).

    θ^{i+1} = θ^i + α ∇θ J_opponent(φ, θ^i),  i = 0 … K−1,      the learner follows ∇φ J_learner(φ, θᴷ)

φ and θ are log-odds of action 0 in each state of the learner and its opponent: the start, or 1 + 2·own + other of the
last round.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Policies = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Game:
    """Payoffs Rⁱ[a¹][a²] and the discount γ."""

    payoffs: Sequence[Sequence[Sequence[float]]]
    discount: float


@dataclass(frozen=True)
class Played:
    """One trajectory: the actions of both players, and the policies that chose them if they were others."""

    rounds: list[tuple[int, int]]
    behaviour: Policies | None = None


def meta_gradient(
    game: Game,
    policies: Policies,
    values: Sequence[Sequence[float]],
    learner: int,
    sample: Callable[[str, int, Policies], Sequence[Played]],
    *,
    inner_steps: int,
    inner_lr: float,
    shared: bool,
) -> Tensor:
    """The meta-gradient of player 0 or 1; `values` are both critics, a `shared` sample has a step's derivative, too."""
    opponent = 1 - learner
    phi, theta = (policies[player].detach().requires_grad_() for player in (learner, opponent))

    def pair(theta: Tensor) -> Policies:
        return (phi, theta) if learner == 0 else (theta, phi)

    def mean(whose: int, theta: Tensor, played: Sequence[Played]) -> Tensor:
        return torch.stack([dice(game, whose, pair(theta), one, values[whose]) for one in played]).mean()

    for step in range(inner_steps):
        at = pair(theta.detach())
        inner = mean(opponent, theta, sample("inner", step, at))
        (gradient,) = (derivative,) = torch.autograd.grad(inner, theta, create_graph=True)
        if not shared:
            hessian = mean(opponent, theta, sample("hessian", step, at))
            (derivative,) = torch.autograd.grad(hessian, theta, create_graph=True)
        goes_to, differentiable = theta + inner_lr * gradient, theta + inner_lr * derivative
        theta = goes_to.detach() + differentiable - differentiable.detach()
    outer = mean(learner, theta, sample("outer", inner_steps, pair(theta.detach())))
    return torch.autograd.grad(outer, phi)[0]


def dice(game: Game, whose: int, policies: Policies, played: Played, values: Sequence[float]) -> Tensor:
    """DiCE is Σ_t γᵗ ρ_t r_t + Σ_t γᵗ (1 − π_t/μ_t) V(s_t), ρ_t = Π_{u≤t} π_u/μ_u; on-policy μ = ⊥π."""
    total = log_ratio = torch.zeros((), dtype=torch.float64)
    own = other = 0
    for t, (a, b) in enumerate(played.rounds):
        here = log_prob(policies[0], own, a) + log_prob(policies[1], other, b)
        drawn = here
        if played.behaviour is not None:
            drawn = log_prob(played.behaviour[0], own, a) + log_prob(played.behaviour[1], other, b)
        step = here - drawn.detach()
        log_ratio = log_ratio + step
        value = values[own if whose == 0 else other]
        total = total + game.discount**t * game.payoffs[whose][a][b] * torch.exp(log_ratio)
        total = total + game.discount**t * (1 - torch.exp(step)) * value
        own, other = 1 + 2 * a + b, 1 + 2 * b + a
    return total


def log_prob(theta: Tensor, state: int, action: int) -> Tensor:
    """The log-probability of an action is log σ(θ[s]) or log σ(−θ[s])."""
    return torch.nn.functional.logsigmoid(theta[state] if action == 0 else -theta[state])


def play(policies: Policies, uniform: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """A trajectory has action 1 where the uniform number reaches the probability of action 0."""
    action_0 = [[1 / (1 + math.exp(-x)) for x in theta.tolist()] for theta in policies]
    own, other, rounds = 0, 0, []
    for first, second in uniform:
        a, b = int(first >= action_0[0][own]), int(second >= action_0[1][other])
        rounds.append((a, b))
        own, other = 1 + 2 * a + b, 1 + 2 * b + a
    return rounds
