"""DiCE and off-policy DiCE of memory-one games, several rounds at a time.

m rounds from a state s make a block c = (s, o_1 … o_m): a few hundred different ones. What a block adds is tabulated
once, so that a trajectory costs T/m look-ups and sums instead of T. With g_b the discount γ^{mb} before block b, ρ_b
the cumulative ratio before it (1 on-policy), D_b the score of the rounds before it along λ, i and j the rounds of the
block, ρ_i and D_i counted from its start and κ_i = π_i/μ_i,

    q_i = Σ_{j≥i} γʲ ρ_j r_j,   y_i = Σ_{j≥i} γʲ ρ_j r_j D_j,   α = q_0,   δ = y_0

and the derivatives of DiCE (see `derivatives` and `off_policy`) for round i of block b are

    w     = A_b + g_b ρ_b q_i − g_b γⁱ κ_i V_i,                   A_b = Σ_{b'>b} g_b' ρ_b' α
    (F d) = B_b + g_b ρ_b (D_b q_i + y_i) − g_b γⁱ κ_i V_i d_i,   B_b = Σ_{b'>b} g_b' ρ_b' (D_b' α + δ).

Only A, B, g, gρ and gρD are summed for each block over the trajectories.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from gm_estimators.games import GameSignal


@dataclass(frozen=True, eq=False)
class Layout:
    """The different blocks: after an outcome, Σ_i 4^{m−i} o_i with o_0 the last one before; then those at the start.

    The first block has the rounds that are left over, so that all others are whole.

    Attributes:
        blocks: how many make up a trajectory.
        rounds: m.
        first: rounds of the first block.
        codes: how many different blocks there are.
        cell: 4 s_i + o_i of their rounds, shape `[codes, rounds]`.
        live: whether a block has that round, same shape.
    """

    blocks: int
    rounds: int
    first: int
    codes: int
    cell: Tensor
    live: Tensor


@lru_cache(maxsize=32)
def layout(horizon: int, rounds: int, device: torch.device) -> Layout:
    """The blocks of a horizon."""
    blocks = -(-horizon // rounds)
    first = horizon - (blocks - 1) * rounds
    outcome = _digits(rounds + 1, device)
    after = 4 * (outcome[:, :-1] + 1) + outcome[:, 1:]
    at_start = _digits(first, device)
    state = torch.nn.functional.pad(at_start[:, :-1] + 1, (1, 0))
    start = torch.nn.functional.pad(4 * state + at_start, (0, rounds - first))
    cell = torch.cat((after, start))
    live = torch.ones_like(cell, dtype=torch.bool)
    live[len(after) :, first:] = False
    return Layout(blocks, rounds, first, len(cell), cell, live)


def _digits(count: int, device: torch.device) -> Tensor:
    """All sequences of outcomes, shape `[4^count, count]`."""
    shifts = 2 * torch.arange(count - 1, -1, -1, device=device)
    return (torch.arange(4**count, device=device).unsqueeze(-1) >> shifts) & 3


class DiceBlocks:
    """W and U (see `games`) of DiCE, or of off-policy DiCE with unclipped ratios.

    Args:
        outcome: joint outcomes, best stored time first.
        signal: rewards, critic and discount.
        log_ratio: log π¹π²/μ¹μ² (o | s) for each group of trajectories with a behaviour of their own; `None` on-policy.
        group: the group of each trajectory.
        rounds: m, from 1 to 4.
        dtype: of what is computed for every trajectory.

    Raises:
        ValueError: if a trajectory's weight is infinite or NaN.
    """

    def __init__(
        self,
        outcome: Integer[Tensor, "*batch trajectory time"],
        signal: GameSignal,
        log_ratio: Float[Tensor, "*batch group 5 4"] | None = None,
        group: Integer[Tensor, "*#batch trajectory"] | None = None,
        *,
        rounds: int = 2,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        *batch, size, horizon = outcome.shape
        self._batch, self._size, self._dtype = tuple(batch), size, dtype
        self._layout = at = layout(horizon, rounds, outcome.device)
        if log_ratio is None:
            log_ratio = signal.reward.new_zeros(*batch, 1, 5, 4)
            group, self._on_policy = None, True
        else:
            self._on_policy = False
        self._groups = log_ratio.shape[-3]
        self._code = self._encode(outcome, group)
        step = log_ratio.reshape(-1, 20)[:, at.cell].where(at.live, 0.0)
        log_weight = step.cumsum(-1)
        decay = signal.discount ** torch.arange(rounds, device=outcome.device).to(step)
        self._reward = decay * log_weight.exp() * at.live * self._per_group(signal.reward)[:, at.cell & 3]
        self._baseline = decay * step.exp() * self._per_group(signal.value)[:, at.cell >> 2]
        self._to_go = _reverse_cumsum(self._reward)
        self._one_hot = (torch.nn.functional.one_hot(at.cell, 20) * at.live.unsqueeze(-1)).flatten(0, 1).to(step)
        self._discount = _discounts(signal.discount, at, self._code.shape[-1], dtype)
        self._weight = self._discount
        self.weight: Float[Tensor, "*batch trajectory"] | None = None
        """ρ of all rounds, if there is a behaviour policy."""
        if not self._on_policy:
            inside = self._look_up(log_weight[..., -1])
            before = _exclusive_cumsum(inside)
            self.weight = (before[-1] + inside[-1]).exp().reshape(*self._batch, size)
            self._weight = self._discount * before.exp_()
        self._alpha = self._look_up(self._to_go[..., 0]).mul_(self._weight)
        self._discount_sum = self._sum(self._discount)
        self._weight_sum = self._discount_sum if self._on_policy else self._sum(self._weight)
        if not bool(self._weight_sum.isfinite().all()):
            raise ValueError(
                "log_ratio: expected finite ratios to the behaviour policy, got infinity or NaN; "
                "clip them, normalise them or leave out the oldest trajectories"
            )

    def first(self) -> Float[Tensor, "*batch 5 4"]:
        """W."""
        after = self._sum(_exclusive_reverse_cumsum(self._alpha))
        coefficient = after + self._weight_sum * self._to_go - self._discount_sum * self._baseline
        return self._cells(coefficient)

    def product(self, direction: Float[Tensor, "*batch 5 4"]) -> Float[Tensor, "*batch 5 4"]:
        """U."""
        at = self._layout
        along = self._per_group(direction.flatten(-2))[:, at.cell] * at.live
        score = along.cumsum(-1)
        to_go = _reverse_cumsum(self._reward * score)
        before = _exclusive_cumsum(self._look_up(score[..., -1]))
        added = self._look_up(to_go[..., 0]).mul_(self._weight).addcmul_(before, self._alpha)
        after = self._sum(_exclusive_reverse_cumsum(added))
        reach = self._sum(before.mul_(self._weight))
        coefficient = after + reach * self._to_go + self._weight_sum * to_go
        return self._cells(coefficient - self._discount_sum * self._baseline * along)

    def visits(self) -> Float[Tensor, "*batch 5 4"]:
        """How often each (s, o) occurs in a trajectory, on average."""
        return self._cells(self._sum(torch.ones_like(self._alpha)).expand_as(self._reward))

    def _encode(self, outcome: Tensor, group: Tensor | None) -> Tensor:
        """Codes [block, lane], each lane with the place of its own tables added."""
        at = self._layout
        small = torch.uint8 if at.rounds < 4 else torch.int16  # the smallest that holds 4^{m+1} − 1
        lanes = outcome.movedim(-1, 0).reshape(outcome.shape[-1], -1).to(small)
        code = torch.zeros(at.blocks, lanes.shape[-1], dtype=small, device=lanes.device)
        for i in range(at.first):
            code[0].add_(lanes[i], alpha=4 ** (at.first - 1 - i))
        for i in range(at.rounds + 1):
            digit = lanes[at.first - 1 + i :: at.rounds][: at.blocks - 1]
            code[1:].add_(digit, alpha=4 ** (at.rounds - i))
        table = torch.arange(lanes.shape[-1] // self._size, device=lanes.device).unsqueeze(-1) * self._groups
        if group is not None:
            table = table + group.expand(*self._batch, self._size).reshape(-1, self._size)
        places = code.to(torch.int64).add_((table * at.codes).expand(-1, self._size).reshape(-1))
        places[0] += 4 ** (at.rounds + 1)  # those at the start come last
        return places

    def _per_group(self, table: Tensor) -> Tensor:
        """[*batch, entries] → [table, entries]."""
        return (
            table.expand(*self._batch, table.shape[-1]).reshape(-1, table.shape[-1]).repeat_interleave(self._groups, 0)
        )

    def _look_up(self, table: Tensor) -> Tensor:
        found = table.to(self._dtype).reshape(-1).index_select(0, self._code.view(-1))
        return found.view(self._code.shape)

    def _sum(self, values: Tensor) -> Tensor:
        """Σ over lanes and blocks of each code, shape [table, codes, 1]."""
        tables = len(self._reward)
        total = torch.zeros(tables * self._layout.codes, dtype=values.dtype, device=values.device)
        total.scatter_add_(0, self._code.view(-1), values.reshape(-1))
        return total.view(tables, -1, 1).to(self._reward)

    def _cells(self, coefficient: Tensor) -> Tensor:
        """Each round's coefficient to its own cell, [table, codes, rounds] → [*batch, 5, 4]."""
        by_cell = coefficient.flatten(1) @ self._one_hot
        return by_cell.view(*self._batch, self._groups, 5, 4).sum(-3) / self._size


