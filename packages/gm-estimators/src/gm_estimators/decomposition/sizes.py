"""How many trajectories each estimator of a meta-gradient has."""

from dataclasses import dataclass

from gm_estimators.checks import integer
from gm_estimators.decomposition.problem import Role


@dataclass(frozen=True)
class Sizes:
    """How many trajectories |τ| roles I, II and III have at each step; with `shared`, II reads the trajectories of I.

    Raises:
        TypeError: if a size is no integer.
        ValueError: if a size is below one, or I and II share a batch and differ in size.
    """

    inner: int
    hessian: int
    outer: int
    shared: bool = False

    def __post_init__(self) -> None:
        for name in ("inner", "hessian", "outer"):
            object.__setattr__(self, name, integer("sizes", getattr(self, name)))
        if min(self.inner, self.hessian, self.outer) < 1:
            raise ValueError(f"sizes: expected at least 1 trajectory, got {self.inner}, {self.hessian}, {self.outer}")
        if self.shared and self.inner != self.hessian:
            raise ValueError(f"sizes: expected one size for a shared batch, got {self.inner} and {self.hessian}")

    @classmethod
    def each(cls, size: int, *, shared: bool = False) -> "Sizes":
        """Gives all roles one size."""
        return cls(size, size, size, shared)

    def of(self, role: Role) -> int:
        """Returns the size of a role."""
        return {"inner": self.inner, "hessian": self.hessian, "outer": self.outer}[role]


Size = int | Sizes
"""A size for all roles, each with trajectories of its own, or `Sizes`."""


def sizes_of(size: Size) -> Sizes:
    """Returns the `Sizes` that a size stands for."""
    return size if isinstance(size, Sizes) else Sizes.each(size)
