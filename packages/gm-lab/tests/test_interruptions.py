"""Kills, signals and crashes: nothing finished is lost and results.csv ends up the same, byte for byte."""

import contextlib
import multiprocessing
import os
import random
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import gm_lab
from gm_lab.analysis.figures import saving
from gm_lab.launch import local
from gm_lab.launch.supply import Supply
from gm_lab.reporting import reporter
from gm_lab.run import Interrupted
from gm_lab.run.interruption import Interruption, receiving
from gm_lab.run.progress import Parts

ENDLESS = 3600
"""Seconds that a cell or a checkpoint takes for which nobody waits."""
SOON = 300
"""Seconds after which such a wait is a fault, on a busy machine, too."""
FINISHING = "toy: finishing the cells in flight; Ctrl-C again stops now\n"


def finished(path):
    return len(list((path / "cells").glob("[!.]*.json")))


def arguments(path):
    return "--run-dir", path, "--mdps", 10, "--workers", 2


@pytest.mark.parametrize("whole_group", [False, True], ids=["driver", "group"])
def test_sigkill_at_random_moments_and_restart(start, until, tmp_path, finish, undisturbed, whole_group):
    moments = random.Random(int(whole_group))
    path = tmp_path / "run"
    for _ in range(3):
        before = finished(path)
        program = start(*arguments(path), TOY_SLEEP=0.03)
        until(lambda before=before: finished(path) > before)
        time.sleep(moments.uniform(0, 0.08))
        (os.killpg if whole_group else os.kill)(program.process.pid, signal.SIGKILL)
        program.process.wait()
        until(lambda program=program: not program.members())
        assert not (path / "results.csv").exists()
    assert 3 <= finished(path) < 30
    assert finish(path) == undisturbed


def test_sigkill_while_results_and_figures_are_written(start, until, tmp_path, finish, undisturbed):
    path = tmp_path / "run"
    for name in ("results.csv", "figures"):
        program = start(*arguments(path))
        until((path / name).exists)
        program.process.kill()
        program.end()
    assert finish(path) == undisturbed


@pytest.mark.parametrize(
    ("number", "status", "how"),
    [
        (signal.SIGINT, 130, ("--launcher", "local")),
        (signal.SIGINT, 130, ("--launcher", "threads")),
        (signal.SIGINT, 130, ("--workers", "1")),
        (signal.SIGTERM, 143, ("--launcher", "local")),
        (signal.SIGHUP, 129, ("--launcher", "local")),
    ],
)
def test_first_signal_keeps_what_is_finished(start, until, tmp_path, finish, undisturbed, number, status, how):
    path = tmp_path / "run"
    go_on = tmp_path / "go on"
    program = start(*arguments(path), *how, TOY_HELD="lvc", TOY_UNTIL=go_on)
    until(lambda: finished(path) >= 3)
    os.killpg(program.process.pid, number)
    if number == signal.SIGINT:
        assert program.process.stderr.readline() == FINISHING
        go_on.touch()
    code, _, err = program.end()
    assert code == status
    assert err.splitlines()[-1] == f"toy: interrupted, every finished cell is kept; to go on: --run-dir {path}"
    assert "Traceback" not in err
    assert not program.members()
    kept = finished(path)
    assert 3 <= kept < 30
    assert len((path / "results.csv").read_text().splitlines()) == 1 + 3 * kept
    assert finish(path) == undisturbed


LAUNCHERS = [("--launcher", "local"), ("--launcher", "threads"), ("--workers", "1")]


@pytest.mark.parametrize("how", LAUNCHERS, ids=lambda how: how[1])
def test_one_ctrl_c_finishes_the_cells_in_flight(start, until, tmp_path, how):
    path = tmp_path / "run"
    go_on = tmp_path / "go on"
    program = start(*arguments(path), "--estimators", "ad", *how, TOY_HELD="ad", TOY_UNTIL=go_on)
    at_once = 1 if "--workers" in how else 2
    until(lambda: len(list(path.glob("cells/*.claim"))) == at_once)
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.process.stderr.readline() == FINISHING
    go_on.touch()
    assert program.end()[0] == 130
    assert finished(path) == at_once
    assert not list(path.glob("cells/*.claim"))


