"""What callers give, refused in a line where it is not of the right kind."""

import operator


def integer(name: str, value: object, least: int | None = None) -> int:
    """An integer as a plain one; raises `TypeError` for anything else, `ValueError` for one below `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if least is not None and found < least:
        raise ValueError(f"{name}: expected at least {least}, got {found}")
    return found
