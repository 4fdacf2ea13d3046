"""Batched rollouts of tabular policies, with the randomness passed in.

One uniform number decides a step: action and next state are drawn together by inverting the cumulative distribution of

    p(a, s′ | s) = π(a | s) p(s′ | s, a)

over the outcomes that can occur at all. Because the numbers are an argument, two policies can be rolled out on
common random numbers, and the first n of N trajectories are the same as n trajectories.
"""

from typing import NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gm_envs_tabular.checks import integer

# below half of a uniform's resolution (2⁻⁵³) an outcome is never drawn, and its column is saved
_NEVER = 2.0**-54


class Successors(NamedTuple):
    """The possible next states of each (s, a), most probable first, and their probabilities, which sum to one.

    Where there are fewer than outcomes, state 0 with probability 0 follows.
    """

    state: Int[Tensor, "*batch state action outcome"]
    probability: Float[Tensor, "*batch state action outcome"]


class Rollout(NamedTuple):
    """Trajectories: the states s_0 … s_T and the actions a_0 … a_{T−1}, int64."""

    state: Int[Tensor, "*batch trajectory time_plus_1"]
    action: Int[Tensor, "*batch trajectory time"]

    def first(self, size: int) -> "Rollout":
        """The first `size` trajectories."""
        return Rollout(self.state[..., :size, :], self.action[..., :size, :])


