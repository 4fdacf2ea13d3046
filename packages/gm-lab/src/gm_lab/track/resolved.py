"""Settings as they are in effect, for the table of runs in W&B: no flag that was left to a default is empty there."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gm_lab.run.settings import RunSettings, plain, worker_count


def resolved_settings(settings: RunSettings, cells: Sequence[Any]) -> dict[str, Any]:
    """The settings with what a default stands for: the machine's own, or the values that the cells have.

    `cells` has every value of every field of the cells, such as the grid of each figure. A setting that has no value
    in this run, such as the Ray cluster of a run on one machine, is left out.
    """
    grid = values_of(cells)
    known = plain(settings) | {"device": "cpu" if settings.device == "auto" else settings.device}
    if settings.launcher != "ray":
        known["workers"] = worker_count(settings)
    for name, value in known.items():
        if value is None:
            known[name] = sorted(set(_leaves(grid, name)), key=lambda item: (str(type(item)), item)) or None
    return {name: value for name, value in known.items() if value is not None} | {"cells": grid}


def values_of(items: Sequence[Any]) -> dict[str, Any]:
    """Every value of every field of some dataclasses in its order; dataclasses in a field are looked into.

    Pairs of a name and a dataclass become fields of that name.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(items[0]):
        found[field.name] = _values([getattr(item, field.name) for item in items if hasattr(item, field.name)])
    return found


def _values(values: Sequence[Any]) -> Any:
    several = (value if isinstance(value, tuple) else (value,) for value in _distinct(values))
    single = _distinct(item for some in several for item in some)
    if single and all(map(_is_settings, single)):
        return values_of(single)
    if single and all(isinstance(item, tuple) and len(item) == 2 and _is_settings(item[1]) for item in single):
        names = _distinct(name for name, _ in single)
        return {str(name): values_of([item for of, item in single if of == name]) for name in names}
    return plain(single)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order, also where a cell of a user's own holds lists."""
    some = list(values)
    try:
        return list(dict.fromkeys(some))
    except TypeError:
        return list({repr(value): value for value in some}.values())


def _is_settings(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _leaves(grid: dict[str, Any], name: str) -> Iterator[Any]:
    for key, value in grid.items():
        if isinstance(value, dict):
            yield from _leaves(value, name)
        elif key == name:
            yield from (item for item in value if isinstance(item, bool | int | float | str))
