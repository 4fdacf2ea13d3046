"""What a run takes, estimated from its settings before anything is taken, beside what there is."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gm_lab.run.cells import shorten
from gm_lab.run.errors import BadInput
from gm_lab.run.settings import RunSettings, SettingsT, flag_of, worker_count

__all__ = ["Need", "available", "in_time", "require"]

CELL, ENTRY, WORKER = 1500.0, 60.0, 10e6
"""Bytes that a cell takes where all are listed, an entry of results.csv where all are sorted, and a worker."""
HOUR, DAY, YEAR = 3600.0, 86_400.0, 365 * 86_400.0
LONGEST = 10 * YEAR
"""A run that takes longer has no end."""
ANYWHERE = 2.0**44
"""Bytes that no machine of a cluster has, and no GPU."""


@dataclass(frozen=True)
class Need:
    """What a run takes, about, and rather less than it will: nothing that fits is refused for it.

    `memory` is what the largest cell takes while it is computed, in bytes; `seconds` are of one core, for all cells.
    """

    cells: float = 0.0
    rows: float = 0.0
    memory: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Need") -> "Need":
        """What one takes after the other in one run."""
        memory = max(self.memory, other.memory)
        return Need(self.cells + other.cells, self.rows + other.rows, memory, self.seconds + other.seconds)


NOTHING = Need()
ENDLESS = Need(*[float("inf")] * 4)


def require(
    need: Callable[[SettingsT], Need], settings: SettingsT, columns: int, say: Callable[[str], None]
) -> None:  # fmt: skip
    """Refuses a run that takes more than there is, with the flag that asks for most; says how long a long one takes."""
    there = available()
    elsewhere = settings.launcher == "ray" or settings.device.startswith("cuda")
    measures: tuple[tuple[Callable[[SettingsT], float], float, str], ...] = (
        (lambda given: _kept(_of(need, given), columns), there, "its cells and results take"),
        (lambda given: _of(need, given).memory, ANYWHERE if elsewhere else there, "a cell takes"),
    )
    for measure, limit, what in measures:
        if (taken := measure(settings)) > limit:
            raise BadInput(_blamed(measure, settings, _expected(what, taken, limit)))
    seconds = partial(_duration, need)
    if (taken := seconds(settings)) > LONGEST:
        expected = f"expected a run of at most {in_time(LONGEST)}; it takes about {in_time(taken)}"
        raise BadInput(_blamed(seconds, settings, expected))
    found = _of(need, settings)
    at_once = _at_once(settings, found)
    if settings.workers and WORKER * at_once > there:
        expected = _expected("its workers take", WORKER * at_once, there)
        raise BadInput(f"--workers: {expected}, got {_number(settings.workers)}")
    if not elsewhere and at_once > 1 and at_once * found.memory > there:
        together = f"{at_once:.0f} workers take about {_size(at_once * found.memory)} together"
        say(f"warning: {together}, {_size(there)} is available; fewer --workers take less")
    if taken > HOUR:
        cores = "one core" if settings.launcher == "ray" else f"{at_once:.0f} worker{'s' * (at_once > 1)}"
        say(f"all of this run takes about {in_time(taken)} with {cores}")


def _expected(what: str, taken: float, there: float) -> str:
    return f"expected a run that fits into memory; {what} about {_size(taken)}, {_size(there)} is available"


def available() -> float:
    """The memory that is free, in bytes: of the machine, or what the limits of our control groups leave of it."""
    return min([*_of_machine(), *_of_groups()], default=ANYWHERE)


def _of(need: Callable[[SettingsT], Need], settings: SettingsT) -> Need:
    try:
        return need(settings)
    except OverflowError:  # an integer that no float can hold
        return ENDLESS


def _kept(need: Need, columns: int) -> float:
    return CELL * need.cells + ENTRY * columns * need.rows


def _at_once(settings: RunSettings, need: Need) -> float:
    """How many cells are computed at once; of a cluster it isn't known."""
    workers = 1 if settings.launcher == "ray" else worker_count(settings)
    return max(1, min(workers, need.cells))


def _duration(need: Callable[[SettingsT], Need], settings: SettingsT) -> float:
    found = _of(need, settings)
    return found.seconds / _at_once(settings, found)


def _blamed(measure: Callable[[SettingsT], float], settings: SettingsT, expected: str) -> str:
    """The refusal, beginning with the number on the command line that lowers the measure most if it is not given."""
    without: dict[str, float] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, int | float) and not isinstance(first, bool) and value != field.default:
            default: dict[str, Any] = {field.name: field.default}
            without[field.name] = measure(dataclasses.replace(settings, **default))
    if not without:
        return expected
    name = min(without, key=without.__getitem__)
    value = getattr(settings, name)
    values = value if isinstance(value, tuple) else (value,)
    return f"{flag_of(name)}: {expected}, got {shorten(' '.join(map(_number, values)))}"


def _number(value: Any) -> str:
    """A number for people; Python refuses to write out integers of thousands of digits."""
    return "a number of thousands of digits" if isinstance(value, int) and value.bit_length() > 10_000 else str(value)


def _size(size: float) -> str:
    return f"{min(size, 1e300) / 1e9:.3g} GB"


def in_time(seconds: float) -> str:
    """A duration for people."""
    if seconds < HOUR:
        return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    unit, name = next(((u, n) for u, n in ((YEAR, "years"), (DAY, "days")) if seconds >= 2 * u), (HOUR, "hours"))
    return f"{min(seconds, 1e300) / unit:.2g} {name}"


def _of_machine() -> Iterator[float]:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024.0 * int(line.split()[1])
                return
    with suppress(OSError, ValueError, AttributeError):
        yield float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _of_groups(of_process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    """What each control group's limit leaves; pages of files that nobody reads are given up when memory is short."""
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    with suppress(OSError, ValueError):
        for line in of_process.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            names = v1 if controllers else ("memory.max", "memory.current", "inactive_file")
            top = root / "memory" if controllers else root
            group = top / path.strip("/")
            for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
                yield from _left(folder, *names)


def _left(folder: Path, limit: str, usage: str, inactive: str) -> Iterator[float]:
    with suppress(OSError, ValueError):  # "max" is no number
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield float(max(0, most - used + int(stat.get(inactive, 0))))
