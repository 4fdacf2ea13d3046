"""Exact LOLA meta-gradients: each player differentiates through the steps that it expects its opponent to take."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gm_exact.games import GameEvaluation, evaluate_game


class LolaMetaGradient(NamedTuple):
    """What both players find.

    Attributes:
        gradient: each learner's meta-gradient, in its own states.
        look_ahead: θᴷ, where each learner expects its opponent to be, in the opponent's own states.
    """

    gradient: Float[Tensor, "*batch learner=2 5"]
    look_ahead: Float[Tensor, "*batch learner=2 5"]


def learners_view(
    payoffs: Float[Tensor, "*batch 2 2 2"], params: Float[Tensor, "*batch2 2 5"]
) -> tuple[Float[Tensor, "*batch 2 2 2 2"], Float[Tensor, "*batch2 2 2 5"]]:
    """The game as each learner sees it, itself being player 0 and its opponent player 1.

    Args:
        payoffs: Rⁱ(a¹, a²).
        params: θ¹ and θ².

    Returns:
        Payoffs `[*batch, learner, player, own action, other action]` and parameters `[*batch, learner, player, state]`.
    """
    return torch.stack((payoffs, payoffs.flip(-3).mT), -4), torch.stack((params, params.flip(-2)), -3)


def lola_meta_gradient(
    payoffs: Float[Tensor, "*#batch 2 2 2"],
    params: Float[Tensor, "*#batch 2 5"],
    *,
    discount: float,
    inner_lr: float | Tensor,
    inner_steps: int = 1,
    horizon: int | None = None,
) -> LolaMetaGradient:
    """Exact K-look-ahead LOLA meta-gradient of both players at once (paper, Eqs. 3 and 13).

        θ^{i+1} = θ^i + α ∇θ J_In(φ, θ^i),   λ_K = ∇θ J_Out(φ, θᴷ),   λ_i = λ_{i+1} + α ∇²θ J_In(φ, θ^i) λ_{i+1}
        ∇φ Jᴷ = ∇φ J_Out(φ, θᴷ) + α Σ_i ∇φ∇θ J_In(φ, θ^i) λ_{i+1}

    φ is the learner's policy and J_Out its value, θ the opponent's and J_In the opponent's.

    Args:
        payoffs: Rⁱ(a¹, a²).
        params: θ¹ and θ², log-odds of action 0, each in the player's own states.
        discount: γ.
        inner_lr: α, a number or a tensor that broadcasts against `[*batch, learner, 5]`.
        inner_steps: K; 0 gives each player's own policy gradient.
        horizon: T of both objectives; None for ever.

    Returns:
        Both learners' meta-gradients and look-aheads.

    Raises:
        ValueError: if K is negative or no integer, or as `evaluate_game`.
    """
    if isinstance(inner_steps, bool) or not isinstance(inner_steps, int) or inner_steps < 0:
        raise ValueError(f"inner_steps: expected an integer of at least 0, got {inner_steps!r}")
    views, both = learners_view(payoffs, params)
    learner, opponent = both.unbind(-2)

    def at(theta: Tensor) -> GameEvaluation:
        return evaluate_game(views, torch.stack((learner, theta), -2), discount=discount, horizon=horizon)

    steps = []
    for _ in range(inner_steps):
        evaluation = at(opponent)
        steps.append(evaluation.hessian[..., 1, 1, :, :, :])
        opponent = opponent + inner_lr * evaluation.gradient[..., 1, 1, :]
    end = at(opponent).gradient[..., 0, :, :]
    gradient, adjoint = end[..., 0, :], end[..., 1, :]
    for curvature in reversed(steps):  # of J_In: by θ, then by φ or θ
        mixed, own = torch.einsum("...xks,...x->...ks", curvature, inner_lr * adjoint).unbind(-2)
        gradient, adjoint = gradient + mixed, adjoint + own
    return LolaMetaGradient(gradient, opponent)