def successors(transition: Float[Tensor, "*batch state action next_state"]) -> Successors:
    """The next states that a 53-bit uniform number can hit: what `rollout` needs of p(s′ | s, a).

    Examples:
        >>> import torch
        >>> from gm_envs_tabular import successors
        >>> successors(torch.tensor([[[0.25, 0.75]], [[1.0, 0.0]]])).state.tolist()
        [[[1, 0]], [[0, 1]]]
    """
    if transition.ndim < 3 or transition.shape[-1] != transition.shape[-3] or 0 in transition.shape:
        raise ValueError(f"transition: expected shape [..., state, action, state], got {tuple(transition.shape)}")
    sums = transition.sum(-1)
    if not bool((transition >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-5):
        raise ValueError(
            "transition: expected non-negative rows that sum to 1, got a smallest entry of "
            f"{transition.min().item():.3g} and row sums from {sums.min().item():.6g} to {sums.max().item():.6g}"
        )
    probability, state = transition.sort(dim=-1, descending=True, stable=True)
    width = max(1, int((probability > _NEVER).sum(-1).max()))
    kept = probability[..., :width]
    return Successors(state[..., :width].contiguous(), kept / kept.sum(-1, keepdim=True))


def uniforms(
    rng: np.random.Generator, batch: tuple[int, ...], size: SupportsIndex, horizon: SupportsIndex,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "*batch trajectory time"]:  # fmt: skip
    """Uniform numbers for `rollout`, in [0, 1), the same on every device, stored time first as its loop reads them.

    They are drawn trajectory by trajectory: a larger `size` extends a smaller one.

    Examples:
        >>> import numpy as np
        >>> from gm_envs_tabular import uniforms
        >>> uniforms(np.random.default_rng(0), (), size=4, horizon=2).shape
        torch.Size([4, 2])
    """
    sizes = (integer("size", size), integer("horizon", horizon), *batch)
    drawn = torch.from_numpy(rng.random(sizes)).to(device)
    return drawn.transpose(0, 1).contiguous().permute(*range(2, drawn.ndim), 1, 0)


def rollout(
    policy: Float[Tensor, "*batch state action"],
    next_states: Successors,
    uniform: Float[Tensor, "*batch trajectory time"],
    start: SupportsIndex = 0,
) -> Rollout:
    """Trajectories of a policy.

        (a_t, s_{t+1}) ~ π(a | s_t) p(s′ | s_t, a),   s_0 = start,   t = 0 … T−1

    Args:
        policy: π(a | s), not negative, rows sum to one; trajectories carry no gradient to it.
        next_states: as from `successors`; its batch axes broadcast to the policy's.
        uniform: one number in [0, 1) for every step, as from `uniforms`.
        start: the first state s_0.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from gm_envs_tabular import rollout, successors, uniforms
        >>> swap = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]]).double()  # two states, one action
        >>> numbers = uniforms(np.random.default_rng(0), (), size=1, horizon=3)
        >>> rollout(torch.ones(2, 1).double(), successors(swap), numbers).state.tolist()
        [[0, 1, 0, 1]]
    """
    *batch, states, actions = policy.shape
    *_, size, horizon = uniform.shape
    _require(policy, next_states, uniform)
    start = integer("start", start, 0, states - 1)
    width = next_states.state.shape[-1]
    outcomes = actions * width
    joint = (policy.detach().unsqueeze(-1) * next_states.probability.detach()).reshape(*batch, states, outcomes)
    cdf = joint.cumsum(-1)
    total = cdf[..., -1:]
    if not bool((total - 1).abs().max() < 1e-5):
        raise ValueError(f"policy: expected rows that sum to 1, got sums up to {total.max().item():.6g}")
    # the last outcome that can occur takes what rounding left of the interval
    cdf = cdf.masked_fill(cdf >= total, torch.inf)
    levels = max(1, (outcomes - 1).bit_length())
    row = 1 << levels
    table = torch.nn.functional.pad(cdf, (0, row - outcomes), value=torch.inf).reshape(-1)

    # a place in the table stands for (batch element, s, a, s′), so that one look-up leads to the next row
    problems = table.numel() // (states * row)
    index = torch.int32 if table.numel() < 2**31 else torch.int64
    problem_row = torch.arange(problems, device=policy.device).mul_(states).reshape(*batch, 1, 1)
    next_state = next_states.state.reshape(*next_states.state.shape[:-2], outcomes).expand(*batch, states, outcomes)
    next_row = torch.nn.functional.pad((next_state + problem_row) * row, (0, row - outcomes)).reshape(-1).to(index)

    numbers = uniform.movedim((-1, -2), (0, 1)).reshape(horizon, -1)
    base = ((problem_row.reshape(1, -1) + start) * row).expand(size, -1).reshape(-1).to(index)
    places = torch.empty(horizon + 1, base.numel(), dtype=index, device=policy.device)
    bound, above = torch.empty_like(base, dtype=table.dtype), torch.empty_like(base)
    # the table from 2ˡ − 1 on for each level l, so that a place needs no sum before it is looked up
    halves = [(1 << level, table[(1 << level) - 1 :]) for level in reversed(range(levels))]
    for t in range(horizon):
        place = places[t].copy_(base)
        for step, half in halves:
            torch.index_select(half, 0, place, out=bound)
            torch.ge(numbers[t], bound, out=above)
            place.add_(above, alpha=step)
        torch.index_select(next_row, 0, place, out=base)
    places[horizon] = base

    def trajectory_axes(flat: Tensor) -> Tensor:  # [time, trajectory · batch] → [*batch, trajectory, time], no copy
        return flat.reshape(flat.shape[0], size, *batch).movedim((0, 1), (-1, -2))

    # shifts and look-ups, because an integer division costs as much as half the loop
    action = torch.arange(row, device=policy.device).div(width, rounding_mode="floor")
    chosen = action.index_select(0, (places[:horizon] & (row - 1)).reshape(-1)).reshape(horizon, -1)
    rows = (places >> levels).reshape(horizon + 1, size, problems).sub_(problem_row.reshape(-1).to(index))
    return Rollout(trajectory_axes(rows.reshape(horizon + 1, -1).to(torch.int64)), trajectory_axes(chosen))


def _require(policy: Tensor, next_states: Successors, uniform: Tensor) -> None:
    """Refuses what would give trajectories, but not those of a policy in these transitions."""
    *_, states, actions = policy.shape
    require_uniform(policy, uniform)
    if (there := tuple(next_states.state.shape[-3:-1])) != (states, actions):
        raise ValueError(f"policy: expected {there} states and actions as the transitions have, got {states, actions}")
    if bool((policy < 0).any()):
        raise ValueError(f"policy: expected probabilities of at least 0, got {policy.min().item():.6g}")


def require_uniform(policy: Tensor, uniform: Tensor) -> None:
    """Refuses numbers for other batch axes than the policy's, none at all, and such as are not in [0, 1)."""
    batch = list(policy.shape[:-2])
    if list(uniform.shape[:-2]) != batch:
        raise ValueError(f"uniform: expected batch axes {batch} as the policy has, got {list(uniform.shape[:-2])}")
    if 0 in uniform.shape:
        raise ValueError(f"uniform: expected at least one trajectory of one step, got shape {tuple(uniform.shape)}")
    in_memory = uniform if uniform.is_contiguous() else uniform.movedim((-1, -2), (0, 1))  # as `uniforms` stores them
    least, most = in_memory.aminmax()
    if not bool((least >= 0) & (most < 1)):
        raise ValueError(f"uniform: expected numbers in [0, 1), got some from {least.item():.6g} to {most.item():.6g}")
