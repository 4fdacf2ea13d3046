"""W&B takes only what the cells leave of the cores."""

import contextlib
import os
import threading
from pathlib import Path

import pytest

from gm_lab.track import tracker as tracking
from gm_lab.track.tracker import Tracker


def descendants(process):
    """The children of a process, theirs, and so on."""
    children = set()
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            children |= {int(number) for number in thread.read_text().split()}
    return children.union(*map(descendants, children))


def services(tracker):
    """W&B's own processes."""
    process = tracker._process
    return {p for p in descendants(process.pid) if "wandb-core" in command(p)} if process else set()


def command(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""


def share(process):
    """The niceness of a process's session, where Linux shares the cores between sessions; the lowest elsewhere."""
    session = Path(f"/proc/{process}/autogroup")
    words = session.read_text().split() if session.exists() else []
    return int(words[-1]) if words else 19


def test_every_process_of_wandb_has_the_lowest_priority(tmp_path, monkeypatch, until):
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0)
    tracker = Tracker("offline", tmp_path, "toy", "abcd1234", lambda _: None)
    tracker.start({})
    try:
        until(lambda: services(tracker), 60)
        until(lambda: all(share(p) == 19 for p in services(tracker)), 60)
        whole = {tracker._process.pid} | descendants(tracker._process.pid)
        assert {os.getpriority(os.PRIO_PROCESS, p) for p in whole} == {19}
        assert os.getpriority(os.PRIO_PROCESS, 0) < 19
    finally:
        tracker._stop()
        tracker.finish(1)


@pytest.mark.parametrize("begun", [False, True])
def test_what_the_run_waits_for_has_normal_priority(stand_in, tmp_path, monkeypatch, until, begun):
    """Whether W&B was begun while there were cells, or not; the server is slow, so that there is something to see."""
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0 if begun else 60.0)
    monkeypatch.setattr(tracking, "UNNOTICED_SECONDS", 0.1 if begun else 60.0)
    launch = Tracker._launch
    with stand_in(delay=60) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        tracker = Tracker("online", tmp_path, "toy", "abcd1234", lambda _: None)
        with monkeypatch.context() as patch:
            # where every core is busy, what gives way takes minutes
            patch.setattr(Tracker, "_launch", lambda self, gives_way: launch(self, gives_way=False))
            tracker.start({})
            if begun:
                until(lambda: services(tracker), 60)
        first = {tracker._process.pid} | descendants(tracker._process.pid) if begun else set()
        waiting = threading.Thread(target=tracker.finish, args=(0,))
        waiting.start()
        try:
            until(lambda: services(tracker) - first, 60)
            normal = os.getpriority(os.PRIO_PROCESS, 0)
            assert {os.getpriority(os.PRIO_PROCESS, p) for p in services(tracker)} == {normal}
            assert {share(p) for p in services(tracker)} <= {0, 19}  # 19 stands for no share
            until(lambda: not any(command(p) for p in first), 20)
        finally:
            tracker._stop()
            waiting.join()
