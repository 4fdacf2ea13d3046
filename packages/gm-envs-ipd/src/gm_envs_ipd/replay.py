"""A ring of past trajectories with the behaviour policies' log-probabilities: plain tensors, ready to be saved."""

from typing import NamedTuple, SupportsIndex

import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor
from torch.nn.functional import logsigmoid

from gm_envs_ipd.checks import integer
from gm_envs_ipd.views import actions, other_view, states


def log_policy(params: Float[Tensor, "*batch 5"]) -> Float[Tensor, "*batch 5 action=2"]:
    """The table of log π(a | s): log σ(θ) for action 0, log σ(−θ) for action 1.

    Examples:
        >>> import torch
        >>> from gm_envs_ipd import log_policy
        >>> log_policy(torch.zeros(5)).exp()[0].tolist()
        [0.5, 0.5]
    """
    return torch.stack((logsigmoid(params), logsigmoid(-params)), -1)


def log_probs(
    table: Float[Tensor, "*#batch 2 5 action=2"], outcome: Integer[Tensor, "*#batch time"]
) -> Float[Tensor, "*#batch 2 time"]:
    """The log πⁱ(aⁱ_t | sⁱ_t) of each player, with the table of log π as from `log_policy`.

    Examples:
        >>> import torch
        >>> from gm_envs_ipd import log_policy, log_probs
        >>> log_probs(log_policy(torch.zeros(2, 5)), torch.tensor([0, 3])).exp().tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    cell = 2 * states(outcome) + actions(outcome)
    flat = table.flatten(-2)
    return torch.take_along_dim(flat[(None,) * (cell.ndim - flat.ndim)], cell, -1)


class Replayed(NamedTuple):
    """What a ring gives back: joint outcomes, log μ of both players, and ages in additions, 0 for the newest."""

    outcome: UInt8[Tensor, "*batch trajectory time"]
    behaviour: Float[Tensor, "*batch trajectory 2 5 action=2"]
    age: Int[Tensor, "trajectory"]

    def joint_table(self) -> Float[Tensor, "*batch trajectory 5 4"]:
        """The log μ¹(a¹ | s) + log μ²(a² | s) of joint outcomes in player 1's states."""
        second = other_view(self.behaviour[..., 1, :, :].mT).mT
        return (self.behaviour[..., 0, :, :, None] + second[..., :, None, :]).flatten(-2)

    def behaviour_log_prob(self) -> Float[Tensor, "*batch trajectory time"]:
        """Joint log μ¹(a¹_t | s¹_t) + log μ²(a²_t | s²_t) of what was played."""
        return log_probs(self.behaviour, self.outcome).sum(-2)


