"""Exact values and derivatives of two memory-one players in an iterated 2×2 game, and LOLA's meta-gradients from them.

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
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gm_exact.tabular import Count, broadcast, check_count, check_horizon, holds, warn_of_few_digits

Payoffs = Float[Tensor, "*#batch 2 2 2"]
LogOdds = Float[Tensor, "*#batch 2 5"]
_SWAP = torch.tensor((0, 1, 3, 2, 4))


class Moment(NamedTuple):
    """What one round adds to the derivatives; for ever, the sum over all rounds."""

    occupancy: Float[Tensor, "*batch state"]
    """d_t(s)"""
    q_value: Float[Tensor, "*batch 2 outcome"]
    """Q_t(o) of both players"""
    slope: Float[Tensor, "*batch 2 2 state"]
    """q_j(s) of both players"""
    gradient_tp1: Float[Tensor, "*batch 2 state 2 5"]
    """G_{t+1}(s, k, x) of both players"""


@dataclass(frozen=True)
class GameEvaluation:
    """Values of both players at the start, with all their first and second derivatives.

    Attributes:
        value: Vⁱ.
        gradient: ∂Vⁱ/∂θʲ[s]; axes: whose value, whose parameter, its state.
        hessian: ∂²Vⁱ/∂θʲ[s]∂θᵏ[x], computed when it is asked for.
    """

    value: Float[Tensor, "*batch 2"]
    gradient: Float[Tensor, "*batch 2 2 5"]
    _params: Tensor
    _discount: float
    _moments: list[Moment]

    @cached_property
    def hessian(self) -> Float[Tensor, "*batch 2 2 5 2 5"]:
        """∂²Vⁱ/∂θʲ[s]∂θᵏ[x]."""
        first, second = _joint_policy(self._params, 1), _joint_policy(self._params, 2)
        terms = []
        for d, q_value, _, gradient_tp1 in self._moments:
            curvature = (second @ q_value[..., None, None, :, :].mT).movedim(-1, -4)
            same = torch.diag_embed(d[..., None, None, None, :] * curvature)
            weighted = (self._discount * d[..., None, :, None]) * first
            cross = torch.einsum("...jso,...iokx->...ijskx", weighted, gradient_tp1[..., 1:, :, :])
            terms.append(same.transpose(-3, -2) + cross + cross.movedim((-4, -3), (-2, -1)))
        by_one = _own_views(_total(terms)).movedim((-2, -1), (-4, -3))
        return _own_views(by_one).movedim((-2, -1), (-4, -3))


class LolaMetaGradient(NamedTuple):
    """Each learner's meta-gradient, and θᴷ, where it expects its opponent to be; both in their own states."""

    gradient: Float[Tensor, "*batch learner=2 5"]
    look_ahead: Float[Tensor, "*batch learner=2 5"]


def other_view(per_state: Float[Tensor, "*batch 5"]) -> Float[Tensor, "*batch 5"]:
    """A table over one player's states as a table over the other's: (own, other) ↦ (other, own)."""
    return per_state.index_select(-1, _SWAP.to(per_state.device))


def game_value(
    payoffs: Payoffs, params: LogOdds, *, discount: float, horizon: Count | None = None
) -> Float[Tensor, "*#batch 2"]:
    """Both players' return, as by `evaluate_game`: V = P₀ᵀ (I − γP)⁻¹ R (Foerster et al. 2018, LOLA, §4.1).

    Examples:
        >>> import torch
        >>> from gm_exact import game_value
        >>> payoffs = torch.tensor([[[-2.0, 0.0], [-3.0, -1.0]], [[-2.0, -3.0], [0.0, -1.0]]])
        >>> game_value(payoffs, torch.zeros(2, 5), discount=0.5)
        tensor([-3., -3.])
    """
    return evaluate_game(payoffs, params, discount=discount, horizon=horizon).value


