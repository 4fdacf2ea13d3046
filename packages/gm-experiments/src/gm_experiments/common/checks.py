"""What the experiments refuse, each in one line as `BadInput`, and how their workers are set up."""

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gm_lab

if TYPE_CHECKING:
    from torch import Tensor

MOST_UPDATES = 100_000
"""Of a training run along which something is measured."""
ROUNDING = 1e-12
"""Shorter meta-gradients are zero: rewards are of order one."""
PLACE = (
    "figure", "game", "algorithm", "curve", "rule", "kind", "estimator", "permutation", "sample_size", "inner_steps",
    "inner_lr", "lr", "update", "updates", "seed", "mdp", "task",
)  # fmt: skip
"""Columns that say where something was measured."""


def prepare(settings: gm_lab.RunSettings) -> gm_lab.Context:
    """One thread for each worker, since the workers fill the cores, and the device that was asked for."""
    import torch

    torch.set_num_threads(1)
    return gm_lab.Context(settings.run_dir, device_of(settings))


def device_of(settings: gm_lab.RunSettings) -> str:
    """The CPU, or a GPU that is there and works; raises `BadInput` for any other."""
    import torch

    require_device(settings)
    device = "cpu" if settings.device == "auto" else settings.device
    _, _, index = device.partition(":")
    there = torch.cuda.device_count() if device.startswith("cuda") and torch.cuda.is_available() else 0
    require_device(settings, device == "cpu" or int(index or 0) < there)
    if device != "cpu":
        # what is listed may be out of order or taken; the one worker is this process, or a task of Ray
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise gm_lab.BadInput(f"--device: expected a GPU that works as {device}, got: {reason}") from error
    return device


def require_device(settings: gm_lab.RunSettings, there: bool = True) -> None:
    """Refuses a device that isn't `there`, and names of such as no experiment computes on; it imports nothing."""
    if not there or re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", settings.device) is None:
        known = ["auto", "cpu", *["cuda"] * there]
        asked = gm_lab.got(settings.device, () if settings.device.startswith("cuda") else known)
        raise gm_lab.BadInput(f"--device: expected cpu, or cuda where there is a GPU, {asked}")


def require_cpu(settings: gm_lab.RunSettings) -> None:
    """Refuses any other device, in experiments that compute on the CPU alone."""
    cpu = settings.device in ("auto", "cpu")
    gm_lab.require(settings, "device", "auto or cpu, since this app computes on the CPU", cpu)


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


def require_finite(
    rows: Sequence[gm_lab.Row], columns: Sequence[str], *flags: str, unbounded: Sequence[str] = ()
) -> None:
    """Refuses rows that are infinite or NaN in those columns, or infinite in others that aren't `unbounded`.

    The flags are those that keep numbers finite if they are smaller.
    """
    for row in rows:
        for column, value in row.items():
            if not isinstance(value, float) or math.isfinite(value):
                continue
            if column in columns or (math.isinf(value) and column not in unbounded):
                got = f"{column} {value} at {_place(row)}"
                raise gm_lab.BadInput(f"expected finite measurements, got {got}{_advice(flags)}")


def require_policy(policy: "Tensor", place: str, *flags: str) -> None:
    """Refuses a policy that is not a number any more, before anything is drawn by it."""
    if not bool(policy.isfinite().all()):
        raise gm_lab.BadInput(f"expected finite policies, got infinity or NaN at {place}{_advice(flags)}")


def _place(row: gm_lab.Row) -> str:
    named = {name: row[name] for name in PLACE if name in row}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value == value and value != "")


def _advice(flags: Sequence[str]) -> str:
    return f"; smaller {' or '.join(flags)} keep numbers finite" if flags else ""
