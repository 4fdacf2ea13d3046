"""Progress with the time left, also within a cell: a live bar on a terminal, a line now and then elsewhere."""

import contextlib
import mmap
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from gm_lab.run.output import say
from gm_lab.run.resources import HOUR, YEAR, in_time

SECONDS_BETWEEN_LINES = 10.0
LONGEST_BETWEEN, RARER = 300.0, 60.0
"""Seconds between lines at most, and which part of the time so far they are between the two."""
TICK_SECONDS = 0.5
InWork = Callable[[], float]
"""How much of the cells that are in work is done, together: half a cell and a whole one are 1.5."""
_chosen: ContextVar["Display | None"] = ContextVar("display", default=None)


def nobody_listens(_part: float, _before: float) -> None:
    """Is told how far a cell is where nobody watches."""


_told: ContextVar[Callable[[float, float], None]] = ContextVar("told", default=nobody_listens)


def progressed(done: float, total: float, before: float = 0.0) -> None:
    """Tells how far the computation of this cell is, for those who watch; it has no bearing on anything else.

    What was done `before` this session, of a cell that goes on from its checkpoint, says nothing about the time left.
    """
    parts = [min(max(part / total, 0.0), 1.0) if total > 0 else 0.0 for part in (done, before)]
    _told.get()(*parts)


def alike(_cell: Any) -> float:
    """One cell is as much work as another."""
    return 1.0


class Parts:
    """How far each worker is with its cell: those that are forked write it to memory that they share with the driver.

    A cell counts as much as `weigh` says. Workers that are spawned, where there is no safe fork, tell it to nobody.
    """

    def __init__(self, workers: int, weigh: Callable[[Any], float] = alike) -> None:
        self._workers, self._weigh = workers, weigh
        shared = memoryview(mmap.mmap(-1, 3 * 8 * workers)).cast("d")
        self._parts, self._before, self._before_finished = (shared[i * workers : (i + 1) * workers] for i in range(3))

    def __reduce__(self) -> tuple[type["Parts"], tuple[int, Callable[[Any], float]]]:
        return Parts, (self._workers, self._weigh)

    def in_work(self) -> float:
        """The sum over the workers."""
        return float(sum(self._parts))

    def before(self) -> float:
        """How much of the cells in work, and of those finished since, an earlier session had done."""
        return float(sum(self._before) + sum(self._before_finished))

    @contextlib.contextmanager
    def told_by(self, worker: int, cell: Any = None) -> Iterator[None]:
        """Listens to what the block tells of its cell, in the name of a worker."""
        weight = self._weigh(cell)

        def tell(part: float, before: float) -> None:
            self._parts[worker], self._before[worker] = weight * part, weight * before

        token = _told.set(tell)
        try:
            yield
            self._before_finished[worker] += self._before[worker]
        finally:
            _told.reset(token)
            self.clear(worker)

    def clear(self, worker: int) -> None:
        """Forgets the cell of a worker, which is finished or lost."""
        self._parts[worker] = self._before[worker] = 0.0


def nothing() -> float:
    """Where no cell is in work."""
    return 0.0


class Headway:
    """What is done of a run, and how long the rest will take at the rate of this session.

    Attributes:
        finished: cells that are, some of them before now.
        total: all cells.
    """

    def __init__(
        self, finished: int, total: int, in_work: InWork = nothing, before: InWork = nothing,
        weight: float | None = None,
    ) -> None:  # fmt: skip
        """Begins with finished cells that weigh so much together; the mean weight of all cells is 1."""
        self.finished, self.total = finished, total
        self._in_work, self._before = in_work, before
        self._weight = self._at_first = float(finished) if weight is None else weight

    def advance(self, total: int, weight: float = 1.0) -> None:
        """One more cell of such a weight is finished, of a total that may have grown."""
        self.finished, self.total, self._weight = self.finished + 1, total, self._weight + weight

    @property
    def ended(self) -> bool:
        """Whether no cell is left."""
        return self.finished == self.total

    @property
    def reached(self) -> float:
        """What is done, in cells of the mean weight."""
        return float(self.total) if self.ended else min(self._weight + self._in_work(), self.total)

    def left(self, seconds: float) -> float | None:
        """The seconds that the rest takes if the session has taken so many so far; `None` while nothing is known."""
        reached = self.reached
        gained = reached - self._at_first - self._before()
        return 0.0 if self.ended else seconds / gained * (self.total - reached) if gained > 1e-9 else None


Display = Callable[[str, Headway], AbstractContextManager[Callable[[], None]]]
"""Shows a run's headway; it takes and yields what `progress` does."""


@contextlib.contextmanager
def progress(label: str, headway: Headway) -> Iterator[Callable[[], None]]:
    """Shows how far a run is; yields a function to call when it has advanced."""
    display = _chosen.get() or (_bar if sys.stderr.isatty() else _lines)
    with display(label, headway) as show:
        yield show


@contextlib.contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """Has a display of one's own, entered when the workers have been forked, show the progress of the block."""
    token = _chosen.set(display)
    try:
        yield
    finally:
        _chosen.reset(token)


def in_words(left: float, now: float | None = None) -> str:
    """How long the rest takes; from an hour on also when it ends, by the clock of this machine."""
    if left < HOUR:
        return f"{left:.0f} s left"
    if left > YEAR:
        return "more than a year left"
    at = (time.time() if now is None else now) + left
    return f"{in_time(left)} left, until {time.strftime('%a %d %b %H:%M %Z', time.localtime(at)).strip()}"


@contextlib.contextmanager
def ticking(show: Callable[[], None]) -> Iterator[None]:
    """Calls a function now and then while the block runs."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(TICK_SECONDS):
            show()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _bar(label: str, headway: Headway) -> Iterator[Callable[[], None]]:
    from rich import progress as bars
    from rich.console import Console

    columns: list[Any] = ["{task.description}", bars.BarColumn(), "{task.fields[finished]}/{task.total:.0f} cells ·"]
    columns += [bars.TimeElapsedColumn(), "elapsed{task.fields[left]}"]
    start = time.monotonic()
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=headway.total, finished=headway.finished, left="")

        def show() -> None:
            left = headway.left(time.monotonic() - start)
            said = "" if left is None else f" · {in_words(left)}"
            reached, total = headway.reached, headway.total
            bar.update(task, completed=reached, total=total, finished=headway.finished, left=said)

        show()
        with ticking(show):
            yield show


@contextlib.contextmanager
def _lines(label: str, headway: Headway) -> Iterator[Callable[[], None]]:
    start = shown = time.monotonic()
    said, lock = headway.finished if headway.ended else -1, threading.Lock()

    def show() -> None:
        nonlocal shown, said
        with lock:
            now = time.monotonic()
            left = headway.left(now - start)
            apart = min(max(SECONDS_BETWEEN_LINES, (now - start) / RARER), LONGEST_BETWEEN)
            ended = headway.ended and said != headway.finished
            if left is None or not (ended or (not headway.ended and now - shown >= apart)):
                return
            reached, finished, total = headway.reached, headway.finished, headway.total
            part = f" and {100 * reached / total:.0f}% of all work" if abs(reached - finished) > 1e-9 else ""
            say(f"{label}: {finished}/{total} cells{part}, {_so_far(now - start)} elapsed, {in_words(left)}")
            shown, said = now, finished

    with ticking(show):
        yield show


def _so_far(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < HOUR else in_time(seconds)
