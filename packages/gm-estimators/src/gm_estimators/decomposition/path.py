"""Inner-loop paths θ⁰ … θᴷ with what was evaluated and drawn along them, each of it once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from torch import Tensor

from gm_estimators.decomposition.problem import Objective, Problem, Role, SampleT
from gm_estimators.decomposition.sizes import Size, Sizes, sizes_of
from gm_estimators.estimator import Estimator


class Station(Generic[SampleT]):
    """Step i of a path keeps what was evaluated and drawn at its θ.

    `most` is the largest sample of each role that is drawn here; all are drawn together, when the first is needed.
    """

    def __init__(self, problem: Problem[SampleT], params: Tensor, step: int, most: Mapping[Role, int]) -> None:
        self.params = params
        self._point, self._step, self._most = problem.at(params), step, most
        self._exact: dict[Role, Objective] = {}
        self._drawn: Mapping[Role, SampleT] = {}
        self._samples: dict[tuple[Role, int], SampleT] = {}

    def exact(self, role: Role) -> Objective:
        """Returns the exact objective of a role."""
        if role not in self._exact:
            self._exact[role] = self._point.exact(role)
        return self._exact[role]

    def sampled(self, role: Role, estimator: Estimator, sizes: Sizes) -> Objective:
        """Returns the objective of a role as the estimator sees it in that role's sample."""
        return self._point.sampled(role, estimator, self._sample(role, sizes))

    def _sample(self, role: Role, sizes: Sizes) -> SampleT:
        source: Role = "inner" if role == "hessian" and sizes.shared else role
        key = source, sizes.of(source)
        if key not in self._samples:
            if not self._drawn:
                self._drawn = self._point.draw(self._step, {r: slice(size) for r, size in self._most.items()})
            self._samples[key] = self._drawn[source].select(slice(sizes.of(source)))
        return self._samples[key]


@dataclass
class Path(Generic[SampleT]):
    """A path of inner parameters and the objectives that were met on it.

    Attributes:
        stations: θ⁰ … θᴷ with what is known there.
        inner: what moved it from each of its points to the next, at θ⁰ … θ^{K−1}.
        hessian: II at θ⁰ … θ^{K−1} as each estimator sees it, by name.
        outer: III at θᴷ as the first of its estimators sees it; `None` where it is exact.
    """

    stations: list[Station[SampleT]]
    inner: list[Objective]
    hessian: dict[str, list[Objective]] = field(default_factory=dict)
    outer: Objective | None = None

    @property
    def params(self) -> list[Tensor]:
        """θ⁰ … θᴷ."""
        return [station.params for station in self.stations]


def walked(
    start: Station[SampleT],
    move: Callable[[Station[SampleT]], Objective],
    following: Callable[[Tensor, int], Station[SampleT]],
    *,
    inner_steps: int,
    inner_lr: float,
) -> Path[SampleT]:
    """Follows gradients of `move(station)`: θ^{i+1} = θ^i + α ∇θ J_In(φ, θ^i), i = 0 … K − 1."""
    path = Path([start], [])
    for step in range(inner_steps):
        objective = move(path.stations[-1])
        path.inner.append(objective)
        path.stations.append(following(path.stations[-1].params + inner_lr * objective.gradient, step + 1))
    return path


def sampled_path(
    problem: Problem[Any], estimator: Estimator, size: Size, *, inner_steps: int, inner_lr: float
) -> Path[Any]:
    """Returns the path of sampled gradients, the same that `decompose` has for permutations with I sampled."""
    sizes = sizes_of(size)

    def station(params: Tensor, step: int) -> Station[Any]:
        return Station(problem, params, step, {"inner": sizes.inner})

    def move(at: Station[Any]) -> Objective:
        return at.sampled("inner", estimator, sizes)

    return walked(station(problem.params, 0), move, station, inner_steps=inner_steps, inner_lr=inner_lr)
