"""The LOLA-DiCE meta-gradient as one would write it first: one seed, one trajectory, one round at a time.

It is the oracle of gm_experiments.lola, and what that path's speed is measured against. It shares no code with the
packages. A player's state is the start, or 1 + 2·own + other of the last round; θ is the log-odds of action 0.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rounds = list[tuple[int, int]]
Policies = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Played:
    """One trajectory: the actions of both players, and the policies that chose them if they were others."""

    rounds: Rounds
    behaviour: Policies | None = None


Sampler = Callable[[str, int, Policies], Sequence[Played]]


@dataclass(frozen=True)
class Game:
    """Payoffs Rⁱ[a¹][a²] and γ."""

    payoffs: Sequence[Sequence[Sequence[float]]]
    discount: float


def play(policies: Policies, uniform: Sequence[tuple[float, float]]) -> Rounds:
    """A trajectory: action 1 where the number reaches the probability of action 0."""
    action_0 = [[1 / (1 + math.exp(-x)) for x in theta.tolist()] for theta in policies]
    own = other = 0
    rounds = []
    for first, second in uniform:
        a, b = int(first >= action_0[0][own]), int(second >= action_0[1][other])
        rounds.append((a, b))
        own, other = 1 + 2 * a + b, 1 + 2 * b + a
    return rounds


def log_prob(theta: Tensor, state: int, action: int) -> Tensor:
    """Log π(a | s)."""
    return torch.nn.functional.logsigmoid(theta[state] if action == 0 else -theta[state])


def dice(game: Game, whose: int, policies: Policies, played: Played, values: Sequence[float]) -> Tensor:
    """Σ_t γᵗ ρ_t r_t + Σ_t γᵗ (1 − π_t/μ_t) V(s_t), with ρ → 1 for the policies' own trajectories."""
    total = torch.zeros((), dtype=torch.float64)
    cumulative = torch.zeros((), dtype=torch.float64)
    own = other = 0
    for t, (a, b) in enumerate(played.rounds):
        here = log_prob(policies[0], own, a) + log_prob(policies[1], other, b)
        drawn_by = here.detach()
        if played.behaviour is not None:
            drawn_by = (log_prob(played.behaviour[0], own, a) + log_prob(played.behaviour[1], other, b)).detach()
        cumulative = cumulative + here - drawn_by
        value = values[own if whose == 0 else other]
        total = total + game.discount**t * game.payoffs[whose][a][b] * torch.exp(cumulative)
        total = total + game.discount**t * (1 - torch.exp(here - drawn_by)) * value
        own, other = 1 + 2 * a + b, 1 + 2 * b + a
    return total


def meta_gradient(
    game: Game,
    policies: Policies,
    values: Sequence[Sequence[float]],
    learner: int,
    sample: Sampler,
    *,
    inner_steps: int,
    inner_lr: float,
    shared: bool,
) -> Tensor:
    """∇φ J_Out(φ, θᴷ) of one learner.

    Args:
        game: the game.
        policies: both players' θ, each in its own states.
        values: both players' critics, each in its own states.
        learner: 0 or 1.
        sample: (role, step, policies) ↦ trajectories.
        inner_steps: K.
        inner_lr: α.
        shared: whether the step's Jacobian is had from the trajectories of the step itself.
    """
    opponent = 1 - learner
    phi = policies[learner].detach().requires_grad_()
    theta = policies[opponent].detach().requires_grad_()

    def pair(theta: Tensor) -> Policies:
        return (phi, theta) if learner == 0 else (theta, phi)

    def mean(whose: int, theta: Tensor, trajectories: Sequence[Played]) -> Tensor:
        return torch.stack([dice(game, whose, pair(theta), one, values[whose]) for one in trajectories]).mean()

    for step in range(inner_steps):
        at = pair(theta.detach())
        inner = sample("inner", step, at)
        (gradient,) = torch.autograd.grad(mean(opponent, theta, inner), theta, create_graph=True)
        jacobian = gradient
        if not shared:
            again = sample("hessian", step, at)
            (jacobian,) = torch.autograd.grad(mean(opponent, theta, again), theta, create_graph=True)
        moved = theta + inner_lr * jacobian
        theta = (theta + inner_lr * gradient).detach() + moved - moved.detach()
    outer = sample("outer", inner_steps, pair(theta.detach()))
    (result,) = torch.autograd.grad(mean(learner, theta, outer), phi)
    return result
