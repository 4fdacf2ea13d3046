"""What the experiments refuse, each in one line as `BadInput`, and how their workers are set up."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gm_lab

if TYPE_CHECKING:
    from torch import Tensor

MOST_UPDATES = 100_000
"""Of a training run along which something is measured."""
ROUNDING = 1e-12
"""Shorter meta-gradients are zero: rewards are of order one."""


def prepare(settings: gm_lab.RunSettings) -> gm_lab.Context:
    """One thread for each worker, since the workers fill the cores, and the device that was asked for."""
    import torch

    torch.set_num_threads(1)
    device = "cpu" if settings.device == "auto" else settings.device
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        given = f"got {settings.device!r}"
        raise gm_lab.BadInput(f"--device: expected cpu, or cuda where there is a GPU, {given}") from error
    return gm_lab.Context(settings.run_dir, device)


@contextlib.contextmanager
def estimators_are_input() -> Iterator[None]:
    """Turns the fault of a user's estimator into `BadInput`."""
    from gm_estimators import EstimatorError

    try:
        yield
    except EstimatorError as error:
        raise gm_lab.BadInput(str(error)) from error


def require_distinct(name: str, values: Sequence[object]) -> None:
    """Refuses a flag that has a value twice."""
    if len(set(values)) < len(values):
        raise gm_lab.BadInput(f"--{name.replace('_', '-')}: expected different values, got {list(values)}")


def require_points(settings: Any) -> None:
    """Refuses `--points`, the updates after which to measure, that are negative or out of reach."""
    gm_lab.require(settings, "points", "integers of at least 0", min(settings.points) >= 0)
    gm_lab.require(settings, "points", f"at most {MOST_UPDATES} updates", max(settings.points) <= MOST_UPDATES)


def require_truth(truth: "Tensor", unit: str, numbers: Sequence[int], updates: int) -> None:
    """Refuses exact meta-gradients `[unit, *, size]` of which one is not finite, or zero up to rounding."""
    lengths = truth.norm(dim=-1).reshape(len(numbers), -1)
    for number, of_unit in zip(numbers, lengths.tolist(), strict=True):
        for length in of_unit:
            if not ROUNDING < length < math.inf:
                raise gm_lab.BadInput(
                    f"{unit} {number} after {updates} updates: expected an exact meta-gradient that is finite and not "
                    f"zero, got one of length {length:.3g}; there is nothing to measure errors by"
                )


def require_finite(rows: Sequence[gm_lab.Row], columns: Sequence[str]) -> None:
    """Refuses measurements that are infinite or NaN in those columns."""
    for row in rows:
        for column in columns:
            if not math.isfinite(float(row[column])):
                where = ", ".join(f"{name} {row[name]}" for name in ("estimator", "inner_lr", "updates"))
                raise gm_lab.BadInput(f"expected finite measurements, got {column} {row[column]} at {where}")
