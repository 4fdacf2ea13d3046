"""A meta-gradient loop as its user hands it over."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.decomposition.problem import Role
from gm_estimators.decomposition.sizes import Sizes
from gm_estimators.optimisers import Update
from gm_estimators.parameters import Params, as_dict, like, read_params
from gm_estimators.surrogates import Trajectories

Tensors = dict[str, Tensor]
Origin = tuple[int, int]
"""Of a batch: the step at whose parameters it was drawn, and which of that step's batches it is."""


@runtime_checkable
class Draw(Protocol):
    """It plays n trajectories of the policy θ; the same arguments always give the same ones."""

    def __call__(self, role: Role, step: int, params: Params, n: int, seed: int, /) -> Any:
        """It gives what `see` reads."""


@runtime_checkable
class See(Protocol):
    """It makes `Trajectories` of what was drawn, with log-probabilities that are differentiable in θ.

    With meta-parameters φ other than θ⁰ it is given these as a fourth argument.
    """

    def __call__(self, batch: Any, params: Params, gae_lambda: float | None, /, *meta_params: Params) -> Trajectories:
        """It gives log-probabilities `[n, time]`, or `[task, n, time]`, with rewards, values, and λ's advantages."""


@dataclass(frozen=True)
class Rates:
    """Gradient ascent with an α that is learnt: what makes it of φ, for all of θ or by name (Meta-SGD, Li et al. 2017).

    It stands where an update does, which would not know φ.
    """

    of: Callable[[Params], Tensor | dict[str, Tensor]]


@dataclass(frozen=True)
class Loop:
    """K inner steps and an outer objective, all from samples.

    Attributes:
        draw: plays trajectories.
        see: reads them.
        params: θ⁰, or what makes it of φ.
        sizes: trajectories of each role at each step, of each task.
        inner_steps: K.
        update: the inner optimiser, or learnt rates.
        state: its state at θ⁰.
        gae_lambda: λ of the loop's advantages; `None` if `see` has none to choose.
        tasks: how many there are in an axis of θ, where they share θ⁰; `None` without such an axis.
        lanes: how many independent repeats there are in the first axis of θ; `None` without such an axis.
        meta_params: φ; `None` for φ = θ⁰.
        ideals: what in a user's own source is ideal, by its name: fields of this loop to replace.
        adapted: whether the truth is that of adapting with this many trajectories, not with infinitely many.
        batch_of: where the inner batch of each step is from; `None` where each draws its own.
    """

    draw: Draw
    see: See
    params: Params | Callable[[Params], Params]
    sizes: Sizes
    inner_steps: int
    update: Update | Rates
    state: object = None
    gae_lambda: float | None = None
    tasks: int | None = None
    lanes: int | None = None
    meta_params: Params | None = None
    ideals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    adapted: bool = False
    batch_of: tuple[Origin, ...] | None = None

    @property
    def phi(self) -> Params:
        """φ, what the meta-gradient is of, in every lane."""
        given = self.params if self.meta_params is None else self.meta_params
        assert not callable(given)  # which `diagnose` refuses
        return given if self.lanes is None else _along(given, self.lanes, 0)

    def start(self, phi: Params) -> Params:
        """θ⁰ as a function of φ, in every lane for every task."""
        given = phi
        if callable(self.params):
            made = read_params(self._by_lane(self.params, phi))
            given = like(made, {name: x.view_as(x) for name, x in as_dict(made).items()})  # φ enters θ by θ⁰ alone
        elif self.meta_params is not None:
            given = self.params if self.lanes is None else _along(self.params, self.lanes, 0)
        return given if self.tasks is None else _along(given, self.tasks, 0 if self.lanes is None else 1)

    def origin(self, step: int, reused: bool) -> Origin:
        """Where a step's inner batch is from, as in practice or, if none is used again, the step itself."""
        return self.batch_of[step] if reused and self.batch_of is not None else (step, 0)

    @property
    def batches(self) -> int:
        """How many different batches there are in all inner steps."""
        return len({self.origin(step, True) for step in range(self.inner_steps)})

    @property
    def rule(self) -> dict[str, Any]:
        """The arguments of `inner_loop` that say how a step goes."""
        if isinstance(self.update, Rates):
            return {"inner_lr": self.rates}
        return {"update": self.update, "state": self.state}

    def rates(self, phi: Params) -> Tensors:
        """α by the names of θ, of shapes that broadcast to θ's, lanes first.

        Raises:
            ValueError: if it has other names, or a shape that does not broadcast.
        """
        assert isinstance(self.update, Rates)  # or there is one for all
        found, theta = self._by_lane(self.update.of, phi), as_dict(self.start(phi))
        named = found if isinstance(found, dict) else dict.fromkeys(theta, found)
        if set(named) != set(theta):
            raise ValueError(f"inner_lr: expected one for each of {', '.join(theta)}, got {', '.join(named) or 'none'}")
        return {name: self._beside(named[name], x, name) for name, x in theta.items()}

    def _beside(self, rate: Tensor, theta: Tensor, name: str) -> Tensor:
        """The rate with axes of length 1 behind the lanes, as many as θ has more."""
        lanes = 0 if self.lanes is None else 1
        rate = torch.as_tensor(rate)
        each, shape = tuple(rate.shape[lanes:]), tuple(theta.shape[lanes:])
        if len(each) > len(shape) or any(x not in (1, y) for x, y in zip(each[::-1], shape[::-1], strict=False)):
            raise ValueError(f"inner_lr: expected one that broadcasts to {name!r} of shape {shape}, got shape {each}")
        return rate.reshape(*rate.shape[:lanes], *[1] * (len(shape) - len(each)), *each)

    def _by_lane(self, function: Callable[[Params], Any], phi: Params) -> Any:
        """What a function of one φ makes of it in every lane."""
        return function(phi) if self.lanes is None else torch.vmap(function)(phi)

    def seen(self, batch: Any, params: Params, gae_lambda: float | None, phi: Params) -> Trajectories:
        """What `see` makes of a batch; raises `ValueError` if that is no `Trajectories`."""
        meta = () if self.meta_params is None else (phi,)
        found: Any = self.see(batch, params, gae_lambda, *meta)
        if not isinstance(found, Trajectories):
            raise ValueError(f"see: expected Trajectories, got a {type(found).__name__}")
        return found

    def require_fitting(self, seen: Trajectories, role: Role, step: int) -> None:
        """Raises `ValueError` unless log-probabilities have the loop's axes and every number is finite."""
        leading = tuple(count for count in (self.lanes, self.tasks) if count is not None)
        if tuple(seen.log_prob.shape[:-1]) != (expected := (*leading, self.sizes.of(role))):
            shape = f"({', '.join(map(str, expected))}, time)"
            raise ValueError(
                f"see: expected log_prob of shape {shape}, lanes and tasks first, if there are any, then trajectories, "
                f"got {tuple(seen.log_prob.shape)}"
            )
        for name in ("log_prob", "reward", "value", "advantage"):
            if not bool(getattr(seen, name).isfinite().all()):
                at = "the outer batch" if role == "outer" else f"inner step {step}"
                raise ValueError(f"see: expected finite numbers, got NaN or infinity in {name} of {at}")


