"""Launchers: hand cells to workers in processes, threads or this very thread, and say as each one is finished."""

import contextlib
import gc
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from gm_lab.cells import describe_cell, shorten
from gm_lab.errors import BadInput, CellFailed

# cells quicker than this are handed out ahead of time, so that no worker waits for the driver
QUICK_SECONDS = 0.5

Work = Callable[[Any], None]


@dataclass(frozen=True)
class Failure:
    """What a cell raised, in a form that crosses process boundaries."""

    bad_input: bool
    summary: str
    details: str

    def error(self, cell: Any) -> BadInput | CellFailed:
        """The error to raise in the driver."""
        if self.bad_input:
            return BadInput(self.summary)
        return CellFailed(f"cell {describe_cell(cell)} failed: {self.summary}", self.details)


@dataclass(frozen=True)
class Outcome:
    """A cell's position among those launched, how long it took, and how it failed, if it did."""

    index: int
    seconds: float
    failure: Failure | None


def attempt(work: Work, cells: Sequence[Any], index: int) -> Outcome:
    """Runs one cell; whatever it raises becomes part of the outcome."""
    start = time.perf_counter()
    failure = None
    try:
        work(cells[index])
    except BadInput as error:
        failure = Failure(True, str(error), "")
    except (Exception, SystemExit) as error:
        failure = Failure(False, f"{type(error).__name__}: {shorten(str(error), 200)}", traceback.format_exc())
    return Outcome(index, time.perf_counter() - start, failure)


@contextlib.contextmanager
def launched(
    work: Work,
    cells: Sequence[Any],
    workers: int,
    launcher: Literal["local", "threads"] = "local",
    setup: Callable[[], None] | None = None,
) -> Iterator[Iterator[float]]:
    """Starts the workers; what it yields iterates over the finished cells.

    Processes are forked on entry (spawned where there is no safe fork): start threads inside the block only.

    Args:
        work: Computes and saves one cell. A module-level function or a partial of one.
        cells: The cells to compute.
        workers: How many at once; one runs in this thread.
        launcher: "local" for processes, "threads" for threads.
        setup: Called once here and once in each worker process.

    Yields:
        An iterator over the seconds each cell took, in the order in which they finish. It raises `BadInput` if a cell
        does, and `CellFailed` if a cell raises anything else or kills its worker twice.
    """
    if setup is not None:
        setup()
    workers = min(workers, len(cells))
    if workers <= 1:
        yield _checked(cells, (attempt(work, cells, index) for index in range(len(cells))))
    elif launcher == "threads":
        with _threads(work, cells, workers) as outcomes:
            yield _checked(cells, outcomes)
    else:
        with _processes(work, cells, workers, setup) as outcomes:
            yield _checked(cells, outcomes)


def _checked(cells: Sequence[Any], outcomes: Iterator[Outcome]) -> Iterator[float]:
    for outcome in outcomes:
        if outcome.failure is not None:
            raise outcome.failure.error(cells[outcome.index])
        yield outcome.seconds


@contextlib.contextmanager
def _threads(work: Work, cells: Sequence[Any], workers: int) -> Iterator[Iterator[Outcome]]:
    waiting: deque[int] = deque(range(len(cells)))
    done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            try:
                index = waiting.popleft()
            except IndexError:
                return
            done.put(attempt(work, cells, index))

    def outcomes() -> Iterator[Outcome]:
        for _ in cells:
            yield done.get()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes()
    finally:
        # a thread can't be stopped: let it finish its cell, which is then kept
        waiting.clear()
        for thread in threads:
            thread.join()


@dataclass
class _Worker:
    process: BaseProcess
    connection: "Connection[int | None, Outcome]"
    assigned: deque[int]


@contextlib.contextmanager
def _processes(
    work: Work, cells: Sequence[Any], workers: int, setup: Callable[[], None] | None
) -> Iterator[Iterator[Outcome]]:
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool: list[_Worker] = []
    gc.freeze()  # what exists now is never collected in a worker, so its pages stay shared
    try:
        for number in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(work, cells, setup, theirs, os.getpid()), name=f"cell-worker-{number}", daemon=True
            )
            process.start()
            theirs.close()
            pool.append(_Worker(process, ours, deque()))
        yield _distribute(cells, pool)
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.join()
            worker.connection.close()
        gc.unfreeze()


def _serve(work: Work, cells: Sequence[Any], setup: Callable[[], None] | None, connection: Any, driver: int) -> None:
    _die_with(driver)
    # Ctrl-C reaches the whole group; the driver decides what becomes of us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if setup is not None:
        setup()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(attempt(work, cells, connection.recv()))


def _die_with(driver: int) -> None:
    """Arranges that this worker is killed when its driver ends in any way."""
    if sys.platform == "linux":
        import ctypes

        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
        if os.getppid() != driver:  # it ended before we asked
            os._exit(1)
    elif (parent := multiprocessing.parent_process()) is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _distribute(cells: Sequence[Any], pool: list[_Worker]) -> Iterator[Outcome]:
    """Hands out the cells; one whose worker is killed gets a second try on another worker."""
    waiting = deque(range(len(cells)))
    killed: set[int] = set()
    alive = list(pool)
    ahead = 1
    remaining = len(cells)
    while remaining:
        for worker in list(alive):
            while waiting and len(worker.assigned) < (ahead if len(waiting) > len(alive) else 1):
                worker.assigned.append(waiting.popleft())
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end is noticed below
                    worker.connection.send(worker.assigned[-1])
        ready = wait([worker.connection for worker in alive])
        for worker in [worker for worker in alive if worker.connection in ready]:
            try:
                outcome = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                alive.remove(worker)
                worker.process.join()
                _take_back(worker, cells, waiting, killed, bool(alive))
                continue
            worker.assigned.popleft()
            ahead = 2 if outcome.seconds < QUICK_SECONDS else 1
            remaining -= 1
            yield outcome


def _take_back(worker: _Worker, cells: Sequence[Any], waiting: deque[int], killed: set[int], others: bool) -> None:
    """Puts the cells of a worker that was killed back in the queue, unless this was its cell's second time."""
    how = f"exit code {worker.process.exitcode}"
    if (worker.process.exitcode or 0) < 0:
        how = signal.Signals(-(worker.process.exitcode or 0)).name
    running = worker.assigned[0] if worker.assigned else None
    if running is not None and (running in killed or not others):
        raise CellFailed(
            f"cell {describe_cell(cells[running])} failed: its worker was killed ({how}); "
            "if memory ran out, fewer --workers help"
        )
    if running is None and not others:
        raise CellFailed(f"every worker was killed, the last one ({how}) while idle")
    if running is not None:
        killed.add(running)
    waiting.extendleft(reversed(worker.assigned))
    worker.assigned.clear()
