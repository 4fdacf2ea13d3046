"""Updates of A2C and meta-gradients of MGRL, from batches of experience, and the settings that they depend on."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators import Estimator, EstimatorError, meta_gradient
from gm_estimators.optimisers import AdamState, Update, adam, global_norm, linear_decay
from gm_estimators.parameters import Params as AnyParams
from gm_estimators.parameters import as_dict, detached, gradient
from gm_mgrl_atari.actor_critic import ActorCritic, HasUnmoved
from gm_mgrl_atari.checks import EMULATOR_BYTES, STEP_BYTES, integer
from gm_mgrl_atari.network import Params
from gm_mgrl_atari.objectives import (
    Batch,
    Coefficients,
    Terms,
    coefficients,
    combined,
    fixed_coefficients,
    policy_estimator,
    terms,
)

PARTS = (
    "emulation", "policy inference", "inner losses and gradients", "outer loss and meta-gradient", "optimisers",
    "log and checkpoints",
)  # fmt: skip
ALGORITHMS: dict[str, str] = {"a2c": "ad", "mgrl": "ad", "mgrl-lvc": "lvc"}
"""Each with the estimator of its policy term; A2C's first derivatives are the same for all."""
FLOAT32 = torch.finfo(torch.float32)
LEAST = FLOAT32.tiny / 0.03
"""Adam multiplies ε by √(1 − 0.999ⁱ) ≥ 0.03: below this it is no float32 number any more, and a step is 0 / 0."""
OUTER = fixed_coefficients()
SCHEDULES = ("discard", "online")


@contextlib.contextmanager
def all_of_float32() -> Iterator[None]:
    """In the block, convolutions and matrix products compute with all digits of float32, whatever torch is set to.

    TF32, torch's default for convolutions on a GPU, keeps ten bits after the point, and Adam's first steps turn on the
    others: on an H100 the first meta-gradient of a window is off by 7 times its largest entry then, and by 0.05
    without it.

    Examples:
        >>> import torch
        >>> from gm_mgrl_atari import all_of_float32
        >>> with all_of_float32():
        ...     print(torch.backends.cudnn.allow_tf32)
        False
    """
    try:
        before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # set by names that torch 2.9 has and these two cannot tell
        with _ieee():
            yield
        return
    _set(False, "highest", *before)
    try:
        yield
    finally:
        _set(*before, False, "highest")


def _set(tf32: bool, precision: str, *now: object) -> None:
    """Sets what is not so now: what torch was never told, it may derive from another setting."""
    if now[0] != tf32:
        torch.backends.cudnn.allow_tf32 = tf32
    if now[1] != precision:
        torch.set_float32_matmul_precision(precision)


@contextlib.contextmanager
def _ieee() -> Iterator[None]:
    backends: Any = torch.backends
    places = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul]
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


class NotFiniteError(ArithmeticError):
    """NaN or infinity where training needs numbers; the message names the tensors."""


class Laps:
    """A stopwatch whose laps have names; the wall-clock seconds of one name add up.

    On a GPU, which computes while Python goes on, a lap has the time of the wait for a result, not of the computation.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._last = time.perf_counter()

    def start(self) -> None:
        """What has passed since the last lap counts for nothing."""
        self._last = time.perf_counter()

    def __call__(self, part: str) -> None:
        """What has passed since the last lap was this part."""
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now


@dataclass(frozen=True)
class Point:
    """Where training is: θ and the inner rule's state, an `AdamState` if that is Adam."""

    params: Params
    optimiser: object


@dataclass(frozen=True)
class Window:
    """∇φ J_Out(θᴷ), the points after 1 … K updates, the terms at θ⁰, and the K inner batches and the outer one."""

    meta_gradient: Float[Tensor, "4"]
    path: list[Point]
    terms: Terms
    batches: list[Batch]


@dataclass(frozen=True)
class Learner:
    """A2C with a rule that updates θ; the estimator is that of the policy term, `lap` is told what has been done.

    On a GPU it computes as torch is set; `all_of_float32` keeps the digits that torch's default rounds away.
    """

    network: ActorCritic
    estimator: Estimator
    rule: Update
    outer: Coefficients = OUTER
    lap: Laps = field(default_factory=Laps)

    def update(self, point: Point, batch: Batch, fixed: Coefficients) -> tuple[Point, Terms]:
        """One A2C update, θ′ = rule(θ, ∇θ J(θ))."""
        leaves = {name: value.detach().requires_grad_() for name, value in point.params.items()}
        parts = terms(self.network, leaves, batch, fixed, self.estimator)
        grads = gradient(combined(parts, fixed), leaves)
        self.lap("inner losses and gradients")
        with torch.no_grad():
            params, state = self.rule(point.params, grads, point.optimiser)
        require_finite(_named(parts), grads, params)
        self.lap("optimisers")
        return Point(params, state), Terms(*(part.detach() for part in parts))

    def window(
        self, point: Point, logits: Float[Tensor, "4"], batch_at: Callable[[Params, int], Batch], inner_steps: int
    ) -> Window:
        """∇φ J_Out(θᴷ), with θ¹ … θᴷ by K updates from θ⁰ (paper, Eq. 15, and Eq. 8 for K > 1).

            θ^{i+1} = rule(θ^i, ∇θ J(σ(φ), θ^i; b_i)),   J_Out = policy term of b_K at θᴷ

        `batch_at` makes b_i of θ^i and i, 0 … K; the last is the outer batch.
        """
        batches: list[Batch] = []
        seen: list[Terms] = []
        path: list[Point] = []
        # φ doesn't move θ⁰
        start = self.network.unmoved() if isinstance(self.network, HasUnmoved) else self.network

        def next_batch(params: Params) -> Batch:
            batches.append(batch_at(detached(params), len(batches)))
            return batches[-1]

        def inner(meta: AnyParams, params: AnyParams, step: int) -> Tensor:
            learnt, theta = coefficients(as_dict(meta)[""]), as_dict(params)
            network = start if step == 0 else self.network
            parts = terms(network, theta, next_batch(theta), learnt, self.estimator)
            seen.append(Terms(*(part.detach() for part in parts)))
            return combined(parts, learnt)

        def outer(_meta: AnyParams, params: AnyParams) -> Tensor:
            theta = as_dict(params)
            parts = terms(self.network, theta, next_batch(theta), self.outer, self.estimator)
            return combined(parts, self.outer)

        def recorded(params: Params, grads: Params, state: object) -> tuple[Params, object]:
            self.lap("inner losses and gradients")
            slopes = detached(grads)
            params, state = self.rule(params, grads, state)
            require_finite(_named(seen[-1]), slopes, detached(params))
            kept = state.detached() if isinstance(state, AdamState) else state
            path.append(Point(detached(params), kept))
            self.lap("optimisers")
            return params, state

        gradients = meta_gradient(
            logits, point.params, inner=inner, outer=outer, inner_steps=inner_steps, update=recorded,
            state=point.optimiser,
        )  # fmt: skip
        meta = as_dict(gradients)[""]
        require_finite({"meta-gradient": meta})
        self.lap("outer loss and meta-gradient")
        return Window(meta, path, seen[0], batches)