@pytest.mark.parametrize("how", LAUNCHERS, ids=lambda how: how[1])
def test_the_second_ctrl_c_stops_at_once(start, until, tmp_path, how):
    path = tmp_path / "run"
    program = start(*arguments(path), *how, TOY_SLEEP=ENDLESS)
    until(lambda: len(list(path.glob("cells/*.claim"))) == (1 if "--workers" in how else 2))
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.process.stderr.readline() == FINISHING
    assert program.process.poll() is None
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.process.wait(timeout=SOON) == 130
    assert finished(path) == 0
    assert not program.members()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_worker_told_to_stop_while_it_is_forked_stops(start, until, tmp_path, finish, undisturbed, number, status):
    """What it raises in a hook of the fork would be dropped, and its cell go on until the grace is over."""
    path, forked, go_on = tmp_path / "run", tmp_path / "forked", tmp_path / "go on"
    held = {"TOY_FORKED": forked, "TOY_FORK_ON": go_on, "TOY_HELD": "lvc", "TOY_UNTIL": tmp_path / "never"}
    program = start(*arguments(path), **held)
    until(lambda: forked.exists() and finished(path) >= 3)
    os.killpg(program.process.pid, number)
    until(lambda: pending(program.members(), signal.SIGTERM))
    go_on.touch()
    code, _, err = program.end()
    assert code == status
    assert err == f"toy: interrupted, every finished cell is kept; to go on: --run-dir {path}\n"
    assert finish(path) == undisturbed


def pending(pids, number):
    """Whether a signal waits for one of the processes."""
    for pid in pids:
        with contextlib.suppress(OSError):  # it ended meanwhile
            lines = Path("/proc", str(pid), "status").read_text().splitlines()
            waiting = next(int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd"))
            if waiting >> number - 1 & 1:
                return True
    return False


ON_FORK = []
"""A signal that the main thread, a run's only one then, receives in the middle of its next fork, if there is one."""
os.register_at_fork(
    after_in_parent=lambda: ON_FORK and signal.pthread_kill(threading.main_thread().ident, ON_FORK.pop())
)


@pytest.mark.parametrize("what", ["reporter", "figures", "workers"])
def test_a_signal_in_the_middle_of_a_fork_stops_and_leaves_no_process(what, toy, tmp_path):
    """A handler's exception there is dropped, and one just after it would leave the process to itself."""
    interruption = Interruption("toy")
    started = {
        "reporter": lambda: reporter(toy.EXPERIMENT, toy.Settings(run_dir=tmp_path), tmp_path),
        "figures": lambda: saving({"empty": Figure()}, tmp_path),
        "workers": lambda: local.launched(
            lambda _cell, _context: None, Supply([1, 2]), Parts(2), 2, gm_lab.Context, interruption, print
        ),
    }  # fmt: skip
    ON_FORK.append(signal.SIGTERM)
    with pytest.raises(Interrupted), receiving(interruption._receive), started[what]():
        pytest.fail("it went on")
    assert ON_FORK == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_whose_exception_is_dropped_stops_before_the_next_cell(workers):
    """Such as in a `__del__`, where Python prints it and goes on."""
    interruption, seen = Interruption("toy"), []
    with contextlib.suppress(Interrupted):
        interruption._receive(signal.SIGTERM, None)
    run = (lambda cell, _: seen.append(cell)), Supply([1, 2, 3]), Parts(workers), workers, gm_lab.Context
    with pytest.raises(Interrupted), local.launched(*run, interruption, print, threads=True) as outcomes:
        list(outcomes)
    assert seen == []


def test_a_worker_that_waits_for_a_cell_ends_with_the_run_though_its_signal_is_lost(monkeypatch, tmp_path):
    """One that came just before the wait: Python handles it when the wait is over."""
    monkeypatch.setattr("gm_lab.run.interruption.GRACE_SECONDS", SOON)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "terminate", lambda _process: None)
    go_on, interruption, before = tmp_path / "go on", Interruption("toy"), set(multiprocessing.active_children())

    def work(cell, _context):
        while cell and not go_on.exists():
            time.sleep(0.01)

    with local.launched(work, Supply([0, 1, 1]), Parts(3), 3, gm_lab.Context, interruption, print) as outcomes:
        workers = set(multiprocessing.active_children()) - before
        next(outcomes)
        go_on.touch()
    assert [worker.exitcode for worker in workers if worker.exitcode != -signal.SIGKILL] == [0, 0]


