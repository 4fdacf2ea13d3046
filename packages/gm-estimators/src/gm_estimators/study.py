"""A figure's grid of estimators, permutations, sample sizes, steps and learning rates, and its rows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import torch

from gm_estimators.catalogue import CATALOGUE, load
from gm_estimators.decomposition import (
    PERMUTATIONS,
    Problem,
    check_permutation,
    decompose,
    exact_meta_gradient,
)
from gm_estimators.metrics import summary


@dataclass(frozen=True)
class Grid:
    """Every combination of these is one measurement.

    Attributes:
        estimators: names, as `load` knows them.
        permutations: some of `PERMUTATIONS`.
        sample_sizes: |τ|, trajectories per estimate.
        inner_steps: K.
        inner_lrs: α.
    """

    estimators: tuple[str, ...] = tuple(CATALOGUE)
    permutations: tuple[str, ...] = PERMUTATIONS
    sample_sizes: tuple[int, ...] = (32,)
    inner_steps: tuple[int, ...] = (1,)
    inner_lrs: tuple[float, ...] = (10.0,)

    def override(self, **values: tuple[object, ...] | None) -> "Grid":
        """The grid with some of its values replaced; `None` leaves them.

        Raises:
            ValueError: for an unknown estimator or permutation, or values that are missing, repeated or not positive;
                the message begins with the name of the field.
        """
        grid = replace(self, **{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type]
        for field in fields(Grid):
            chosen = getattr(grid, field.name)
            if not chosen or len(set(chosen)) < len(chosen):
                raise ValueError(f"{field.name}: expected different values, at least one, got {list(chosen)}")
        for name in ("sample_sizes", "inner_steps", "inner_lrs"):
            for value in getattr(grid, name):
                if not (value > 0 and math.isfinite(value)):
                    kind = "number" if name == "inner_lrs" else "integer"
                    raise ValueError(f"{name}: expected a positive {kind}, got {value}")
        _named("permutations", check_permutation, grid.permutations)
        _named("estimators", load, grid.estimators)
        return grid

    def points(self) -> list[tuple[int, float]]:
        """All (K, α)."""
        return [(k, a) for k in self.inner_steps for a in self.inner_lrs]


def _named(field: str, check: object, values: Iterable[str]) -> None:
    for value in values:
        try:
            check(value)  # type: ignore[operator]
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from error


def measure(
    problem: Problem[Any], grids: Mapping[str, Grid], units: Sequence[int], *, inner_steps: int, inner_lr: float
) -> list[dict[str, str | int | float]]:
    """The measurements of several figures at one K and α, on shared samples.

    Args:
        problem: batch axes are the units (MDPs) and the repeats in each, at least 2, which share φ and θ⁰.
        grids: the figures' grids by name.
        units: the units' numbers.
        inner_steps: K.
        inner_lr: α.

    Returns:
        A row for each figure, estimator, permutation, sample size and unit: these, K, α, and `metrics.summary`.

    Raises:
        EstimatorError: if a user's estimator fails.
    """
    found = decompose(
        problem,
        [load(name) for name in sorted({name for grid in grids.values() for name in grid.estimators})],
        permutations=[p for p in PERMUTATIONS if any(p in grid.permutations for grid in grids.values())],
        sizes=sorted({size for grid in grids.values() for size in grid.sample_sizes}),
        inner_steps=inner_steps,
        inner_lr=inner_lr,
    )
    truth = exact_meta_gradient(problem, inner_steps=inner_steps, inner_lr=inner_lr)[:, 0].flatten(1)
    estimates = torch.stack([estimate.flatten(2) for estimate in found.values()])
    numbers = {name: values.tolist() for name, values in summary(estimates, truth.expand(len(found), -1, -1)).items()}
    position = {key: i for i, key in enumerate(found)}
    rows: list[dict[str, str | int | float]] = []
    for figure, grid in grids.items():
        for name, permutation, size in product(grid.estimators, grid.permutations, grid.sample_sizes):
            place = position[name, permutation, size]
            for i, unit in enumerate(units):
                row: dict[str, str | int | float] = {"figure": figure, "estimator": name, "permutation": permutation}
                row |= {"sample_size": size, "inner_steps": inner_steps, "inner_lr": inner_lr, "mdp": unit}
                rows.append(row | {metric: values[place][i] for metric, values in numbers.items()})
    return rows
