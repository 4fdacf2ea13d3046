"""Sums along a trajectory, and derivatives that several surrogates have in common."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.returns import returns_to_go, reverse_cumsum
from gm_estimators.surrogates.trajectories import SignalCotangents, Trajectories


def decayed_cumsum(x: Float[Tensor, "*batch time"], decay: float) -> Float[Tensor, "*batch time"]:
    """The sum forgets what is long ago: y_t = Σ_{u≤t} λ^{t−u} x_u.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import decayed_cumsum
        >>> decayed_cumsum(torch.tensor([1.0, 1.0, 1.0]), decay=0.5)
        tensor([1.0000, 1.5000, 1.7500])
    """
    return x.cumsum(-1) if decay == 1 else returns_to_go(x.flip(-1), decay).flip(-1)


def discounted_return(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
    """The return is bootstrapped at the horizon: Σ_t γᵗ r_t + γᵀ V(s_T).

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, discounted_return
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> discounted_return(seen)
        tensor([2.])
    """
    last = trajectories.discount[..., -1] * trajectories.value[..., -1]
    return (trajectories.discount[..., :-1] * trajectories.reward).sum(-1) + last


def reward_to_go(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory time"]:
    """Step t has a part in these rewards, seen from time 0: Σ_{u≥t} γᵘ r_u + γᵀ V(s_T).

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, reward_to_go
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> reward_to_go(seen)
        tensor([[2., 1.]])
    """
    discounted = trajectories.discount[..., :-1] * trajectories.reward
    last = trajectories.discount[..., -1] * trajectories.value[..., -1]
    return discounted.flip(-1).cumsum(-1).flip(-1) + last.unsqueeze(-1)


def product_by_later_step(
    weight: Float[Tensor, "*batch trajectory time"], decay: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Returns d ↦ F d where the later of two steps weighs their product: F_tu = λ^{|t−u|} c_max(t,u).

        (F d)_t = c_t Σ_{u≤t} λ^{t−u} d_u + Σ_{u>t} λ^{u−t} c_u d_u

    c is `weight`, λ is `decay`.
    """

    def product(direction: Tensor) -> Tensor:
        cross = weight * direction
        after = (reverse_cumsum(cross) if decay == 1 else returns_to_go(cross, decay)) - cross
        return weight * decayed_cumsum(direction, decay) + after

    return product


def through_advantages(trajectories: Trajectories) -> Callable[[Tensor], SignalCotangents]:
    """The first derivative w_t = γᵗ A_t depends on the advantages: ∂⟨w, d⟩/∂A_t = γᵗ d_t."""
    return lambda direction: SignalCotangents(advantage=trajectories.discount[..., :-1] * direction)


def through_rewards(trajectories: Trajectories) -> Callable[[Tensor], SignalCotangents]:
    """The first derivative w_t = Σ_{u≥t} γᵘ r_u + γᵀ V(s_T) − γᵗ V(s_t) depends on rewards and values.

    ∂⟨w, d⟩/∂r_u = γᵘ Σ_{t≤u} d_t,   ∂⟨w, d⟩/∂V(s_t) = −γᵗ d_t,   ∂⟨w, d⟩/∂V(s_T) = γᵀ Σ_t d_t
    """

    def mixed(direction: Tensor) -> SignalCotangents:
        summed = direction.cumsum(-1)
        value = torch.cat([-direction, summed[..., -1:]], dim=-1)
        return SignalCotangents(reward=trajectories.discount[..., :-1] * summed, value=trajectories.discount * value)

    return mixed
