"""Progress with the time left: a live bar on a terminal, a sparse line elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from gm_lab.run.output import say

SECONDS_BETWEEN_LINES = 10.0
Display = Callable[[str, int, int], AbstractContextManager[Callable[[int], None]]]
"""Shows how many cells are finished; it takes and yields what `progress` does."""
_chosen: ContextVar[Display | None] = ContextVar("display", default=None)


@contextlib.contextmanager
def progress(label: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how many cells are finished, some before now; yields a function to call as each one is, with the total."""
    display = _chosen.get() or (_bar if sys.stderr.isatty() else _lines)
    with display(label, done, total) as advance:
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
def _bar(label: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
    from rich import progress as bars
    from rich.console import Console

    columns: list[Any] = ["{task.description}", bars.BarColumn(), bars.MofNCompleteColumn(), "cells ·"]
    columns += [bars.TimeElapsedColumn(), "elapsed ·", bars.TimeRemainingColumn(), "left"]
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda total: bar.update(task, advance=1, total=total)


@contextlib.contextmanager
def _lines(label: str, done: int, _total: int) -> Iterator[Callable[[int], None]]:
    start = shown = time.monotonic()
    finished = done

    def advance(total: int) -> None:
        nonlocal finished, shown
        finished += 1
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES or finished == total:
            left = (now - start) / (finished - done) * (total - finished)
            say(f"{label}: {finished}/{total} cells, {now - start:.1f} s elapsed, {left:.0f} s left")
            shown = now

    yield advance
