"""What `decompose` asks of a two-level problem."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from gm_estimators.estimator import Estimator

Role = Literal["inner", "hessian", "outer"]
"""What samples are for: I, the inner-loop gradient, II, its Jacobian and Hessian, or III, the outer gradient."""
ROLES: tuple[Role, ...] = ("inner", "hessian", "outer")
"""All three, in order."""
PERMUTATIONS = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")
"""Whether I, II and III are estimated from samples (S) or exact (E), where anything is; EEE is the truth."""
Rows = slice | Tensor
"""The numbers of some trajectories: the first n as `slice(n)`, or any as a tensor `[trajectory]`."""

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
    """The exact objective of an evaluated policy where φ = θ⁰, or where only θ enters."""

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
    """Trajectories of which a smaller sample is a part."""

    def select(self: SelfT, rows: Rows, /) -> SelfT:
        """Returns the trajectories of those numbers."""


SampleT = TypeVar("SampleT", bound=Sample)


@runtime_checkable
class Point(Protocol[SampleT]):
    """One θ of a problem: what is exact there and what is sampled; asked again, it need not be evaluated again."""

    def exact(self, role: Role, /) -> Objective:
        """Returns the exact objective of a role."""

    def draw(self, step: int, rows: Mapping[Role, Rows], /) -> Mapping[Role, SampleT]:
        """Draws trajectories of those numbers for each of some roles.

        With common random numbers the same (role, step, number) always gets the same ones. II has no draw of its own
        where it reads the trajectories of I.
        """

    def sampled(self, role: Role, estimator: Estimator, sample: SampleT, /) -> Objective:
        """Returns the objective of a role as the estimator sees it in a sample that was drawn here."""


@runtime_checkable
class Problem(Protocol[SampleT]):
    """A two-level problem (paper, Eq. 2): where it starts, and what there is at any θ."""

    @property
    def params(self) -> Tensor:
        """θ⁰, shape `[*batch, *shape]`."""

    @property
    def meta_is_params(self) -> bool:
        """Whether φ = θ⁰, as in MAML."""

    def at(self, params: Tensor, /) -> Point[SampleT]:
        """Returns what there is at θ."""


@runtime_checkable
class Splits(Protocol[SampleT]):
    """A problem that gives parts of its samples a batch axis of their own; others are asked part by part."""

    def parts(self, rows: Sequence[Mapping[Role, Tensor]], /) -> "Sequence[Problem[SampleT]] | None":
        """Returns a problem for each of several `{role: [part, trajectory]}`, with a new first batch axis.

        There part i reads the trajectories of its own numbers; at θ⁰ all of them read one draw. `None` if that is not
        to be had.
        """
