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

    headway = progress.Headway(0, 2, lambda: part)
    with progress.progress("toy", headway) as show:
        part = 0.5
        until(lambda: "toy: 0/2 cells and 25% of all work" in shown())
        part = 0.0
        headway.advance(2)
        headway.advance(2)
        show()
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
    with progress.progress("toy", progress.Headway(0, 2, in_work)):
        while len(asked) < 3:
            pass
    assert capfd.readouterr().err == ""


def test_the_last_line_is_said_once_while_more_cells_may_come(capfd, monkeypatch, until):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.001)
    asked = []

    def before():
        asked.append(0)
        return 0.0

    headway = progress.Headway(0, 1, before=before)
    with progress.progress("toy", headway) as show:
        headway.advance(1)
        show()
        ticks = len(asked)
        until(lambda: len(asked) > ticks + 3)
    assert capfd.readouterr().err.count("toy: 1/1 cells") == 1


def test_the_time_left_is_by_the_rate_of_this_session_alone():
    """One of four cells was finished before, half of another came from a checkpoint; a quarter took 100 seconds."""
    headway = progress.Headway(1, 4, in_work=lambda: 0.75, before=lambda: 0.5)
    assert headway.reached == 1.75
    assert headway.left(100.0) == pytest.approx(100 / 0.25 * 2.25)
    assert progress.Headway(1, 4, in_work=lambda: 0.5, before=lambda: 0.5).left(100.0) is None


def test_a_cell_counts_as_much_as_it_weighs():
    """Two cells of which one is three times the work: after the light one a quarter is done, after both all."""
    headway = progress.Headway(0, 2)
    headway.advance(2, 0.5)
    assert (headway.finished, headway.reached) == (1, 0.5)
    assert headway.left(10.0) == pytest.approx(30.0)
    headway.advance(2, 1.5)
    assert headway.left(40.0) == 0.0


def test_what_an_earlier_session_did_of_a_cell_is_remembered_when_the_cell_is_finished_but_not_when_it_is_lost():
    parts = progress.Parts(2, lambda cell: cell)
    with parts.told_by(0, 2.0):
        gm_lab.progressed(3, 4, before=1)
        assert (parts.in_work(), parts.before()) == (1.5, 0.5)
    assert (parts.in_work(), parts.before()) == (0.0, 0.5)
    with contextlib.suppress(KeyError), parts.told_by(1, 1.0):
        gm_lab.progressed(1, 2, before=1)
        raise KeyError
    assert parts.before() == 0.5


def test_a_run_of_hours_says_when_it_ends(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        assert progress.in_words(59.6) == "60 s left"
        assert progress.in_words(3599) == "3599 s left"
        assert progress.in_words(7200, now=0.0) == "2 hours left, until Thu 01 Jan 02:00 UTC"
        assert progress.in_words(1e300) == "more than a year left"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_line_of_a_run_of_hours_has_its_end(capfd, monkeypatch, until):
    """A thousandth was done in some seconds of the clock, which is moved by an hour."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)
    begun, moved, said = time.monotonic(), 0.0, []

    class Clock:
        monotonic = staticmethod(lambda: begun + moved)
        time, strftime, localtime = time.time, time.strftime, time.localtime

    def shown():
        said.append(capfd.readouterr().err)
        return "".join(said)

    monkeypatch.setattr(progress, "time", Clock)
    with progress.progress("toy", progress.Headway(0, 2, lambda: 0.5)):
        moved = 7200.0
        until(lambda: " elapsed, " in shown())
    line = shown().splitlines()[-1]
    day = r"\w{3} \d\d \w{3} \d\d:\d\d"
    assert re.fullmatch(rf"toy: 0/2 cells and 25% of all work, 2 hours elapsed, 6 hours left, until {day}.*", line)
