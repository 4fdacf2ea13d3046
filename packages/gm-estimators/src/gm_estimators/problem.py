"""What `decomposition` asks of a two-level problem."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from gm_estimators.estimator import Estimator

Role = Literal["inner", "hessian", "outer"]

SelfT = TypeVar("SelfT")


@runtime_checkable
class Objective(Protocol):
    """J(φ, θ), exact or estimated, at one point.

    For an estimator with `correction`, outer objectives also have `value`, J itself, of the shape of the batch.
    """

    @property
    def gradient(self) -> Tensor:
        """∇θ J, of the shape of θ."""

    @property
    def meta_gradient(self) -> Tensor | None:
        """∇φ J, of the shape of φ; `None` if J does not depend on φ directly, or φ = θ."""

    def vjp(self, cotangent: Tensor, /) -> tuple[Tensor, Tensor | None]:
        """(∇²θ J λ, ∇φ∇θ J λ) for every λ along the cotangent's extra leading axis; the second `None` as above."""


@runtime_checkable
class Evaluation(Protocol):
    """What is known about one policy, as `gm_exact.evaluate` has it."""

    @property
    def value(self) -> Tensor:
        """J, of the shape of the batch."""

    @property
    def gradient(self) -> Tensor:
        """∇θ J."""

    def hessian_vector_product(self, vector: Tensor, /) -> Tensor:
        """∇²θ J v; v may have further axes in front of the batch axes."""


class ExactObjective:
    """The exact objective of an evaluated policy where φ = θ⁰, or where only θ enters.

    Args:
        evaluation: of the policy.
    """

    meta_gradient = None

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation

    @property
    def value(self) -> Tensor:
        """J."""
        return self._evaluation.value

    @cached_property
    def gradient(self) -> Tensor:
        """∇θ J."""
        return self._evaluation.gradient

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, None]:
        """(∇²θ J λ, None)."""
        return self._evaluation.hessian_vector_product(cotangent), None


@runtime_checkable
class Sample(Protocol):
    """Trajectories of which a smaller sample is a part.

    For an estimator with `debias` it also has `select(numbers)`, the sample of the trajectories of those numbers.
    """

    def first(self: SelfT, size: int, /) -> SelfT:
        """The first `size` trajectories."""


SampleT = TypeVar("SampleT", bound=Sample)
SampleT_co = TypeVar("SampleT_co", bound=Sample, covariant=True)


@runtime_checkable
class Problem(Protocol[SampleT]):
    """A two-level problem (paper, Eq. 2): exact objectives, a sampler, and objectives estimated from samples."""

    @property
    def params(self) -> Tensor:
        """θ⁰, shape `[*batch, *shape]`."""

    @property
    def meta_is_params(self) -> bool:
        """Whether φ = θ⁰, as in MAML."""

    def exact(self, role: Role, params: Tensor, /) -> Objective:
        """The exact objective of a role at θ."""

    def draw(self, role: Role, step: int, params: Tensor, size: int, /) -> SampleT:
        """`size` trajectories at θ; the same (role, step) always gets the same random numbers."""

    def sampled(self, role: Role, estimator: Estimator, sample: SampleT, params: Tensor, /) -> Objective:
        """The objective of a role at θ as the estimator sees it in a sample."""


@runtime_checkable
class Splits(Protocol[SampleT]):
    """A problem that gives parts of its samples a batch axis of their own; others are asked part by part."""

    def parts(self, numbers: Sequence[Tensor], /) -> "Sequence[Problem[SampleT]] | None":
        """A problem for each of several `[part, trajectory]`, with a new first batch axis.

        There role, step and θ of part i read `draw(…).select(numbers[i])`; at θ⁰ all of them read one draw. `None` if
        that is not to be had.
        """


@runtime_checkable
class DrawsParts(Protocol[SampleT_co]):
    """A problem that can draw some trajectories without the others; others draw all and select."""

    def draw_part(self, role: Role, step: int, params: Tensor, numbers: Tensor, /) -> SampleT_co:
        """`draw(…).select(numbers)`."""
