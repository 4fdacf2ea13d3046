"""Functions that are imported when they are first called."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Late:
    """A function by its place, such as "gm_experiments.maml.run:run_cell"; calling it imports it.

    What parses flags and prints help can so name what needs a numerical library without importing it.

    Args:
        place: The module and the function, with a colon between.
    """

    place: str

    def resolve(self) -> Any:
        """The function itself."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Imports the function and calls it."""
        return self.resolve()(*args, **kwargs)


def late(place: str) -> Any:
    """A function that is imported when it is first called; see `Late`."""
    return Late(place)
