"""The problem: a finite Markov decision process, checked once when it is made."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Count = int | np.integer[Any]
"""An integer, Python's or NumPy's."""
FEWEST_DIGITS = 1e-3


@dataclass(frozen=True)
class TabularMDP:
    """A Markov decision process with finitely many states and actions; any number of leading batch axes.

    The batch axes of the three tensors broadcast against each other and against those of the policy's parameters.

    Args:
        transition: P(x|s, a), `[*batch, state, action, state]`; every row is a distribution over the next state.
        reward: r(s, a), `[*batch, state, action]`, the reward of taking action a in state s.
        start: distribution of the first state, `[*batch, state]`, or the index of a certain one.
        discount: γ in [0, 1]; 1 only with a finite horizon.

    Raises:
        ValueError: If shapes do not agree, a number is not finite, a row is no distribution, or γ is out of range.
    """

    # plain tensors, because the checks below say more than a type checker does
    transition: Tensor
    reward: Tensor
    start: Tensor | Count
    discount: float

    def __post_init__(self) -> None:
        _check_types(self)
        _check_shapes(self)
        if not isinstance(self.start, Tensor):
            object.__setattr__(self, "start", int(self.start))
        _check_numbers(self)

    @classmethod
    def unchecked(
        cls,
        transition: Float[Tensor, "*#batch state action state"],
        reward: Float[Tensor, "*#batch state action"],
        start: Float[Tensor, "*#batch state"] | Count,
        discount: float,
    ) -> "TabularMDP":
        """Build without looking at the numbers, for hot paths: no pass over the tensors, no GPU synchronisation."""
        mdp = object.__new__(cls)
        for name, field in (("transition", transition), ("reward", reward), ("start", start), ("discount", discount)):
            object.__setattr__(mdp, name, field)
        return mdp

    def with_reward(self, reward: Float[Tensor, "*#batch state action"]) -> "TabularMDP":
        """This MDP with another reward, unchecked; differentiable in it."""
        return self.unchecked(self.transition, reward, self.start, self.discount)

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return self.transition.shape[-1]

    @property
    def n_actions(self) -> int:
        """Number of actions A."""
        return self.transition.shape[-2]

    @property
    def start_distribution(self) -> Float[Tensor, "*batch state"]:
        """Distribution of the first state, also where `start` is an index."""
        if isinstance(self.start, Tensor):
            return self.start
        one_hot = self.transition.new_zeros(self.n_states)
        one_hot[self.start] = 1
        return one_hot

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the three tensors, broadcast."""
        shapes = self.transition.shape[:-3], self.reward.shape[:-2], self.start_distribution.shape[:-1]
        return broadcast(*shapes)


def broadcast(*shapes: torch.Size) -> torch.Size:
    """The shape that all the shapes broadcast to."""
    # torch.broadcast_shapes imports SymPy on its first call, which takes half a second
    return torch.Size(np.broadcast_shapes(*shapes))


def check_count(name: str, count: object, expected: str, least: int = 1, most: int | None = None) -> int:
    """Returns an integer from `least` to `most` as Python's, and refuses all else."""
    if not isinstance(count, int | np.integer) or isinstance(count, bool):
        raise ValueError(f"{name}: expected {expected}, got {count!r}")
    if int(count) < least or (most is not None and int(count) > most):
        raise ValueError(f"{name}: expected {expected}, got {count}")
    return int(count)


def check_horizon(horizon: Count | None) -> int | None:
    """Returns a number of steps as Python's integer; None is for ever."""
    return None if horizon is None else check_count("horizon", horizon, "a positive integer or None")


def warn_of_few_digits(dtype: torch.dtype, discount: float, horizon: int | None) -> None:
    """Says so where rounding that adds up over the effective horizon leaves fewer than three digits."""
    steps = math.inf if horizon is None else horizon
    effective = min(steps, math.inf if discount >= 1 else 1 / (1 - discount))
    if effective * torch.finfo(dtype).eps > FEWEST_DIGITS:
        warnings.warn(
            f"{str(dtype).removeprefix('torch.')} leaves fewer than three digits at an effective horizon of "
            f"{effective:.3g} steps (discount {discount:.9g}); convert the problem and its parameters to float64",
            stacklevel=4,
        )


def holds(condition: Tensor) -> bool:
    """Whether a fault is seen; none is under `torch.vmap`, which lets nothing depend on numbers."""
    try:
        return bool(condition)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return False


def shape_of(tensor: Tensor) -> str:
    """A tensor's shape as error messages print it."""
    return f"{tuple(tensor.shape)}"


def _check_types(mdp: TabularMDP) -> None:
    for name in ("transition", "reward"):
        if not isinstance(getattr(mdp, name), Tensor):
            raise TypeError(f"{name}: expected a tensor, got a {type(getattr(mdp, name)).__name__}")


def _check_shapes(mdp: TabularMDP) -> None:
    transition, reward, start = mdp.transition, mdp.reward, mdp.start
    if transition.ndim < 3 or transition.shape[-1] != transition.shape[-3]:
        raise ValueError(f"transition: expected shape [..., state, action, state], got {shape_of(transition)}")
    n_states, n_actions = mdp.n_states, mdp.n_actions
    if not (n_states and n_actions):
        raise ValueError(f"transition: expected at least one state and one action, got shape {shape_of(transition)}")
    if reward.shape[-2:] != (n_states, n_actions):
        raise ValueError(f"reward: expected shape [..., {n_states}, {n_actions}], got {shape_of(reward)}")
    if not isinstance(start, Tensor):
        check_count("start", start, f"a distribution or a state in 0..{n_states - 1}", 0, n_states - 1)
    elif start.shape[-1:] != (n_states,):
        raise ValueError(f"start: expected shape [..., {n_states}], got {shape_of(start)}")
    for name, tensor in _tensors(mdp):
        if not tensor.is_floating_point() or tensor.dtype != transition.dtype:
            raise ValueError(f"{name}: expected the transition's floating dtype, got {tensor.dtype}")
        if tensor.device != transition.device:
            raise ValueError(f"{name}: expected the transition's device {transition.device}, got {tensor.device}")
    try:
        _ = mdp.batch_shape
    except ValueError:
        shapes = ", ".join(f"{name} {shape_of(tensor)}" for name, tensor in _tensors(mdp))
        raise ValueError(f"batch axes: expected shapes that broadcast, got {shapes}") from None


def _check_numbers(mdp: TabularMDP) -> None:
    if not (math.isfinite(mdp.discount) and 0 <= mdp.discount <= 1):
        raise ValueError(f"discount: expected a number in [0, 1], got {mdp.discount}")
    for name, tensor in _tensors(mdp):
        if holds(~tensor.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, got {int((~tensor.isfinite()).sum())} that are not")
        if name == "reward":
            continue
        if holds((tensor < 0).any()):
            raise ValueError(f"{name}: expected probabilities of at least 0, got {tensor.min().item():.3g}")
        error = (tensor.sum(-1) - 1).abs().max()
        if holds(error > torch.finfo(tensor.dtype).eps ** 0.5):
            raise ValueError(f"{name}: expected rows that sum to 1, got one that is off by {error.item():.3g}")


def _tensors(mdp: TabularMDP) -> list[tuple[str, Tensor]]:
    fields = ("transition", mdp.transition), ("reward", mdp.reward), ("start", mdp.start)
    return [(name, field) for name, field in fields if isinstance(field, Tensor)]
