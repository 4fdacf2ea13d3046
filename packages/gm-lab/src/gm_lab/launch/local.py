"""Computes cells in this thread, in other threads or in processes of this machine.

The pool is our own. When a worker of `concurrent.futures` is killed, its pool ends all the others as well, whose cells
may be hours old, and says neither which cell it was nor how it ended; and the threads of one hold the program up at its
end until their cells are finished.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from gm_lab.launch.outcome import QUICK_SECONDS, Outcome, Work, attempt, checked
from gm_lab.launch.supply import Supply
from gm_lab.run.cells import describe_cell
from gm_lab.run.context import Context
from gm_lab.run.errors import CellFailed, Interrupted
from gm_lab.run.interruption import Interruption, become_worker, held_back
from gm_lab.run.progress import Parts

LOOK_SECONDS = 1.0
"""Python handles a signal that comes just before a wait when that is over, so that no wait is longer."""


@dataclass(frozen=True)
class _Worker:
    """A worker, the way to talk to it, and the cells that it was handed, the first of them in work."""

    number: int
    runner: BaseProcess | threading.Thread
    connection: "Connection[tuple[int, Any], Outcome]"
    assigned: deque[int] = field(default_factory=deque)


@contextlib.contextmanager
def launched(
    work: Work, cells: Supply, parts: Parts, workers: int, setup: Callable[[], Context], interruption: Interruption,
    warn: Callable[[str], None], threads: bool = False,
) -> Iterator[Iterator[tuple[int, float]]]:  # fmt: skip
    """Starts the workers; it yields an iterator over cells in the order in which they finish: position, seconds.

    The workers stay for the cells that the supply has more of. No worker is started if it has none to begin with.

    Processes are forked on entry (spawned where there is no safe fork): start threads inside the block only. One worker
    runs in this thread. `work` computes and saves a cell; `setup` gives the context, here and once in each process. The
    iterator raises `BadInput` if a cell does, and `CellFailed` if one raises anything else or kills its worker twice.
    """
    if not len(cells):
        yield iter(())
        return
    context = setup()
    if workers == 1:
        yield checked(cells, _serial(work, cells, parts, context, interruption))
        return
    known = [cells[index] for index in range(len(cells))]
    how: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool: list[_Worker] = []
    gc.freeze()  # what exists now is never collected in a worker, so its pages stay shared
    try:
        for number in range(workers if cells.may_grow else min(workers, len(cells))):
            ours, theirs = how.Pipe()
            serve = partial(_serve, work, known, parts, number)
            if threads:
                runner = threading.Thread(target=serve, args=(theirs, context), daemon=True)
            else:
                inherited = [*(worker.connection for worker in pool), ours] if how.get_start_method() == "fork" else []
                runner = how.Process(target=_process, args=(serve, theirs, inherited, setup, os.getpid()), daemon=True)
            with held_back():
                runner.start()
                pool.append(_Worker(number, runner, ours))
            if not threads:
                theirs.close()
        yield checked(cells, _distribute(cells, pool, parts, interruption, warn))
    finally:
        _stop(pool, interruption.grace_seconds)
        gc.unfreeze()


def _serial(work: Work, cells: Supply, parts: Parts, context: Context, interruption: Interruption) -> Iterator[Outcome]:
    positions = range(len(cells))
    while positions:
        for index in positions:
            interruption.check()
            if interruption.draining:
                return
            with parts.told_by(0, cells[index]):
                outcome = attempt(work, index, cells[index], context, lambda: interruption.status is not None)
            yield outcome
        positions = cells.grown()


def _serve(work: Work, known: Sequence[Any], parts: Parts, number: int, connection: Any, context: Context) -> None:
    """Computes what it is told to: one of the cells that it was started with, or another that is sent."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            index, cell = connection.recv()
            cell = known[index] if cell is None else cell
            with parts.told_by(number, cell):
                outcome = attempt(work, index, cell, context)
            connection.send(outcome)


