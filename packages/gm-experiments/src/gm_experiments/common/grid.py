"""A figure's grid of estimators, permutations, sample sizes, steps and learning rates."""

import math
from dataclasses import dataclass, fields, replace

import gm_lab

# what gm_estimators names so, written out because settings import no torch; a test compares the two
ESTIMATORS = ("ad", "dice", "loaded_dice", "lvc")
PERMUTATIONS = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")


@dataclass(frozen=True)
class Grid:
    """Every combination of these is one measurement.

    Attributes:
        estimators: names, as `gm_estimators.load` knows them.
        permutations: some of `PERMUTATIONS`.
        sample_sizes: |τ|, trajectories per estimate.
        inner_steps: K.
        inner_lrs: α.
    """

    estimators: tuple[str, ...] = ESTIMATORS
    permutations: tuple[str, ...] = PERMUTATIONS
    sample_sizes: tuple[int, ...] = (32,)
    inner_steps: tuple[int, ...] = (1,)
    inner_lrs: tuple[float, ...] = (10.0,)

    def override(self, **values: tuple[object, ...] | None) -> "Grid":
        """The grid with some of its values replaced; `None` leaves them.

        Raises:
            BadInput: if an estimator or a permutation is unknown, or a value is missing, repeated or not positive.
        """
        grid = replace(self, **{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type]
        for field in fields(Grid):
            chosen = getattr(grid, field.name)
            if not chosen or len(set(chosen)) < len(chosen):
                raise _refused(field.name, f"expected different values, at least one, got {list(chosen)}")
        for name in ("sample_sizes", "inner_steps", "inner_lrs"):
            for value in getattr(grid, name):
                if not (value > 0 and math.isfinite(value)):
                    kind = "number" if name == "inner_lrs" else "integer"
                    raise _refused(name, f"expected a positive {kind}, got {value}")
        for permutation in grid.permutations:
            if permutation not in PERMUTATIONS:
                expected = f"a permutation of {', '.join(PERMUTATIONS)}"
                raise _refused("permutations", f"expected {expected}, got {permutation!r}")
        _require_known(grid.estimators)
        return grid

    def points(self) -> list[tuple[int, float]]:
        """All (K, α)."""
        return [(k, a) for k in self.inner_steps for a in self.inner_lrs]


def _require_known(names: tuple[str, ...]) -> None:
    import gm_estimators

    for name in names:
        try:
            gm_estimators.load(name)
        except ValueError as error:
            raise _refused("estimators", str(error)) from error


def _refused(field: str, why: str) -> gm_lab.BadInput:
    return gm_lab.BadInput(f"--{field.replace('_', '-')}: {why}")
