"""Functions that are imported when they are first called."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Late:
    """A function by its place, "module:name"; help and flags can so name what needs a numerical library unimported."""

    place: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Imports the function and calls it."""
        return resolved(self)(*args, **kwargs)


def late(place: str) -> Any:
    """Names a function that is imported when it is first called; see `Late`."""
    return Late(place)


def resolved(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, imported now if it is a late one."""
    if not isinstance(function, Late):
        return function
    module, _, name = function.place.partition(":")
    imported: Callable[..., Any] = getattr(import_module(module), name)
    return imported
