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
from types import FrameType
from typing import Any

from gm_lab.cells import Row, describe_cell, shorten
from gm_lab.context import Context
from gm_lab.errors import BadInput, CellFailed, Interrupted
from gm_lab.interruption import Interruption

# cells quicker than this are handed out ahead of time, so that no worker waits for the driver
QUICK_SECONDS = 0.5

Work = Callable[[Any, Context], list[Row] | None]


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
    """A cell's position among those launched, how long it took, how it failed if it did, and rows yet to be saved."""

    index: int
    seconds: float
    failure: Failure | None
    rows: list[Row] | None = None


def attempt(work: Work, cells: Sequence[Any], index: int, context: Context) -> Outcome:
    """Runs one cell; whatever it raises becomes part of the outcome."""
    start = time.perf_counter()
    failure = rows = None
    try:
        rows = work(cells[index], context)
    except BadInput as error:
        failure = Failure(True, str(error), "")
    except (Exception, SystemExit) as error:
        failure = Failure(False, f"{type(error).__name__}: {shorten(str(error), 200)}", traceback.format_exc())
    return Outcome(index, time.perf_counter() - start, failure, rows)


@contextlib.contextmanager
def launched(
    work: Work,
    cells: Sequence[Any],
    workers: int,
    launcher: str,
    setup: Callable[[], Context],
    interruption: Interruption,
    warn: Callable[[str], None],
) -> Iterator[Iterator[float]]:
    """Starts the workers; what it yields iterates over the finished cells.

    Processes are forked on entry (spawned where there is no safe fork): start threads inside the block only.

    Args:
        work: Computes and saves one cell. A module-level function or a partial of one.
        cells: The cells to compute.
        workers: How many at once; one runs in this thread.
        launcher: "local" for processes, "threads" for threads.
        setup: Gives the context; called once here and once in each worker process.
        interruption: Says when the cells in flight are the last ones.
        warn: Shows a line: the cell whose worker was killed and which is tried again.

    Yields:
        An iterator over the seconds each cell took, in the order in which they finish. It raises `BadInput` if a cell
        does, and `CellFailed` if a cell raises anything else or kills its worker twice.
    """
    context = setup()
    workers = min(workers, len(cells))
    if workers <= 1:
        yield checked(cells, _serial(work, cells, context, interruption))
    elif launcher == "threads":
        with _threads(work, cells, workers, context, interruption) as outcomes:
            yield checked(cells, outcomes)
    else:
        with _processes(work, cells, workers, setup, interruption, warn) as outcomes:
            yield checked(cells, outcomes)


def checked(cells: Sequence[Any], outcomes: Iterator[Outcome]) -> Iterator[float]:
    """The seconds of each outcome; raises the error of the first that failed."""
    for outcome in outcomes:
        if outcome.failure is not None:
            raise outcome.failure.error(cells[outcome.index])
        yield outcome.seconds


def _serial(work: Work, cells: Sequence[Any], context: Context, interruption: Interruption) -> Iterator[Outcome]:
    for index in range(len(cells)):
        if interruption.draining:
            return
        yield attempt(work, cells, index, context)


@contextlib.contextmanager
def _threads(
    work: Work, cells: Sequence[Any], workers: int, context: Context, interruption: Interruption
) -> Iterator[Iterator[Outcome]]:
    waiting: deque[int] = deque(range(len(cells)))
    done: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()

    def serve() -> None:
        while not interruption.draining:
            try:
                index = waiting.popleft()
            except IndexError:
                break
            done.put(attempt(work, cells, index, context))
        done.put(None)

    def outcomes() -> Iterator[Outcome]:
        serving = workers
        while serving:
            outcome = done.get()
            if outcome is None:
                serving -= 1
            else:
                yield outcome

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes()
    finally:
        # a thread can't be stopped: one that doesn't finish its cell in time ends with this process
        waiting.clear()
        end = time.monotonic() + interruption.grace_seconds
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))


@dataclass
class _Worker:
    process: BaseProcess
    connection: "Connection[int | None, Outcome]"
    assigned: deque[int]


@contextlib.contextmanager
def _processes(
    work: Work,
    cells: Sequence[Any],
    workers: int,
    setup: Callable[[], Context],
    interruption: Interruption,
    warn: Callable[[str], None],
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
        yield _distribute(cells, pool, interruption, warn)
    finally:
        _stop(pool, interruption.grace_seconds)
        gc.unfreeze()


def _stop(pool: Sequence[_Worker], seconds: float) -> None:
    """Ends the workers: idle ones at once, the others when their cell has written its checkpoint or time is up."""
    for worker in pool:
        (worker.process.terminate if worker.assigned else worker.process.kill)()
        worker.connection.close()  # so that one whose cell ended just now does not wait for the next
    end = time.monotonic() + seconds
    for worker in pool:
        worker.process.join(max(0.0, end - time.monotonic()))
        worker.process.kill()
        worker.process.join()


def _serve(work: Work, cells: Sequence[Any], setup: Callable[[], Context], connection: Any, driver: int) -> None:
    _die_with(driver)

    def stop(number: int, _frame: FrameType | None) -> None:
        # both the group and the driver may send it: once is enough, a checkpoint is being written
        signal.signal(number, signal.SIG_IGN)
        raise Interrupted(number)

    # Ctrl-C reaches the whole group; the driver decides what becomes of us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    try:
        context = setup()
        while True:
            connection.send(attempt(work, cells, connection.recv(), context))
    except (EOFError, BrokenPipeError):
        return
    except Interrupted as error:
        sys.exit(error.status)


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


def _distribute(
    cells: Sequence[Any], pool: list[_Worker], interruption: Interruption, warn: Callable[[str], None]
) -> Iterator[Outcome]:
    """Hands out the cells; one whose worker is killed gets a second try on another worker."""
    waiting = deque(range(len(cells)))
    killed: set[int] = set()
    alive = list(pool)
    ahead = 1
    while True:
        for worker in list(alive):
            most = 0 if interruption.draining else ahead if len(waiting) > len(alive) else 1
            while waiting and len(worker.assigned) < most:
                worker.assigned.append(waiting.popleft())
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end is noticed below
                    worker.connection.send(worker.assigned[-1])
        if not any(worker.assigned for worker in alive):
            return
        ready = wait([worker.connection for worker in alive])
        for worker in [worker for worker in alive if worker.connection in ready]:
            try:
                outcome = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                alive.remove(worker)
                worker.process.join()
                _take_back(worker, cells, waiting, killed, bool(alive), warn)
                continue
            worker.assigned.popleft()
            ahead = 2 if outcome.seconds < QUICK_SECONDS else 1
            yield outcome


def _take_back(
    worker: _Worker,
    cells: Sequence[Any],
    waiting: deque[int],
    killed: set[int],
    others: bool,
    warn: Callable[[str], None],
) -> None:
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
        warn(f"cell {describe_cell(cells[running])}: its worker was killed ({how}); trying once more")
        killed.add(running)
    waiting.extendleft(reversed(worker.assigned))
    worker.assigned.clear()
