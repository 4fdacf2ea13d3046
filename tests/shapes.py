"""What `jaxtyping.install_import_hook` checks shapes with in all tests: `shapes.checked`."""

from collections.abc import Callable
from typing import TypeVar

from beartype import beartype

F = TypeVar("F", bound=Callable[..., object])


def checked(function: F) -> F:
    """Beartype, but not for what is made anew at each call: a function inside another one that names no shape.

    Mypy has read its types, and making its check takes longer than most of them run.
    """
    inside = "<locals>" in function.__qualname__
    return function if inside and "jaxtyping" not in str(function.__annotations__) else beartype(function)
