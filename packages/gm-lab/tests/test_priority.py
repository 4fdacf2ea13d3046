"""W&B takes only what the cells leave of the cores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gm_lab import tracking
from gm_lab.priority import children_give_way, give_way
from gm_lab.tracking import Tracker


def descendants(process):
    """The numbers of a process and of all that it started."""
    found = [process]
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        for child in thread.read_text().split():
            found += descendants(int(child))
    return found


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
    tracker.start()
    try:
        tracker.progress(1, 0.1)
        until(lambda: any("wandb-core" in command(p) for p in descendants(tracker._process.pid)), 30)
        until(lambda: all(niceness(p) == (19, 19) for p in descendants(tracker._process.pid)), 10)
    finally:
        tracker._stop()


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
