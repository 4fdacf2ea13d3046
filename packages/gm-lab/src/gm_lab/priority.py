"""Processes that use what others leave of the cores."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LOWEST = 19  # niceness
WATCH_SECONDS = 0.02


def give_way(process: int) -> None:
    """Lets a process, and what it starts from now on, use what others leave of the cores.

    Where Linux gives each session its share (sched_autogroup), its niceness counts against the others, the
    processes' own ones only within it.
    """
    with contextlib.suppress(OSError):  # it is gone
        os.setpriority(os.PRIO_PROCESS, process, LOWEST)
    with contextlib.suppress(OSError):  # elsewhere, or it is gone
        session = Path(f"/proc/{process}/autogroup")
        for _ in range(5):  # one change in a tenth of a second, whoever asks
            with contextlib.suppress(BlockingIOError):
                session.write_text(str(LOWEST))
                return
            time.sleep(0.1)


@contextlib.contextmanager
def children_give_way() -> Iterator[None]:
    """What is started inside the block gives way from its start, also if it makes a session of its own (Linux)."""
    over = threading.Event()

    def watch() -> None:
        before: set[int] = set()
        last = False
        while not last:
            last = over.wait(WATCH_SECONDS)
            for process in children() - before:
                give_way(process)
                before.add(process)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def children(process: int | None = None) -> set[int]:
    """The processes that one (this one if None) has started and not yet waited for, on Linux."""
    found: set[int] = set()
    for thread in Path(f"/proc/{process or 'self'}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found |= {int(number) for number in thread.read_text().split()}
    return found


def descendants(process: int) -> set[int]:
    """The children of a process, theirs, and so on, on Linux."""
    found = children(process)
    return found.union(*map(descendants, found))
