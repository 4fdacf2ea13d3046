"""Exact values and derivatives of two memory-one players in an iterated 2×2 game.

A player's state is the start (0) or the last joint action as (own, other) in state 1 + 2·own + other; θⁱ holds its
log-odds of action 0. Inside, everything is in player 1's states: P(s, o) is the probability of the joint action
o = 2·a¹ + a² in state s, D_j(s, o) and C_jk(s, o) its derivatives by the parameters of players j and k in that state.
With the values V_t(s), the occupancy d_t(s) = γᵗ Pr(s_t = s) and G_t(s, k, x) = ∂V_t(s)/∂θᵏ[x],

    V_t(s) = Σ_o P(s, o) Q_t(o),   Q_t(o) = R(o) + γ V_{t+1}(1 + o),   q_j(s) = Σ_o D_j(s, o) Q_t(o)
    G_t(s, k, x) = [s = x] q_k(s) + γ Σ_o P(s, o) G_{t+1}(1 + o, k, x)
    ∂V/∂θʲ[s] = Σ_t d_t(s) q_j(s)
    ∂²V/∂θʲ[s]∂θᵏ[x] = Σ_t [s = x] d_t(s) Σ_o C_jk(s, o) Q_t(o) + B_js,kx + B_kx,js,
    B_js,kx = Σ_t d_t(s) γ Σ_o D_j(s, o) G_{t+1}(1 + o, k, x).

For ever, one matrix N = (I − γP)⁻¹ of discounted visits holds all of it: d = N(start, ·), G(s, k, x) = N(s, x) q_k(x).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GameEvaluation:
    """Values of both players at the start, with all their first and second derivatives.

    Args:
        value: Vⁱ.
        gradient: ∂Vⁱ/∂θʲ[s]; axes: whose value, whose parameter, its state.
        hessian: ∂²Vⁱ/∂θʲ[s]∂θᵏ[x].
    """

    value: Float[Tensor, "*batch 2"]
    gradient: Float[Tensor, "*batch 2 2 5"]
    hessian: Float[Tensor, "*batch 2 2 5 2 5"]


def other_view(per_state: Float[Tensor, "*batch 5"]) -> Float[Tensor, "*batch 5"]:
    """A table over one player's states as a table over the other's: (own, other) ↦ (other, own)."""
    return per_state[..., (0, 1, 3, 2, 4)]


def game_value(
    payoffs: Float[Tensor, "*#batch 2 2 2"],
    params: Float[Tensor, "*#batch 2 5"],
    *,
    discount: float,
    horizon: int | None = None,
) -> Float[Tensor, "*#batch 2"]:
    """Both players' discounted return: V = P₀ᵀ (I − γP)⁻¹ R (Foerster et al. 2018, "Learning with Opponent-Learning …").

    Args:
        payoffs: Rⁱ(a¹, a²).
        params: θ¹ and θ², log-odds of action 0, each in the player's own states.
        discount: γ.
        horizon: T; None for ever.

    Returns:
        V¹ and V².

    Raises:
        ValueError: as `evaluate_game`.
    """
    return evaluate_game(payoffs, params, discount=discount, horizon=horizon).value


def evaluate_game(
    payoffs: Float[Tensor, "*#batch 2 2 2"],
    params: Float[Tensor, "*#batch 2 5"],
    *,
    discount: float,
    horizon: int | None = None,
) -> GameEvaluation:
    """Values, gradients and second derivatives of both players in closed form; see the module for the equations.

    Args:
        payoffs: Rⁱ(a¹, a²).
        params: θ¹ and θ², log-odds of action 0, each in the player's own states.
        discount: γ.
        horizon: T; None for ever.

    Returns:
        The evaluation at θ, differentiable in payoffs and parameters.

    Raises:
        ValueError: if γ is not in [0, 1], or is 1 for ever, the horizon is no positive integer, or a number is NaN.
    """
    _check(payoffs, params, discount, horizon)
    batch = torch.broadcast_shapes(payoffs.shape[:-3], params.shape[:-2])
    seen = torch.stack((params[..., 0, :], other_view(params[..., 1, :])), -2).expand(*batch, 2, 5)
    reward = payoffs.flatten(-2).expand(*batch, 2, 4)
    chain, first, second = _joint_policy(seen)
    moments = (_for_ever if horizon is None else _finite)(chain, first, reward, discount, horizon or 0)
    gradient, hessian = torch.zeros_like(reward[..., :1, None]), torch.zeros_like(reward[..., :1, None, None, None])
    for d, q_value, g in moments:
        slope = _slope(first, q_value)
        gradient = gradient + d[..., None, None, :] * slope
        bend = torch.diag_embed(
            (d[..., None, None, :, None] * (second @ q_value[..., None, None, :, :].mT)).squeeze(-1)
        )
        raise NotImplementedError(bend)
    raise NotImplementedError


