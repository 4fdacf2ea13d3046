"""Parts of a sample as problems of their own, for estimators that combine several of them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gm_estimators.decomposition.problem import Objective, Point, Problem, Role, Rows
from gm_estimators.decomposition.sizes import Sizes


class Part:
    """A problem whose samples are those trajectories of the original's that have the numbers `rows`.

    `sizes` is how many the original has, `start` what it drew at θ⁰, for all its parts; it is filled here.
    """

    def __init__(
        self, problem: Problem[Any], rows: Mapping[Role, Tensor], sizes: Sizes, start: dict[Role, Any]
    ) -> None:
        self._problem, self._rows, self._sizes, self._start = problem, rows, sizes, start
        self.params, self.meta_is_params = problem.params, problem.meta_is_params

    def at(self, params: Tensor) -> "PartPoint":
        """Returns what there is at θ."""
        return PartPoint(self._problem.at(params), self._rows, self._sizes, self._start)


class PartPoint:
    """One θ of a `Part`."""

    def __init__(self, point: Point[Any], rows: Mapping[Role, Tensor], sizes: Sizes, start: dict[Role, Any]) -> None:
        self._point, self._rows, self._sizes, self._start = point, rows, sizes, start
        self.sampled = point.sampled

    def exact(self, role: Role) -> Objective:
        """Returns the original's exact objective."""
        return self._point.exact(role)

    def draw(self, step: int, rows: Mapping[Role, Rows]) -> Mapping[Role, Any]:
        """Draws the part; at θ⁰ all parts share one draw."""
        if step > 0:
            return self._point.draw(step, {role: self._rows[role] for role in rows})
        if not self._start:
            self._start.update(self._point.draw(0, {role: slice(self._sizes.of(role)) for role in rows}))
        return {role: self._start[role].select(self._rows[role]) for role in rows}
