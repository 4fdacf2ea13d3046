"""What numbers are asked for before anything is made of them."""

import operator
import os
from typing import Any


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


def require_memory(names: str, numbers: int) -> None:
    """Refuses sizes of which so many numbers of 8 bytes need more memory than the machine has, with both."""
    needed, there = 8 * numbers, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        gigabytes = f"the {there / 1e9:.1f} GB of memory that there are, got some that need {needed / 1e9:.1f} GB"
        raise ValueError(f"{names}: expected sizes that fit into {gigabytes}")
