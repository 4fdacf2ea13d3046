"""Progress with the time left: a live bar on a terminal, a sparse line elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def progress(label: str, done: int, total: int) -> Iterator[Callable[[], None]]:
    """Shows how many cells are finished.

    Args:
        label: What is being done.
        done: Cells finished before this run.
        total: All cells.

    Yields:
        A function to call as each cell is finished.
    """
    if not sys.stderr.isatty():
        yield _lines(label, done, total)
        return
    from rich import progress as bars
    from rich.console import Console

    columns: list[Any] = ["{task.description}", bars.BarColumn(), bars.MofNCompleteColumn(), "cells ·"]
    columns += [bars.TimeElapsedColumn(), "elapsed ·", bars.TimeRemainingColumn(), "left"]
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda: bar.advance(task)


def _lines(label: str, done: int, total: int) -> Callable[[], None]:
    start = shown = time.monotonic()
    finished = done

    def advance() -> None:
        nonlocal finished, shown
        finished += 1
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES or finished == total:
            left = (now - start) / (finished - done) * (total - finished)
            print(f"{label}: {finished}/{total} cells, {now - start:.1f} s elapsed, {left:.0f} s left", file=sys.stderr)
            shown = now

    return advance
