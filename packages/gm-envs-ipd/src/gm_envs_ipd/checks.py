"""What numbers are asked for before anything is made of them."""

import operator
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
