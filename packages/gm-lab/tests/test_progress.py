"""Progress within cells: workers tell it, the driver adds it up, and a line shows it before any cell is finished."""

import contextlib
import dataclasses
import multiprocessing
import os
import re
import signal
import time

import pytest

import gm_lab
from gm_lab.launch import local
from gm_lab.launch.supply import Supply
from gm_lab.run import Context, progress
from gm_lab.run.interruption import Interruption

RELEASED = multiprocessing.get_context("fork").Event()
LONGEST = 60.0


@pytest.fixture
def until():
    def wait(holds):
        end = time.monotonic() + LONGEST
        while not holds() and time.monotonic() < end:
            time.sleep(0.01)
        assert holds()

    return wait


@dataclasses.dataclass(frozen=True)
class Cell:
    done: int


def half_done(cell, _context):
    gm_lab.progressed(cell.done, 4)
    assert RELEASED.wait(LONGEST)
    return []


def once_killed(cell, context):
    gm_lab.progressed(3, 4)
    with contextlib.suppress(FileExistsError), (context.run_dir / "killed").open("x"):
        os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.mark.parametrize("threads", [False, True])
def test_two_workers_tell_how_far_their_cells_are(until, threads):
    RELEASED.clear()
    parts = progress.Parts(2)
    cells, warned = Supply([Cell(1), Cell(2)]), []
    launched = local.launched(
        half_done, cells, parts, 2, Context, Interruption("toy", waits=False), warned.append, threads
    )
    with launched as finished:
        if threads:  # a driver reads what comes, and so starts the work
            RELEASED.set()
        else:
            import threading

            reader = threading.Thread(target=lambda: list(finished))
            reader.start()
            until(lambda: parts.in_work() == 0.75)
            RELEASED.set()
            reader.join()
        list(finished)
    assert parts.in_work() == 0
    assert warned == []


def test_a_killed_worker_leaves_no_part_of_its_cell(tmp_path):
    parts, warned = progress.Parts(2), []
    setup = lambda: Context(tmp_path)  # noqa: E731
    launched = local.launched(
        once_killed, Supply([Cell(1), Cell(2)]), parts, 2, setup, Interruption("toy", waits=False), warned.append
    )
    with launched as finished:
        assert len(list(finished)) == 2
    assert parts.in_work() == 0
    assert len(warned) == 1


def test_outside_a_run_nobody_listens():
    gm_lab.progressed(1, 2)
    parts = progress.Parts(1)
    with parts.told_by(0):
        gm_lab.progressed(3, 2)
        assert parts.in_work() == 1
        gm_lab.progressed(1, 0)
        assert parts.in_work() == 0


def test_a_line_shows_what_is_done_of_the_cells_in_work(capfd, monkeypatch, until):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)
    part, said = 0.0, []

    def shown():
        said.append(capfd.readouterr().err)
        return "".join(said)

    with progress.progress("toy", 0, 2, lambda: part) as advance:
        part = 0.5
        until(lambda: "toy: 0/2 cells and 25% of all work" in shown())
        part = 0.0
        advance(2)
        advance(2)
    lines = shown().splitlines()
    assert re.fullmatch(r"toy: 2/2 cells, [\d.]+ s elapsed, 0 s left", lines[-1])
    assert all(re.fullmatch(r"toy: \d/2 cells.*, [\d.]+ s elapsed, \d+ s left", line) for line in lines)


def test_nothing_is_said_before_anything_is_known(capfd, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    asked = []

    def in_work():
        asked.append(0)
        return 0.0

    monkeypatch.setattr(progress, "TICK_SECONDS", 0.001)
    with progress.progress("toy", 0, 2, in_work):
        while len(asked) < 3:
            pass
    assert capfd.readouterr().err == ""


def test_the_last_line_is_said_once_while_more_cells_may_come(capfd, monkeypatch, until):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.001)
    asked = []

    def in_work():
        asked.append(0)
        return 0.0

    with progress.progress("toy", 0, 1, in_work) as advance:
        advance(1)
        before = len(asked)
        until(lambda: len(asked) > before + 3)
    assert capfd.readouterr().err.count("toy: 1/1 cells") == 1