class ReplayRing:
    """The last `capacity` trajectories of every batch element, the oldest overwritten first (paper, Section 5.2).

    Log-probabilities are kept as each trajectory's table log μ(a | s): 20 numbers, from which those of all its
    steps follow, however long it is.

    Every element of the batch axes has a ring of its own.
    """

    def __init__(
        self,
        capacity: SupportsIndex,
        batch: tuple[int, ...],
        horizon: SupportsIndex,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        capacity, horizon = integer("capacity", capacity), integer("horizon", horizon)
        # time and trajectory first, as rollouts are stored, so that adding copies whole rows
        self._outcome = torch.zeros(horizon, *batch, capacity, dtype=torch.uint8, device=device)
        self._behaviour = torch.zeros(*batch, capacity, 2, 5, 2, dtype=dtype, device=device)
        self._born = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._additions = 0
        self._position = 0
        self._filled = 0

    @property
    def capacity(self) -> int:
        """How many trajectories there is room for."""
        return len(self._born)

    def __len__(self) -> int:
        return self._filled

    def add(self, outcome: UInt8[Tensor, "*batch trajectory time"], params: Float[Tensor, "*batch 2 5"]) -> None:
        """Puts in at most `capacity` trajectories' outcomes, all drawn by the policies of the same θ¹ and θ²."""
        *batch, size, horizon = outcome.shape
        expected = (*self._outcome.shape[1:-1], self._outcome.shape[0])
        if (*batch, horizon) != expected or size > self.capacity:
            raise ValueError(
                f"outcome: expected batch and horizon {expected} and at most {self.capacity} trajectories, "
                f"got {(*batch, horizon)} and {size}"
            )
        if params.shape != (*batch, 2, 5):
            raise ValueError(f"params: expected shape {(*batch, 2, 5)}, got {tuple(params.shape)}")
        if bool(params.isnan().any()):
            raise ValueError("params: expected log-odds, got NaN")
        table = log_policy(params.detach()).to(self._behaviour).unsqueeze(-4)
        rows = outcome.movedim(-1, 0)
        if size and (most := int(rows.max())) > 3:
            raise ValueError(f"outcome: expected joint outcomes 0 to 3, got {most}")
        done = 0
        while done < size:  # once, or twice where it wraps around
            first = (self._position + done) % self.capacity
            some = slice(first, min(self.capacity, first + size - done))
            count = some.stop - some.start
            self._outcome[..., some] = rows[..., done : done + count]
            self._behaviour[..., some, :, :, :] = table
            self._born[some] = self._additions
            done += count
        self._additions += 1
        self._position = (self._position + size) % self.capacity
        self._filled = min(self.capacity, self._filled + size)

    def replay(self, max_age: SupportsIndex | None = None) -> Replayed:
        """The trajectories of an age up to `max_age`, in the order of their places: views, if none is left out."""
        if not self._filled:
            raise ValueError("expected a ring that is not empty, got an empty one")
        most = None if max_age is None else integer("max_age", max_age, 0)
        age = self._additions - 1 - self._born[: self._filled]
        outcome, behaviour = self._outcome[..., : self._filled], self._behaviour[..., : self._filled, :, :, :]
        if most is not None and bool((age > most).any()):
            kept = (age <= most).nonzero().squeeze(-1)
            outcome, behaviour, age = outcome[..., kept], behaviour[..., kept, :, :, :], age[kept]
        return Replayed(outcome.movedim(0, -1), behaviour, age)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Everything that `load_state_dict` needs to go on as if nothing had happened."""
        tensors = {name: getattr(self, f"_{name}").clone() for name in ("outcome", "behaviour", "born")}
        return {**tensors, "additions": self._additions, "position": self._position, "filled": self._filled}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Takes over the state of a ring of the same size, all of it or, if it can be no ring's, nothing."""
        if missing := self.state_dict().keys() - state.keys():
            raise ValueError(f"state: expected {', '.join(sorted(missing))}, got none")
        for name in ("outcome", "behaviour", "born"):
            mine, saved = getattr(self, f"_{name}"), state[name]
            if not isinstance(saved, Tensor) or (saved.shape, saved.dtype) != (mine.shape, mine.dtype):
                got = f"{saved.dtype} of {tuple(saved.shape)}" if isinstance(saved, Tensor) else type(saved).__name__
                raise ValueError(f"{name}: expected {mine.dtype} of shape {tuple(mine.shape)}, got {got}")
        additions = integer("additions", state["additions"], 0)
        position = integer("position", state["position"], 0, self.capacity - 1)
        filled = integer("filled", state["filled"], 0, self.capacity)
        for name, expected, least, most in (
            ("outcome", "joint outcomes 0 to 3", 0, 3),
            ("behaviour", "log-probabilities", -torch.inf, 0),
            ("born", f"numbers of one of {additions} additions", 0, max(additions - 1, 0)),
        ):
            saved = torch.as_tensor(state[name])
            if not bool(((saved >= least) & (saved <= most)).all()):  # NaN is neither
                raise ValueError(f"{name}: expected {expected}, got others")
        for name in ("outcome", "behaviour", "born"):
            getattr(self, f"_{name}").copy_(torch.as_tensor(state[name]).detach())
        self._additions, self._position, self._filled = additions, position, filled