def test_a_driver_whose_signal_comes_just_before_it_waits_does_not_wait_for_a_cell(monkeypatch):
    """Python handles it when the wait is over, which no cell ends here."""
    monkeypatch.setattr("gm_lab.run.interruption.GRACE_SECONDS", 0.0)
    interruption, over, wait = Interruption("toy"), threading.Event(), local.wait

    def signalled(connections, *timeout):
        with contextlib.suppress(Interrupted):
            interruption._receive(signal.SIGTERM, None)
        return wait(connections, *timeout)

    monkeypatch.setattr(local, "wait", signalled)
    run = (lambda _cell, _context: over.wait(SOON)), Supply([1, 2]), Parts(2), 2, gm_lab.Context
    with pytest.raises(Interrupted), local.launched(*run, interruption, print, threads=True) as outcomes:
        next(outcomes)
    over.set()


@pytest.mark.parametrize("whole_group", [False, True], ids=["driver", "group"])
@pytest.mark.parametrize("how", [LAUNCHERS[0], LAUNCHERS[2]], ids=lambda how: how[1])
def test_sigterm_lets_every_worker_write_its_checkpoint(start, until, tmp_path, how, whole_group):
    """Whether a scheduler sends it to the program or to its whole group, whose workers then get it twice."""
    path = tmp_path / "run"
    program = start(*arguments(path), *how, TOY_SLEEP=ENDLESS, TOY_TRACE=tmp_path)
    at_once = 1 if "--workers" in how else 2
    until(lambda: len(list(tmp_path.glob("begun *"))) == at_once)
    (os.killpg if whole_group else os.kill)(program.process.pid, signal.SIGTERM)
    assert program.process.wait(timeout=SOON) == 143
    assert len(list(tmp_path.glob("checkpoint *"))) == at_once
    assert not program.members()


@pytest.mark.parametrize("how", [LAUNCHERS[0], LAUNCHERS[2]], ids=lambda how: how[1])
def test_one_ctrl_c_is_enough_where_cells_are_resumable(start, until, tmp_path, how):
    """Their checkpoints may take longer than a hurried stop allows."""
    path = tmp_path / "run"
    variables = {"TOY_SLEEP": ENDLESS, "TOY_TRACE": tmp_path, "TOY_RESUMABLE": 1, "TOY_CHECKPOINT": 1.5}
    program = start(*arguments(path), *how, **variables)
    at_once = 1 if "--workers" in how else 2
    until(lambda: len(list(tmp_path.glob("begun *"))) == at_once)
    os.killpg(program.process.pid, signal.SIGINT)
    status, _, err = program.end(timeout=SOON)
    assert status == 130
    lines = err.splitlines()
    assert lines[0] == ("toy: stopping, what is in flight is kept as checkpoints; Ctrl-C again stops without them")
    assert lines[-1] == f"toy: interrupted, every finished cell is kept; to go on: --run-dir {path}"
    assert len(list(tmp_path.glob("checkpoint *"))) == at_once
    assert not program.members()


def test_a_second_ctrl_c_does_not_wait_for_checkpoints(start, until, tmp_path):
    program = start(
        *arguments(tmp_path / "run"), TOY_SLEEP=ENDLESS, TOY_TRACE=tmp_path, TOY_RESUMABLE=1, TOY_CHECKPOINT=ENDLESS
    )
    until(lambda: len(list(tmp_path.glob("begun *"))) == 2)
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.process.stderr.readline().startswith("toy: stopping, what is in flight is kept as checkpoints")
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.process.wait(timeout=SOON) == 130
    until(lambda: not program.members())


def test_a_second_ctrl_c_in_the_middle_of_the_first_ends_the_run(monkeypatch):
    """Who reads the line may press again before the handler that wrote it has returned."""
    interruption, ended = Interruption("toy", waits=False), []
    monkeypatch.setattr("gm_lab.run.interruption.exit_now", ended.append)
    monkeypatch.setattr(interruption, "_say", lambda _text: interruption._receive(signal.SIGINT, None))
    with pytest.raises(Interrupted), interruption.computing():
        interruption._receive(signal.SIGINT, None)
    assert ended == [130]


