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

SECONDS_BETWEEN_LINES = 10.0
TICK_SECONDS = 0.5
InWork = Callable[[], float]
"""How much of the cells that are in work is done, together: half a cell and a whole one are 1.5."""
Display = Callable[[str, int, int, InWork], AbstractContextManager[Callable[[int], None]]]
"""Shows how many cells are finished; it takes and yields what `progress` does."""
_chosen: ContextVar[Display | None] = ContextVar("display", default=None)


def nobody_listens(_part: float) -> None:
    """Is told how far a cell is where nobody watches."""


_told: ContextVar[Callable[[float], None]] = ContextVar("told", default=nobody_listens)


def progressed(done: float, total: float) -> None:
    """Tells how far the computation of this cell is, for those who watch; it has no bearing on anything else."""
    _told.get()(min(max(done / total, 0.0), 1.0) if total > 0 else 0.0)


class Parts:
    """How far each worker is with its cell: those that are forked write it to memory that they share with the driver.

    Workers that are spawned, where there is no safe fork, tell it to nobody.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._parts = memoryview(mmap.mmap(-1, 8 * workers)).cast("d")

    def __reduce__(self) -> tuple[type["Parts"], tuple[int]]:
        return Parts, (self._workers,)

    def in_work(self) -> float:
        """The sum over the workers."""
        return float(sum(self._parts))

    @contextlib.contextmanager
    def told_by(self, worker: int) -> Iterator[None]:
        """Listens to what the block tells of its cell, in the name of a worker."""

        def tell(part: float) -> None:
            self._parts[worker] = part

        token = _told.set(tell)
        try:
            yield
        finally:
            _told.reset(token)
            self.clear(worker)

    def clear(self, worker: int) -> None:
        """Forgets the cell of a worker, which is finished or lost."""
        self._parts[worker] = 0.0


@contextlib.contextmanager
def progress(label: str, done: int, total: int, in_work: InWork) -> Iterator[Callable[[int], None]]:
    """Shows how many cells are finished, some before now; yields a function to call as each one is, with the total."""
    display = _chosen.get() or (_bar if sys.stderr.isatty() else _lines)
    with display(label, done, total, in_work) as advance:
        yield advance


@contextlib.contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """Has a display of one's own, entered when the workers have been forked, show the progress of the block."""
    token = _chosen.set(display)
    try:
        yield
    finally:
        _chosen.reset(token)


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
def _bar(label: str, done: int, total: int, in_work: InWork) -> Iterator[Callable[[int], None]]:
    from rich import progress as bars
    from rich.console import Console

    columns: list[Any] = ["{task.description}", bars.BarColumn(), "{task.fields[finished]}/{task.total:.0f} cells ·"]
    columns += [bars.TimeElapsedColumn(), "elapsed ·", bars.TimeRemainingColumn(), "left"]
    finished = done
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done, finished=done)

        def show() -> None:
            bar.update(task, completed=min(finished + in_work(), total), total=total, finished=finished)

        def advance(of: int) -> None:
            nonlocal finished, total
            finished, total = finished + 1, of
            show()

        with ticking(show):
            yield advance


@contextlib.contextmanager
def _lines(label: str, done: int, total: int, in_work: InWork) -> Iterator[Callable[[int], None]]:
    start = shown = time.monotonic()
    finished, lock = done, threading.Lock()

    def show(ended: bool = False) -> None:
        nonlocal shown
        with lock:
            now, reached = time.monotonic(), min(finished + in_work(), total)
            if ended or (done < reached and finished < total and now - shown >= SECONDS_BETWEEN_LINES):
                left = (now - start) / (reached - done) * (total - reached)
                part = f" and {100 * reached / total:.0f}% of all work" if reached > finished else ""
                say(f"{label}: {finished}/{total} cells{part}, {now - start:.1f} s elapsed, {left:.0f} s left")
                shown = now

    def advance(of: int) -> None:
        nonlocal finished, total
        finished, total = finished + 1, of
        show(ended=finished == total)

    with ticking(show):
        yield advance
