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

import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from gm_experiments.lola.objectives import GameSignal


@dataclass(frozen=True, eq=False)
class Layout:
    """The different blocks: after an outcome, Σ_i 4^{m−i} o_i with o_0 the last one before; then those at the start.

    The first block of a trajectory has the rounds that are left over, so that all others have m. `entry` is 4 s_i + o_i
    of the rounds of each code, `live` whether it has that round, both `[codes, rounds]`; `one_hot` is [entry of this
    round = c], `[codes × rounds, 20]`.
    """

    blocks: int
    rounds: int
    first: int
    codes: int
    entry: Tensor
    live: Tensor
    one_hot: Tensor


@lru_cache(maxsize=32)
def layout(horizon: int, rounds: int, device: torch.device) -> Layout:
    """Returns the blocks of a horizon."""
    blocks = -(-horizon // rounds)
    first = horizon - (blocks - 1) * rounds
    outcome = _digits(rounds + 1, device)
    after = 4 * (outcome[:, :-1] + 1) + outcome[:, 1:]
    at_start = _digits(first, device)
    state = torch.nn.functional.pad(at_start[:, :-1] + 1, (1, 0))
    start = torch.nn.functional.pad(4 * state + at_start, (0, rounds - first))
    entry = torch.cat((after, start))
    live = torch.ones_like(entry, dtype=torch.bool)
    live[len(after) :, first:] = False
    one_hot = (torch.nn.functional.one_hot(entry, 20) * live.unsqueeze(-1)).flatten(0, 1).double()
    return Layout(blocks, rounds, first, len(entry), entry, live, one_hot)


def _digits(count: int, device: torch.device) -> Tensor:
    """All sequences of outcomes, shape `[4^count, count]`."""
    shifts = 2 * torch.arange(count - 1, -1, -1, device=device)
    return (torch.arange(4**count, device=device).unsqueeze(-1) >> shifts) & 3


class DiceBlocks:
    """W and U (see `objectives`) of DiCE, or of off-policy DiCE with unclipped ratios.

    Args:
        outcome: joint outcomes, best stored time first.
        log_ratio: log π¹π²/μ¹μ² (o | s) for each group of trajectories with a behaviour of their own; `None` on-policy.
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
        self._batch, self._size = tuple(batch), size
        self._layout = at = layout(horizon, rounds, outcome.device)
        self._groups = 1 if log_ratio is None else log_ratio.shape[-3]
        decay = signal.discount ** torch.arange(rounds, device=outcome.device).to(signal.reward)
        reward = decay * self._per_group(signal.reward)[:, at.entry & 3] * at.live
        self._baseline = decay * self._per_group(signal.value)[:, at.entry >> 2]
        log_weight = None
        if log_ratio is not None:
            step = log_ratio.reshape(-1, 20)[:, at.entry].where(at.live, 0.0)
            upto = step.cumsum(-1)
            log_weight, reward, self._baseline = upto[..., -1], reward * upto.exp(), self._baseline * step.exp()
        self._reward, self._to_go = reward, _reverse_cumsum(reward)
        self._lanes = self._read(outcome, group, signal.discount, dtype)
        self.weight: Float[Tensor, "*batch trajectory"] | None = None
        """ρ of all rounds, if there is a behaviour policy."""
        weight = self._lanes.weigh(log_weight, self._to_go[..., 0])
        self._discount_sum = self._weight_sum = self._sum(*self._lanes.discounts())[0]
        if log_weight is not None:
            self._weight_sum = self._sum(*self._lanes.weights())[0]
            self.weight = weight.view(*batch, size)
            if not bool(self._weight_sum.isfinite().all()):
                raise ValueError(
                    "log_ratio: expected finite ratios to the behaviour policy, got infinity or NaN; "
                    "clip them, normalise them or leave out the oldest trajectories"
                )

    def first(self) -> Float[Tensor, "*batch 5 4"]:
        """Returns W."""
        after = self._sum(*self._lanes.after())
        coefficient = after[0] + self._weight_sum * self._to_go - self._discount_sum * self._baseline
        return self._entries(coefficient)

    def product(self, direction: Float[Tensor, "extra *batch 5 4"]) -> Float[Tensor, "extra *batch 5 4"]:
        """Returns U of every direction along the extra leading axis."""
        return torch.cat([self._of_two(direction[i : i + 2]) for i in range(0, len(direction), 2)])

    def _of_two(self, direction: Tensor) -> Tensor:
        """U of one or two directions."""
        at = self._layout
        along = torch.stack([self._per_group(d.flatten(-2))[:, at.entry] for d in direction]) * at.live
        score = along.cumsum(-1)
        to_go = _reverse_cumsum(self._reward * score)
        after, reach = (self._sum(*term) for term in self._lanes.along(score[..., -1], to_go[..., 0]))
        coefficient = (
            after + reach * self._to_go + self._weight_sum * to_go - self._discount_sum * self._baseline * along
        )
        return torch.stack([self._entries(c) for c in coefficient])

    def visits(self) -> Float[Tensor, "*batch 5 4"]:
        """Returns how often each (s, o) occurs in a trajectory, on average."""
        count = self._sum(*self._lanes.visits())
        return self._entries(count[0].expand_as(self._reward))

    def _read(self, outcome: Tensor, group: Tensor | None, discount: float, dtype: torch.dtype) -> "_Lanes":
        size, tables = self._size, len(self._reward) // self._groups
        place = self._groups * torch.arange(tables, device=outcome.device).unsqueeze(-1)
        if group is not None:
            place = place + group.expand(*self._batch, size).reshape(tables, size)
        place = (place * self._layout.codes).expand(tables, size).reshape(-1)
        return _Lanes(self._layout, outcome.movedim(-1, 0).reshape(outcome.shape[-1], -1), place, discount, dtype)

    def _sum(self, values: Tensor, code: Tensor) -> Tensor:
        """Values added up over the lanes for each code, `[1 or 2, table × group, code, 1]`."""
        codes = self._layout.codes
        total = values.new_zeros(len(self._reward) * codes)
        total.scatter_add_(0, code.view(-1), values.view(-1))
        return _numbers(total).movedim(-1, 0).reshape(-1, len(self._reward), codes, 1).to(self._reward)

    def _per_group(self, table: Tensor) -> Tensor:
        """[*batch, entries] → [table × group, entries]."""
        flat = table.expand(*self._batch, table.shape[-1]).reshape(-1, table.shape[-1])
        return flat if self._groups == 1 else flat.repeat_interleave(self._groups, 0)

    def _entries(self, coefficient: Tensor) -> Tensor:
        """Each round's coefficient to its own entry, [table × group, code, round] → [*batch, 5, 4]."""
        by_entry = coefficient.flatten(1) @ self._layout.one_hot.to(coefficient)
        return by_entry.view(*self._batch, self._groups, 5, 4).sum(-3) / self._size


class _Lanes:
    """The trajectories, a lane each; two real numbers read or added at the same places travel as one complex."""

    def __init__(self, at: Layout, outcome: Tensor, place: Tensor, discount: float, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._code = _encode(at, outcome).to(torch.int64).add_(place)
        self._code[0] += 4 ** (at.rounds + 1)  # those at the start come last
        self._weight = self._discount = _discounts(discount, at, outcome.shape[-1], dtype)
        self._alpha = self._discount

    def weigh(self, log_weight: Tensor | None, to_go: Tensor) -> Tensor:
        """Sets ρ from each block's own log ratio, and α; returns ρ of all rounds."""
        rho = self._discount[0]
        if log_weight is not None:
            upto = _cumsum_(self._look_up(log_weight)).exp_()
            rho = upto[-1].clone()
            self._weight = self._discount.clone()
            self._weight[1:].mul_(upto[:-1])
        self._alpha = self._look_up(to_go).mul_(self._weight)
        return rho

    def discounts(self) -> tuple[Tensor, Tensor]:
        """Returns g of each block."""
        return self._discount, self._code

    def weights(self) -> tuple[Tensor, Tensor]:
        """Returns gρ of each block."""
        return self._weight, self._code

    def after(self) -> tuple[Tensor, Tensor]:
        """Returns A of every block but the last, where it is 0."""
        return _reverse_cumsum_(self._alpha.clone())[1:], self._code[:-1]

    def along(self, score: Tensor, to_go: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Returns B, and gρD, of one or two directions, from y_0 and D of whole blocks; good until the next call."""
        upto = _cumsum_(self._look_up(*score, name="upto"))[:-1]  # of block b: D of block b + 1
        added = self._look_up(*to_go, name="added")
        weight, alpha = self._weight, self._alpha
        if len(score) == 2:
            weight, alpha = self._twice(weight, "weight"), self._twice(alpha, "alpha")
        _numbers(added).mul_(_numbers(weight))[1:].addcmul_(_numbers(upto), _numbers(alpha[1:]))
        _numbers(upto).mul_(_numbers(weight[1:]))
        return (_reverse_cumsum_(added)[1:], self._code[:-1]), (upto, self._code[1:])

    def visits(self) -> tuple[Tensor, Tensor]:
        """Returns a one for each block."""
        return torch.ones_like(self._discount), self._code

    def _twice(self, x: Tensor, name: str) -> Tensor:
        return torch.complex(x, x, out=_scratch(name, x.shape, x.dtype.to_complex(), x.device))

    def _look_up(self, *tables: Tensor, name: str | None = None) -> Tensor:
        """Each block's entry in one table, or in two as a complex number; with a name good until its next use."""
        flat = [table.to(self._dtype).reshape(-1) for table in tables]
        table = flat[0] if len(flat) == 1 else torch.complex(*flat)
        if table.device.type == "cpu":  # half of what index_select takes; a code is never out of range
            shape = self._code.shape
            entries = table.new_empty(shape) if name is None else _scratch(name, shape, table.dtype, table.device)
            np.take(table.numpy(), self._code.numpy(), mode="wrap", out=entries.numpy())
            return entries
        return table.index_select(0, self._code.view(-1)).view(self._code.shape)


def _encode(at: Layout, outcome: Tensor) -> Tensor:
    """The code of each block, `[block, lane]`; those of the first block count from 0."""
    small = torch.uint8 if at.rounds < 4 else torch.int16  # the smallest that holds 4^{m+1} − 1
    outcome = outcome.to(small)
    code = torch.zeros(at.blocks, outcome.shape[-1], dtype=small, device=outcome.device)
    for i in range(at.first):
        code[0].add_(outcome[i], alpha=4 ** (at.first - 1 - i))
    for i in range(at.rounds + 1):
        digit = outcome[at.first - 1 + i :: at.rounds][: at.blocks - 1]
        code[1:].add_(digit, alpha=4 ** (at.rounds - i))
    return code


_BUFFERS = threading.local()


def _scratch(name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of this thread that was written before: fresh megabytes cost more than what is computed in them."""
    kept: dict[object, Tensor] = _BUFFERS.__dict__.setdefault("kept", {})
    key = name, dtype, device
    if key not in kept or kept[key].numel() < shape.numel():
        kept[key] = torch.empty(shape.numel(), dtype=dtype, device=device)
    return kept[key][: shape.numel()].view(shape)


def _numbers(x: Tensor) -> Tensor:
    """A trailing axis of the one or two real numbers."""
    return torch.view_as_real(x) if x.is_complex() else x.unsqueeze(-1)


@lru_cache(maxsize=8)
def _discounts(discount: float, at: Layout, lanes: int, dtype: torch.dtype) -> Tensor:
    """g_b for every lane, the same for all samples of a size."""
    before = (at.rounds * torch.arange(at.blocks, device=at.entry.device) - (at.rounds - at.first)).clamp(min=0)
    return (discount ** before.to(dtype)).unsqueeze(-1).repeat(1, lanes)


def _reverse_cumsum(x: Tensor) -> Tensor:
    return x.flip(-1).cumsum(-1).flip(-1)


def _cumsum_(x: Tensor) -> Tensor:
    """y_b = Σ_{b'≤b} x_b' along the first axis, in place."""
    if x.device.type != "cpu":
        return x.cumsum_(0)
    _add_rows(x.numpy())
    return x


def _reverse_cumsum_(x: Tensor) -> Tensor:
    """y_b = Σ_{b'≥b} x_b' along the first axis, in place on a CPU."""
    if x.device.type != "cpu":
        return _reverse_cumsum(x.mT).mT
    _add_rows(x.numpy()[::-1])
    return x


def _add_rows(x: Shaped[np.ndarray, "row lane"]) -> None:
    """Row by row: ten times faster than a cumulative sum along the first axis."""
    for b in range(1, len(x)):
        np.add(x[b], x[b - 1], out=x[b])
