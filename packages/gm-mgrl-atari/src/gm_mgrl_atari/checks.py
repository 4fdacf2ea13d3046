"""What is asked of settings before anything is taken: whole numbers, and the memory that they need."""

import operator
import os
from pathlib import Path
from typing import Any

EMULATOR_BYTES = 2_000_000
"""Of an environment: between 1.3 and 2.4 MB were measured."""
STEP_BYTES = 350_000
"""Of a step of an environment in a batch, with what is kept for derivatives: between 0.3 and 0.35 MB were measured."""


def integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number in a range as an `int`; Python's and NumPy's integers are taken, truths and fractions refused."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        numbers = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected an integer {numbers}, got {value!r}")
    return number


def require_memory(envs: int, each: int) -> None:
    """Refuses environments that need more memory than the machine has, with both numbers."""
    needed, there = envs * each, memory()
    if needed > there:
        raise ValueError(
            f"envs: expected at most {there // each} environments, which fit into the {there / 1e9:.1f} GB of memory "
            f"that there are, got {envs}, which need {needed / 1e9:.1f} GB"
        )


def memory() -> int:
    """Bytes of memory that this machine has, or that its control group may take."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            there = min(there, int(limit.read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return there