def test_a_worker_that_ignores_sigterm_is_killed_when_the_grace_is_over(start, until, tmp_path):
    path = tmp_path / "run"
    program = start(*arguments(path), TOY_SLEEP=ENDLESS, TOY_STUBBORN=1, TOY_GRACE=1)
    until(lambda: len(list(path.glob("cells/*.claim"))) == 2)
    begun = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(timeout=SOON) == 143
    assert time.monotonic() - begun > 1  # the grace
    assert not program.members()


def test_killed_worker_is_retried_once(run, tmp_path, undisturbed):
    path = tmp_path / "run"
    status, _, err = run(*arguments(path), TOY_KILL="lvc", TOY_COUNT=tmp_path / "count", TOY_TIMES=1)
    assert (status, (tmp_path / "count").read_text()) == (0, "x"), err
    warning = r"toy: warning: cell estimator=lvc mdp=\d .*: its worker was killed \(SIGKILL\); trying once more"
    assert re.fullmatch(warning, err.splitlines()[0])
    assert (path / "results.csv").read_bytes() == undisturbed


@pytest.mark.parametrize("workers", [2, 4])
def test_cell_that_kills_its_worker_twice_is_named(run, tmp_path, workers):
    path = tmp_path / "run"
    flags = "--run-dir", path, "--mdps", 1, "--estimators", "lvc", "a", "b", "c", "--workers", workers
    status, _, err = run(*flags, TOY_KILL="lvc", TOY_COUNT=tmp_path / "count", TOY_TIMES=9)
    assert status == 1
    assert "toy: cell estimator=lvc mdp=0" in err.splitlines()[-1]
    assert "its worker was killed (SIGKILL); if memory ran out, fewer --workers help" in err.splitlines()[-1]
    assert (tmp_path / "count").read_text() == "xx"


@pytest.fixture(params=[("--launcher", "local"), ("--launcher", "threads"), ("--workers", "1")], ids=lambda how: how[1])
def failing(request, run, toy, tmp_path, monkeypatch, capfd):
    """Runs a toy that fails, on each launcher: exit status, stdout, stderr. Only forking needs a program of its own."""
    flags = [*map(str, arguments(tmp_path / "run")), *request.param]

    def call(**variables):
        if "local" in flags:
            return run(*flags, **variables)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        status = gm_lab.main(toy.EXPERIMENT, [*flags, "--wandb", "disabled"])
        monkeypatch.undo()
        return status, *capfd.readouterr()

    return call


def test_exception_in_a_cell(failing, tmp_path, finish, undisturbed):
    path = tmp_path / "run"
    status, _, err = failing(TOY_RAISE="lvc")
    line = err.splitlines()[-1]
    assert status == 1
    assert line.startswith("toy: cell estimator=lvc mdp=")
    assert line.endswith(f"seed=0 scale=1.0 failed: ZeroDivisionError: no way (traceback in {path / 'log.txt'})")
    assert "Traceback" not in err
    assert 'raise ZeroDivisionError("no\\nway")' in (path / "log.txt").read_text()
    assert finished(path) >= 8  # of ten; the other worker may still have had two
    assert finish(path) == undisturbed


def test_bad_input_found_in_a_cell(failing):
    status, out, err = failing(TOY_BAD="lvc")
    assert (status, out) == (2, "")
    assert err == "toy: --estimators: expected a gradient of shape (2,), got (3,) from lvc\n"


def test_a_second_writer_is_refused(start, run, until, tmp_path):
    path = tmp_path / "run"
    first = start(*arguments(path), TOY_SLEEP=ENDLESS)
    until(lambda: list(path.glob("cells/*.claim")))
    status, out, err = run(*arguments(path))
    assert (status, out) == (2, "")
    who = f"process {first.process.pid} on {socket.gethostname()}"
    assert err == f"toy: --run-dir: {path} is being written by {who}; expected one writer\n"


def test_a_dead_writer_leaves_no_lock(start, run, until, tmp_path):
    path = tmp_path / "run"
    first = start(*arguments(path), TOY_SLEEP=ENDLESS)
    until(lambda: list(path.glob("cells/*.claim")))
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    assert (path / ".lock").read_text() == f"{first.process.pid} {socket.gethostname()}"
    assert run(*arguments(path))[0] == 0
