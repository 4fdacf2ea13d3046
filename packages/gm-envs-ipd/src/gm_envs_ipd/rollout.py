"""Batched rollouts of two memory-one policies, with the randomness passed in.

A player's action is 1 where a uniform number u reaches the probability of action 0. u = (k + v) / 2¹⁵: 15 leading
bits k for every trajectory and a remainder v in [0, 1) for every round of a batch element. Each trajectory has
exactly the right law, since its rounds share nothing; only the trajectories of one batch element share their
remainders, which correlates them by less than 2⁻³². Four numbers cost one 64-bit word.

What both players would do in each of the four states is known before the round, so that a round is a choice among
bits: with a, b the last actions, x_ab the next one,

    x = x₀₀ ⊕ b (x₀₀ ⊕ x₀₁) ⊕ a (x₀₀ ⊕ b (x₀₀ ⊕ x₀₁) ⊕ x₁₀ ⊕ b (x₁₀ ⊕ x₁₁)).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor

from gm_envs_ipd.checks import integer
from gm_envs_ipd.views import joint_view, other_view

_LEVELS = 1 << 15


class Draws(NamedTuple):
    """Random numbers of a rollout: leading bits k of every uniform number, and the remainders v, float64."""

    key: Int16[Tensor, "time 2 *batch trajectory"]
    remainder: Float[Tensor, "time 2 *batch"]


def draws(
    rng: np.random.Generator | Sequence[np.random.Generator], batch: tuple[int, ...], size: SupportsIndex,
    horizon: SupportsIndex, device: torch.device | str = "cpu",
) -> Draws:  # fmt: skip
    """The random numbers of `rollout`, of `size` trajectories of `horizon` rounds; the same on every device.

    Of several generators each has an element of the first batch axis, whose numbers no other element then changes.

    Examples:
        >>> import numpy as np
        >>> from gm_envs_ipd import draws
        >>> numbers = draws(np.random.default_rng(0), (), size=4, horizon=3)
        >>> numbers.key.shape
        torch.Size([3, 2, 4])
    """
    shape, size = (integer("horizon", horizon), 2, *batch), integer("size", size)
    if isinstance(rng, np.random.Generator):
        words = _words(rng, (*shape, size))
        words &= _LEVELS - 1
        return Draws(torch.from_numpy(words).to(device), torch.from_numpy(rng.random(shape)).to(device))
    if batch[:1] != (len(rng),):
        raise ValueError(f"rng: expected a generator for each element of the batch {batch}, got {len(rng)}")
    key, remainder = np.empty((*shape, size), np.int16), np.empty(shape)
    for element, own in enumerate(rng):
        np.bitwise_and(_words(own, (*shape[:2], *batch[1:], size)), _LEVELS - 1, out=key[:, :, element])
        remainder[:, :, element] = own.random((*shape[:2], *batch[1:]))
    return Draws(torch.from_numpy(key).to(device), torch.from_numpy(remainder).to(device))


def _words(rng: np.random.Generator, shape: tuple[int, ...]) -> Int16[np.ndarray, "..."]:
    """16 random bits for each entry, four entries from each 64-bit word."""
    count = math.prod(shape)
    words = rng.integers(0, 1 << 64, size=-(-count // 4), dtype=np.uint64)
    return words.view(np.int16)[:count].reshape(shape)


def rollout(params: Float[Tensor, "*batch 2 5"], numbers: Draws) -> UInt8[Tensor, "*batch trajectory time"]:
    """Joint outcomes 2·a¹_t + a²_t of two players with memory-one policies, t = 0 … T−1, stored time first.

        aⁱ_t ~ Bernoulli(1 − σ(θⁱ[sⁱ_t])),   s_0 = start,   s_{t+1} = (own, other) actions of round t

    θ¹ and θ² are log-odds of action 0, each in the player's own states, ±∞ where an action is never played.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from gm_envs_ipd import draws, rollout
        >>> always_1 = torch.full((2, 5), -50.0)  # log-odds of action 0
        >>> rollout(always_1, draws(np.random.default_rng(0), (), size=2, horizon=3)).tolist()
        [[3, 3, 3], [3, 3, 3]]
    """
    batch = tuple(params.shape[:-2])
    if params.shape[-2:] != (2, 5):
        raise ValueError(f"params: expected two players' five log-odds, got shape {tuple(params.shape)}")
    if tuple(numbers.key.shape[2:-1]) != batch:
        raise ValueError(
            f"draws: expected batch axes {batch} as the parameters have, got {tuple(numbers.key.shape[2:-1])}"
        )
    if bool(params.isnan().any()):
        raise ValueError("params: expected log-odds, got NaN")
    least, most = numbers.remainder.aminmax()
    if not bool((least >= 0) & (most < 1) & (numbers.key.amin() >= 0)):
        raise ValueError("draws: expected leading bits of at least 0 and remainders in [0, 1), got others or NaN")
    # [state, player, *batch], states by player 2's action first, so that those for a = 0 and a = 1 lie together;
    # contiguous, since what is made from it inherits its strides
    by_player_2 = other_view(joint_view(params.detach().double().sigmoid()))
    probability = by_player_2.movedim((-1, -2), (0, 1)).contiguous()
    # u ≥ p  ⟺  k + v ≥ 2¹⁵ p  ⟺  k > ⌈2¹⁵ p − v⌉ − 1
    bound = ((_LEVELS * probability - numbers.remainder.unsqueeze(1)).ceil() - 1).to(torch.int16).unsqueeze(-1)
    key = numbers.key
    actions = torch.empty_like(key, dtype=torch.uint8)
    if key.device.type == "cpu":  # the same expressions, an eighth of the overhead for each operation
        _play(bound.numpy(), key.numpy(), np.uint8, actions.numpy())
    else:
        _play(bound, key, torch.uint8, actions)
    return torch.add(actions[:, 1], actions[:, 0], alpha=2).movedim(0, -1)


def _play(bound: Any, key: Any, byte: Any, actions: Any) -> None:
    """Fills in both players' actions, round by round, with the operators that NumPy and torch share."""
    actions[0] = key[0] > bound[0, 0]
    for t in range(1, len(key)):
        a, b = actions[t - 1]
        would = (key[t] > bound[t, 1:]).view(byte)
        x_a0, x_a1 = would[:2], would[2:]  # for b = 0 and b = 1, each for a = 0 and a = 1
        x_a1 ^= x_a0
        x_a1 &= b
        x_a0 ^= x_a1
        x_0, x_1 = x_a0
        x_1 ^= x_0
        x_1 &= a
        actions[t] = x_0 ^ x_1