def origins(batch_of: Sequence[int | Origin] | None, steps: int) -> tuple[Origin, ...] | None:
    """Where each step's batch is from; `None` if each draws its own.

    Raises:
        ValueError: if there is not one for each step, or one is from a later step.
        TypeError: if it is no sequence.
    """
    if batch_of is None:
        return None
    if not isinstance(batch_of, Sequence):
        raise TypeError(f"batch_of: expected a step for each inner step, such as [0, 0, 2], got {batch_of!r}")
    if len(batch_of) != steps:
        raise ValueError(f"batch_of: expected a step for each of {steps} inner steps, got {len(batch_of)}")
    found = []
    for step, each in enumerate(batch_of):
        pair = each if isinstance(each, tuple) else (each, 0)
        if len(pair) != 2 or any(type(x) is not int for x in pair) or not 0 <= pair[0] <= step or pair[1] < 0:
            expected = "0" if step == 0 else f"one from 0 to {step}"
            raise ValueError(
                f"batch_of: expected for step {step} {expected}, or (it, number of minibatch), got {each!r}"
            )
        found.append(pair)
    return None if found == [(step, 0) for step in range(steps)] else tuple(found)


def seed_of(*parts: object) -> int:
    """A seed below 2³¹, which every library takes, for whatever the parts name."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 33


def flat(tensors: Sequence[Tensor | None], form: Tensors, lanes: int | None) -> Float[Tensor, "lane size"]:
    """One vector for each lane, of tensors in the order of φ; zeros where there is none."""
    pairs = zip(tensors, form.values(), strict=True)
    given = [torch.zeros_like(like) if x is None else x.detach() for x, like in pairs]
    return torch.cat([x.reshape(lanes or 1, -1) for x in given], -1)


LONGEST = 2**16
"""Numbers of a vector that are kept of each repeat."""


def kept(vectors: Float[Tensor, "*repeat size"]) -> Float[Tensor, "*repeat kept"]:
    """Vectors in float64 on the CPU; those of many parameters as count sketches (Charikar et al. 2002).

    Each number is added to one of `LONGEST` places with a random sign. Inner products are right in the mean over such
    signs, and off by about √(2 / LONGEST) of the vectors' lengths, a half per cent.
    """
    vectors = vectors.cpu().double()
    if (size := vectors.shape[-1]) <= LONGEST:
        return vectors
    draw = torch.Generator().manual_seed(size)
    place = torch.randint(LONGEST, (size,), generator=draw)
    sign = 2 * torch.randint(2, (size,), generator=draw).double() - 1
    return torch.zeros(*vectors.shape[:-1], LONGEST, dtype=vectors.dtype).index_add_(-1, place, vectors * sign)


def _along(params: Params, count: int, axis: int) -> Params:
    """The same parameters again and again along a new axis."""
    named = as_dict(params)
    return like(
        params, {name: x.unsqueeze(axis).expand(*x.shape[:axis], count, *x.shape[axis:]) for name, x in named.items()}
    )
