"""--launcher ray on a simulated cluster of three nodes: the serial results, whatever is lost on the way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

APP = Path(__file__).with_name("ray_app")
NODES = 3


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs and three nodes of one CPU each."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    found = Cluster()
    found.add_node(num_cpus=0, include_dashboard=False)
    nodes = [found.add_node(wait=False, num_cpus=1) for _ in range(NODES)]
    found.wait_for_nodes()
    yield found, nodes
    found.shutdown()
    patch.undo()


class Driver:
    """The app as a program of its own process group, in a folder of its own."""

    def __init__(self, folder, run, *flags):
        shutil.copytree(APP, folder)
        command = [sys.executable, str(folder / "app.py"), "--run-dir", str(run), "--wandb", "disabled"]
        self.run = run
        self.process = subprocess.Popen(
            [*command, *map(str, flags)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finished(self):
        return len(list((self.run / "cells").glob("[!.]*.json")))

    def until(self, condition, seconds=40):
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def end(self):
        """Exit status and the lines on stderr."""
        error = self.process.communicate(timeout=90)[1]
        return self.process.returncode, error.splitlines()


@pytest.fixture
def start(tmp_path):
    started = []

    def call(run, *flags):
        started.append(Driver(tmp_path / f"program {len(started)}", run, *flags))
        return started[-1]

    yield call
    for driver in started:
        if driver.process.poll() is None:
            os.killpg(driver.process.pid, signal.SIGKILL)
        driver.process.communicate()


@pytest.fixture
def on_cluster(start, cluster):
    return lambda run, *flags: start(run, "--launcher", "ray", "--ray-address", cluster[0].address, *flags)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """results.csv of 60 cells on one worker."""
    folder = tmp_path_factory.mktemp("serial")
    assert Driver(folder / "program", folder / "run", "--workers", "1").end()[0] == 0
    return (folder / "run" / "results.csv").read_bytes()


def test_a_driver_that_is_killed_and_restarted(on_cluster, serial, tmp_path):
    flags = "--seconds", 0.1, "--trace", tmp_path
    first = on_cluster(tmp_path / "run", *flags)
    first.until(lambda: first.finished() >= 20)
    first.process.kill()
    first.process.wait()
    kept = first.finished()
    assert 20 <= kept < 60
    (tmp_path / "begun").unlink()
    assert on_cluster(tmp_path / "run", *flags).end()[0] == 0
    # what was in flight may still have ended after the count
    assert 60 - kept <= len((tmp_path / "begun").read_text().split()) <= 60 - kept + NODES
    assert (tmp_path / "run" / "results.csv").read_bytes() == serial


def test_one_ctrl_c_finishes_what_is_in_flight(on_cluster, tmp_path):
    driver = on_cluster(tmp_path / "run", "--cells", 60, "--seconds", 1.5, "--trace", tmp_path)
    begun = tmp_path / "begun"
    driver.until(lambda: begun.exists() and len(begun.read_text().split()) >= NODES)
    os.killpg(driver.process.pid, signal.SIGINT)
    status, error = driver.end()
    assert status == 130
    assert error[0] == "ray_app: finishing the cells in flight; Ctrl-C again stops now"
    assert error[-1].startswith("ray_app: interrupted, every finished cell is kept; to go on: --run-dir")
    # on a busy machine a cell may end, and another begin, before the signal arrives
    assert NODES <= driver.finished() == len(begun.read_text().split()) < 30
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    ("signals", "status"), [([signal.SIGTERM], 143), ([signal.SIGINT, signal.SIGINT], 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_sigterm_and_a_second_ctrl_c_stop_the_cells_which_write_checkpoints(on_cluster, tmp_path, signals, status):
    driver = on_cluster(tmp_path / "run", "--cells", 3, "--seconds", 60, "--trace", tmp_path)
    begun, checkpoint = tmp_path / "begun", tmp_path / "checkpoint"
    driver.until(lambda: begun.exists() and len(begun.read_text().split()) == NODES)
    start = time.monotonic()
    for number in signals:
        driver.process.send_signal(number)
        time.sleep(0.3)
    assert driver.end()[0] == status
    assert time.monotonic() - start < 10
    assert sorted(checkpoint.read_text().split()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("kill", "failed: its worker was lost 4 times (WorkerCrashedError); if memory ran out, more"),
        ("raise", "failed: ZeroDivisionError: no way (traceback in"),
    ],
)
def test_a_cell_in_trouble_is_named(on_cluster, tmp_path, trouble, message):
    driver = on_cluster(tmp_path / "run", "--cells", 9, "--trouble", trouble, "--trace", tmp_path)
    status, error = driver.end()
    assert status == 1
    assert error[-1].startswith("ray_app: cell number=7 seed=0 ")
    assert message in error[-1]
    times = (tmp_path / "begun").read_text().split().count("7")
    assert times == (4 if trouble == "kill" else 1)


def test_a_node_lost_half_way_changes_nothing(on_cluster, cluster, serial, tmp_path):
    driver = on_cluster(tmp_path / "run", "--seconds", 0.2, "--trace", tmp_path)
    driver.until(lambda: driver.finished() >= 25)
    nodes, lost = cluster
    nodes.remove_node(lost[0], allow_graceful=False)
    status, error = driver.end()
    assert status == 0, error
    # the node had one cell in flight, or none if it was lost between two
    assert len((tmp_path / "begun").read_text().split()) in (60, 61)
    assert (tmp_path / "run" / "results.csv").read_bytes() == serial


def test_a_cluster_is_started_here_if_none_is_named(start, serial, tmp_path):
    driver = start(tmp_path / "run", "--launcher", "ray", "--workers", 2)
    status, error = driver.end()
    assert status == 0, error
    assert len(error) == 1
    assert error[0].startswith("ray_app: 60/60 cells")
    assert (tmp_path / "run" / "results.csv").read_bytes() == serial
    assert subprocess.run(["pgrep", "-g", str(driver.process.pid)], check=False, stdout=-3).returncode == 1