@lru_cache(maxsize=8)
def _discounts(discount: float, at: Layout, lanes: int, dtype: torch.dtype) -> Tensor:
    """g_b for every lane, the same for all samples of a size."""
    before = (at.rounds * torch.arange(at.blocks, device=at.cell.device) - (at.rounds - at.first)).clamp(min=0)
    return (discount ** before.to(dtype)).unsqueeze(-1).repeat(1, lanes)


def _reverse_cumsum(x: Tensor) -> Tensor:
    return x.flip(-1).cumsum(-1).flip(-1)


def _exclusive_cumsum(x: Tensor) -> Tensor:
    """y_b = Σ_{b'<b} x_b' along the first axis."""
    y = torch.empty_like(x)
    if x.device.type != "cpu":
        return torch.cumsum(x, 0, out=y).sub_(x)
    _add_rows(x.numpy(), y.numpy())
    return y


def _exclusive_reverse_cumsum(x: Tensor) -> Tensor:
    """y_b = Σ_{b'>b} x_b' along the first axis."""
    y = torch.empty_like(x)
    if x.device.type != "cpu":
        return torch.cumsum(x.flip(0), 0, out=y).flip(0).sub_(x)
    _add_rows(x.numpy()[::-1], y.numpy()[::-1])
    return y


def _add_rows(x: "np.ndarray[Any, Any]", y: "np.ndarray[Any, Any]") -> None:
    """Row by row: ten times faster than a cumulative sum along the first axis."""
    y[0] = 0
    for b in range(1, len(x)):
        np.add(y[b - 1], x[b - 1], out=y[b])