def evaluate_game(
    payoffs: Payoffs, params: LogOdds, *, discount: float, horizon: Count | None = None
) -> GameEvaluation:
    """Values, gradients and second derivatives of both players in closed form; see the module for the equations.

    Args:
        payoffs: Rⁱ(a¹, a²).
        params: θ¹ and θ², log-odds of action 0, each in the player's own states.
        discount: γ in [0, 1], below 1 for ever.
        horizon: T; None for ever.

    Examples:
        >>> import torch
        >>> from gm_exact import evaluate_game
        >>> payoffs = torch.tensor([[[-2.0, 0.0], [-3.0, -1.0]], [[-2.0, -3.0], [0.0, -1.0]]])
        >>> evaluate_game(payoffs, torch.zeros(2, 5), discount=0.5).gradient.shape
        torch.Size([2, 2, 5])
    """
    horizon = _check(payoffs, params, discount, horizon)
    batch = broadcast(payoffs.shape[:-3], params.shape[:-2])
    reward = payoffs.flatten(-2).expand(*batch, 2, 4)
    seen = _own_views(params.expand(*batch, 2, 5))
    chain, first = _joint_policy(seen, 0), _joint_policy(seen, 1)
    if horizon is None:
        value, moments = _for_ever(chain, first, reward, discount)
    else:
        value, moments = _finite(chain, first, reward, discount, horizon)
    gradient = _total([moment.occupancy[..., None, None, :] * moment.slope for moment in moments])
    return GameEvaluation(value, _own_views(gradient), seen, discount, moments)


def lola_meta_gradient(
    payoffs: Payoffs,
    params: LogOdds,
    *,
    discount: float,
    inner_lr: float | Tensor,
    inner_steps: Count = 1,
    horizon: Count | None = None,
) -> LolaMetaGradient:
    """Exact K-look-ahead LOLA meta-gradient of both players at once (paper, Eqs. 3 and 13).

        θ^{i+1} = θ^i + α ∇θ J_In(φ, θ^i),   λ_K = ∇θ J_Out(φ, θᴷ),   λ_i = λ_{i+1} + α ∇²θ J_In(φ, θ^i) λ_{i+1}
        ∇φ Jᴷ = ∇φ J_Out(φ, θᴷ) + α Σ_i ∇φ∇θ J_In(φ, θ^i) λ_{i+1}

    φ is the learner's policy and J_Out its value, θ the opponent's and J_In the opponent's. α is a number or a tensor
    that broadcasts against `[*batch, learner, 5]`; K = 0 gives each player's own policy gradient. The rest is as in
    `evaluate_game`.

    Examples:
        >>> import torch
        >>> from gm_exact import lola_meta_gradient
        >>> payoffs = torch.tensor([[[-2.0, 0.0], [-3.0, -1.0]], [[-2.0, -3.0], [0.0, -1.0]]])
        >>> found = lola_meta_gradient(payoffs, torch.zeros(2, 5), discount=0.5, inner_lr=0.3)
        >>> found.gradient.shape, found.look_ahead.shape
        (torch.Size([2, 5]), torch.Size([2, 5]))
    """
    _check_tensors(payoffs, params)
    steps_ahead = check_count("inner_steps", inner_steps, "an integer of at least 0", least=0)
    # the game as each learner sees it, itself being player 0 and its opponent player 1
    views = torch.stack((payoffs, payoffs.flip(-3).mT), -4)
    learner, opponent = params, params.flip(-2)

    def at(theta: Tensor) -> GameEvaluation:
        return evaluate_game(views, torch.stack((learner, theta), -2), discount=discount, horizon=horizon)

    steps = []
    for _ in range(steps_ahead):
        evaluation = at(opponent)
        steps.append(evaluation.hessian[..., 1, 1, :, :, :])
        opponent = opponent + inner_lr * evaluation.gradient[..., 1, 1, :]
    end = at(opponent).gradient[..., 0, :, :]
    gradient, adjoint = end[..., 0, :], end[..., 1, :]
    for curvature in reversed(steps):  # of J_In: by θ, then by φ or θ
        mixed, own = torch.einsum("...xks,...x->...ks", curvature, inner_lr * adjoint).unbind(-2)
        gradient, adjoint = gradient + mixed, adjoint + own
    return LolaMetaGradient(gradient, opponent)


def _for_ever(chain: Tensor, first: Tensor, reward: Tensor, discount: float) -> tuple[Tensor, list[Moment]]:
    """V at the start, and the sum over all t as a single moment."""
    eye = torch.eye(5, dtype=chain.dtype, device=chain.device)
    visits = torch.linalg.inv(eye - discount * torch.nn.functional.pad(chain, (1, 0)))
    values = (visits @ (chain @ reward.mT)).mT
    q_value = reward + discount * values[..., 1:]
    slope = _slope(first, q_value)
    g = visits[..., None, :, None, :] * slope[..., None, :, :]
    return values[..., 0], [Moment(visits[..., 0, :], q_value, slope, g)]