def _process(
    serve: Callable[[Any, Context], None], connection: Any, inherited: Sequence[Any], setup: Callable[[], Context],
    driver: int,
) -> None:  # fmt: skip
    """A worker; it closes the driver's ends that it inherited, without which nobody would notice that these closed.

    It matters where a signal comes just before the worker waits for its next cell: it is handled when that wait ends.
    """
    become_worker(driver)
    for end in inherited:
        end.close()

    def stop(number: int, _frame: FrameType | None) -> None:
        # both the group and the driver may send it: once is enough, a checkpoint is being written
        signal.signal(number, signal.SIG_IGN)
        raise Interrupted(number)

    signal.signal(signal.SIGTERM, stop)
    try:
        serve(connection, setup())
    except Interrupted as error:
        sys.exit(error.status)


def _stop(pool: Sequence[_Worker], seconds: float) -> None:
    """Ends idle workers at once, others when they wrote checkpoints or time is up; late threads end with us."""
    for worker in pool:
        if isinstance(worker.runner, BaseProcess):
            (worker.runner.terminate if worker.assigned else worker.runner.kill)()
        worker.connection.close()  # so that one whose cell ended just now does not wait for the next
    end = time.monotonic() + seconds
    for worker in pool:
        if not isinstance(worker.runner, BaseProcess):
            worker.runner.join(max(0.0, end - time.monotonic()))
            continue
        # join would wait, in vain, for a process that a user's function left behind, too
        while worker.runner.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        worker.runner.kill()
        worker.runner.join()


def _distribute(
    cells: Supply, pool: Sequence[_Worker], parts: Parts, interruption: Interruption, warn: Callable[[str], None]
) -> Iterator[Outcome]:
    """Hands out the cells; one whose worker is killed gets a second try on another worker."""
    known = len(cells)
    waiting = deque(range(known))
    killed: set[int] = set()
    alive = list(pool)
    ahead = 1
    while True:
        interruption.check()
        for worker in alive:
            most = 0 if interruption.draining else ahead if len(waiting) > len(alive) else 1
            while waiting and len(worker.assigned) < most:
                worker.assigned.append(waiting.popleft())
                with contextlib.suppress(ConnectionError):  # its end is noticed below
                    index = worker.assigned[-1]
                    # what a worker was started with need not be fit to be sent
                    worker.connection.send((index, None if index < known else cells[index]))
        if not any(worker.assigned for worker in alive):
            if interruption.draining or not (further := cells.grown()):
                return
            waiting.extend(further)
            continue
        ready = wait([worker.connection for worker in alive], LOOK_SECONDS)
        for worker in [worker for worker in alive if worker.connection in ready]:
            try:
                outcome = worker.connection.recv()
            except (EOFError, ConnectionError):
                alive.remove(worker)
                parts.clear(worker.number)
                again = _lost(worker, cells, killed, bool(alive), warn)
                waiting.extendleft(reversed(again))
                continue
            worker.assigned.popleft()
            ahead = 2 if outcome.seconds < QUICK_SECONDS else 1
            yield outcome


def _ending(code: int) -> str:
    """How a worker ended, by its exit code as `multiprocessing` has it."""
    if code >= 0:
        return f"ended itself, with exit status {code}"
    with contextlib.suppress(ValueError):  # a signal without a name
        return f"was killed ({signal.Signals(-code).name})"
    return f"was killed (signal {-code})"


def _lost(worker: _Worker, cells: Supply, killed: set[int], others: bool, warn: Callable[[str], None]) -> list[int]:
    """The cells that a killed worker leaves to others, unless the first of them has killed one before."""
    assert isinstance(worker.runner, BaseProcess)
    worker.runner.join()
    how = _ending(worker.runner.exitcode or 0)
    left = list(worker.assigned)
    worker.assigned.clear()
    if not left and not others:
        raise CellFailed(f"every worker is lost; the last one {how} while idle")
    if left and (left[0] in killed or not others):
        advice = "; if memory ran out, fewer --workers help" if "SIGKILL" in how else ""
        raise CellFailed(f"cell {describe_cell(cells[left[0]])} failed: its worker {how}{advice}")
    if left:
        warn(f"cell {describe_cell(cells[left[0]])}: its worker {how}; trying once more")
        killed.add(left[0])
    return left
