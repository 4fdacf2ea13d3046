"""A critic learnt from the very trajectories that it judges."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gm_estimators.returns import returns_to_go

__all__ = ["learnt_values"]


def learnt_values(
    reward: Float[Tensor, "*batch trajectory time"],
    state: Int[Tensor, "*batch trajectory time_plus_1"],
    discount: float | Tensor,
    states: int,
) -> Float[Tensor, "*batch trajectory time_plus_1"]:
    """A state is worth what followed its visits in the other trajectories (Sutton and Barto 2018, Section 5.1).

        V_i(s) = Σ_{j≠i} Σ_t [s_t^j = s] G_t^j / Σ_{j≠i} Σ_t [s_t^j = s],   G_t = Σ_{u≥t} γ^{u−t} r_u

    Without its own return a trajectory's baseline is independent of its actions, so that no surrogate gets biased, as
    one does by O(1/n) with the mean over all trajectories. States, or groups of them, have numbers below `states`;
    those that no other trajectory visits have the value 0, and so has s_T: nothing is bootstrapped.

    Examples:
        >>> import torch
        >>> from gm_estimators.critics import learnt_values
        >>> reward, state = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 2, dtype=torch.long)
        >>> learnt_values(reward, state, discount=1.0, states=1)[:, 0]  # each trajectory sees the other's
        tensor([3., 1.])
    """
    expected = (*reward.shape[:-1], reward.shape[-1] + 1)
    if tuple(state.shape) != expected:
        raise ValueError(f"state: expected shape {expected}, one step more than reward, got {tuple(state.shape)}")
    visited = state[..., :-1]
    table = reward.new_zeros(*reward.shape[:-1], states)
    total = table.scatter_add(-1, visited, returns_to_go(reward, discount))
    count = table.scatter_add(-1, visited, torch.ones_like(reward))
    others = (total.sum(-2, keepdim=True) - total) / (count.sum(-2, keepdim=True) - count).clamp(min=1)
    return torch.nn.functional.pad(others.gather(-1, visited), (0, 1))
