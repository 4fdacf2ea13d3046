"""W&B takes only what the cells leave of the cores."""

import os
from pathlib import Path

from gm_lab import tracking
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
    """Of a process among those of its session, and of its session, where Linux shares the cores between sessions."""
    session = Path(f"/proc/{process}/autogroup")
    shared = session.read_text().split()[-1] if session.exists() else "19"
    return os.getpriority(os.PRIO_PROCESS, process), int(shared)


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
