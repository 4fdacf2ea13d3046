"""W&B takes only what the cells leave of the cores."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gm_lab import tracking
from gm_lab.priority import children_give_way, descendants, give_way
from gm_lab.tracking import Tracker


def whole(process):
    """The numbers of a process and of all that it started."""
    return {process, *descendants(process)}


def command(process):
    """What was started."""
    return Path(f"/proc/{process}/cmdline").read_text()


def niceness(process):
    """Of a process among those of its session, and of its session, where Linux shares the cores between sessions.

    Neither file nor text: the process belongs to no session that has a share of its own.
    """
    session = Path(f"/proc/{process}/autogroup")
    share = session.read_text().split() if session.exists() else []
    return os.getpriority(os.PRIO_PROCESS, process), int(share[-1]) if share else 19


def test_every_process_of_wandb_has_the_lowest_priority(tmp_path, monkeypatch, until):
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0)
    tracker = Tracker("offline", tmp_path, "toy", "abcd1234", {}, lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "give_way", lambda _: None)  # later: where every core is busy it takes minutes to begin
        tracker.start()
    try:
        tracker.progress(1, 0.1)
        until(lambda: any("wandb-core" in command(p) for p in descendants(tracker._process.pid)), 30)
        until(lambda: all(niceness(p) == (19, 19) for p in descendants(tracker._process.pid)), 10)
    finally:
        tracker._stop()
    tracker.start()
    try:
        assert niceness(tracker._process.pid) == (19, 19)
    finally:
        tracker._stop()


@pytest.mark.parametrize("begun", [False, True])
def test_what_the_run_waits_for_has_normal_priority(stand_in, tmp_path, monkeypatch, until, begun):
    """Whether W&B was begun while there were cells, or not; the server is slow, so that there is something to see."""
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0 if begun else 60.0)
    monkeypatch.setattr(tracking, "UNNOTICED_SECONDS", 0.1 if begun else 60.0)
    with stand_in(delay=60) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        tracker = Tracker("online", tmp_path, "toy", "abcd1234", {}, lambda _: None)
        with monkeypatch.context() as patch:
            patch.setattr(tracking, "give_way", lambda _: None)
            tracker.start()
        first = whole(tracker._process.pid)
        if begun:
            until(lambda: any("wandb-core" in command(p) for p in whole(tracker._process.pid)), 30)
            first = whole(tracker._process.pid)
        waiting = threading.Thread(target=tracker.finish, args=(0,))
        waiting.start()

        def second():
            process = tracker._process
            found = whole(process.pid) if process is not None and process.pid not in first else set()
            return found if any("wandb-core" in command(p) for p in found) else set()

        try:
            until(second, 30)
            normal = os.getpriority(os.PRIO_PROCESS, 0)
            assert {niceness(p)[0] for p in second()} == {normal}
            assert {niceness(p)[1] for p in second()} <= {0, 19}  # 19 stands for no share
            until(lambda: not any(Path(f"/proc/{p}").exists() and command(p) for p in first), 10)
        finally:
            tracker._stop()
            waiting.join()


@pytest.fixture
def started():
    """Starts a process with a session of its own that waits to be ended."""
    processes = []

    def start():
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        processes.append(subprocess.Popen(sleep, start_new_session=True))
        return processes[-1].pid

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_child_gives_way_while_its_maker_still_waits_for_it(started, until):
    with children_give_way():
        child = started()
        until(lambda: niceness(child) == (19, 19), 10)
    assert niceness(child) == (19, 19)
    assert niceness(os.getpid())[0] == os.getpriority(os.PRIO_PROCESS, 0) < 19


def test_a_process_that_is_gone_is_no_error(started):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    give_way(process.pid)