def _finite(chain: Tensor, first: Tensor, reward: Tensor, discount: float, horizon: int) -> tuple[Tensor, list[Moment]]:
    """V at the start, and a moment for each t: d_t forwards, then V_t and G_t backwards."""
    d_t = torch.nn.functional.one_hot(torch.zeros_like(chain[..., 0, 0], dtype=torch.long), 5).to(chain)
    occupancy = [d_t]
    for _ in range(horizon - 1):
        d_t = torch.nn.functional.pad(discount * (d_t.unsqueeze(-2) @ chain).squeeze(-2), (1, 0))
        occupancy.append(d_t)
    value = reward.new_zeros(*reward.shape[:-1], 5)
    g = reward.new_zeros(*reward.shape[:-1], 5, 2, 5)
    moments = []
    for d_t in reversed(occupancy):
        q_value = reward + discount * value[..., 1:]
        slope = _slope(first, q_value)
        moments.append(Moment(d_t, q_value, slope, g))
        value = q_value @ chain.mT
        after = torch.einsum("...so,...iokx->...iskx", discount * chain, g[..., 1:, :, :])
        g = torch.diag_embed(slope).transpose(-3, -2) + after
    return value[..., 0], moments


def _slope(first: Tensor, q_value: Tensor) -> Tensor:
    """q_j(s) = Σ_o D_j(s, o) Q(o), for every player's Q: shape [*batch, i, j, s]."""
    return (first @ q_value.unsqueeze(-3).mT).movedim(-1, -3)


def _joint_policy(params: Tensor, order: int) -> Tensor:
    """P(s, o) for order 0, D_j(s, o) for 1, C_jk(s, o) for 2; parameters and derivatives in player 1's states.

    With p = σ(θ) the derivatives of (p, 1 − p) by θ are p(1 − p) (1, −1) and p(1 − p)(1 − 2p) (1, −1).
    """
    p, q = params.sigmoid(), (-params).sigmoid()
    slope = p * q
    policy, once = torch.stack((p, q), -1), torch.stack((slope, -slope), -1)

    def joint(first: Tensor, second: Tensor) -> Tensor:
        return (first[..., 0, :, :, None] * second[..., 1, :, None, :]).flatten(-2)

    if order == 0:
        return joint(policy, policy)
    if order == 1:
        return torch.stack((joint(once, policy), joint(policy, once)), -3)
    twice, mixed = once * (q - p).unsqueeze(-1), joint(once, once)
    by_player = (joint(twice, policy), mixed), (mixed, joint(policy, twice))
    return torch.stack([torch.stack(row, -3) for row in by_player], -4)


def _total(terms: list[Tensor]) -> Tensor:
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)


def _own_views(table: Tensor) -> Tensor:
    """Both players' tables [player, state], from player 1's states to each player's own, or back."""
    return torch.stack((table[..., 0, :], other_view(table[..., 1, :])), -2)


def _check_tensors(payoffs: Tensor, params: Tensor) -> None:
    for name, x, last in (("payoffs", payoffs, (2, 2, 2)), ("params", params, (2, 5))):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise TypeError(f"{name}: expected a tensor of floating-point numbers, got {came}")
        if tuple(x.shape[-len(last) :]) != last:
            raise ValueError(f"{name}: expected shape [..., {str(last)[1:-1]}], got {tuple(x.shape)}")
    if payoffs.dtype != params.dtype or payoffs.device != params.device:
        pair = f"{params.dtype} on {params.device} beside {payoffs.dtype} on {payoffs.device}"
        raise ValueError(f"params: expected the payoffs' type and device, got {pair}")


def _check(payoffs: Tensor, params: Tensor, discount: float, horizon: Count | None) -> int | None:
    _check_tensors(payoffs, params)
    steps = check_horizon(horizon)
    if not 0 <= discount <= 1 or (steps is None and discount == 1):
        raise ValueError(f"discount: expected 0 ≤ γ ≤ 1, and γ < 1 for the infinite horizon, got {discount}")
    if holds(params.isnan().any()) or holds(~payoffs.isfinite().all()):
        raise ValueError("payoffs, params: expected finite payoffs and log-odds, got NaN or infinity")
    warn_of_few_digits(params.dtype, discount, steps)
    return steps