@dataclass(frozen=True)
class Training:
    """What a run's numbers depend on besides the seed (paper, Table 4)."""

    algorithm: str = "mgrl-lvc"
    """a2c keeps the four coefficients, mgrl learns them, mgrl-lvc with LVC in the policy term."""
    estimator: str | None = None
    """Of the policy term, instead of the algorithm's: ad, lvc, loaded_dice or your own as package.module:function."""
    schedule: Literal["discard", "online"] = "discard"
    """discard: of each window's K updates only the first is kept, as in the paper; online: all are kept, and the outer
    batch is the next window's first."""
    inner_steps: int = 3
    """K, updates that the meta-gradient looks through."""
    updates: int = 125_000
    """Kept updates."""
    envs: int = 64
    """Environments."""
    steps: int = 5
    """Steps of each environment per update."""
    inner_lr: float = 7e-4
    """Adam's learning rate, which decays linearly to 0."""
    meta_lr: float = 1e-3
    """Learning rate of the meta-parameters' Adam."""
    max_grad_norm: float = 0.5
    """Norm to which gradients of θ are clipped."""
    adam_eps: float = 1e-8
    """ε of Adam."""
    conditioned: bool = True
    """Whether the critic of the paper's network is told γ, in A2C as well."""

    def __post_init__(self) -> None:
        # NumPy's scalars as plain ones, which a checkpoint can hold
        for given in fields(self):
            if hasattr(value := getattr(self, given.name), "item"):
                object.__setattr__(self, given.name, value.item())

    def bytes_per_env(self) -> int:
        """The memory that an environment takes: its emulator and its part of all batches of an update."""
        batches = 1 if self.algorithm == "a2c" else self.inner_steps + 1
        return EMULATOR_BYTES + STEP_BYTES * self.steps * batches

    def check(self) -> None:
        """Refuses settings that make no sense, with a `ValueError`."""
        for name, known in (("algorithm", tuple(ALGORITHMS)), ("schedule", SCHEDULES), ("conditioned", (True, False))):
            if (got := getattr(self, name)) not in known or type(got) is not type(known[0]):
                raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, got {got!r}")
        for name in ("inner_steps", "updates", "envs", "steps"):
            integer(name, getattr(self, name))
        for name in ("inner_lr", "max_grad_norm", "adam_eps"):
            if not (_number(got := getattr(self, name)) and LEAST <= got <= FLOAT32.max):
                raise ValueError(f"{name}: expected a finite number above 0, also in float32, got {got}")
        if not (_number(self.meta_lr) and 0 <= self.meta_lr <= FLOAT32.max):
            raise ValueError(f"meta_lr: expected a finite number of at least 0, also in float32, got {self.meta_lr}")
        if self.estimator is not None:
            try:
                policy_estimator(self.estimator)
            except EstimatorError as error:
                raise ValueError(f"estimator: {error}") from error

    def learner(self, network: ActorCritic, lap: Laps | None = None) -> Learner:
        """The learner of these settings."""
        rate = linear_decay(self.inner_lr, self.updates)
        estimator = policy_estimator(self.estimator or ALGORITHMS[self.algorithm])
        rule = adam(rate, max_norm=self.max_grad_norm, eps=self.adam_eps)
        return Learner(network, estimator, rule, lap=lap or Laps())


def require_finite(values: dict[str, Tensor], gradients: Params | None = None, params: Params | None = None) -> None:
    """Stops at NaN or infinity, also in the gradients' norm; one transfer from the device where all is well."""
    norm = {"the gradient norm": global_norm(gradients)} if gradients else {}
    quick = (*values.values(), *norm.values(), *(params or {}).values())
    if math.isfinite(float(torch.stack([x.sum() for x in quick]).sum())):
        return
    slopes = {f"gradient of {name}": g for name, g in (gradients or {}).items()}
    named = {**values, **slopes, **(params or {})}
    # a sum may overflow where no entry does
    bad = [name for name, tensor in named.items() if not bool(tensor.isfinite().all())]
    if bad := bad or [name for name, tensor in norm.items() if not bool(tensor.isfinite())]:
        raise NotFiniteError(f"expected finite numbers, got NaN or infinity in {', '.join(bad)}")


def _named(parts: Terms) -> dict[str, Tensor]:
    return {f"{name} term": value.detach() for name, value in parts._asdict().items()}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
