"""--launcher ray on a simulated cluster of three nodes: the serial results, whatever is lost on the way."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
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

    def __init__(self, folder, run, *flags, **variables):
        shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, str(folder / "app.py"), "--run-dir", str(run), "--wandb", "disabled"]
        self.run = run
        self.process = subprocess.Popen(
            [*command, *map(str, flags)],
            cwd=folder,
            env=os.environ | {name: str(value) for name, value in variables.items()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finished(self):
        return len(list((self.run / "cells").glob("[!.]*.json")))

    def until(self, condition, seconds=300):  # a guard, no measure: Ray is slow on a busy machine
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def end(self):
        """Exit status and the lines on stderr."""
        error = self.process.communicate(timeout=300)[1]
        return self.process.returncode, error.splitlines()


@pytest.fixture
def start(tmp_path):
    started = []

    def call(run, *flags, **variables):
        started.append(Driver(tmp_path / f"program {len(started)}", run, *flags, **variables))
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
    assert "ray_app: finishing the cells in flight; Ctrl-C again stops now" in error
    assert error[-1].startswith("ray_app: interrupted, every finished cell is kept; to go on: --run-dir")
    # on a busy machine a cell may end, and another begin, before the signal arrives
    assert NODES <= driver.finished() == len(begun.read_text().split()) < 30
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    ("signals", "status"), [([signal.SIGTERM], 143), ([signal.SIGINT, signal.SIGINT], 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_sigterm_and_a_second_ctrl_c_stop_the_cells_which_write_checkpoints(on_cluster, tmp_path, signals, status):
    driver = on_cluster(tmp_path / "run", "--cells", 3, "--seconds", 3600, "--trace", tmp_path)
    begun, checkpoint = tmp_path / "begun", tmp_path / "checkpoint"
    driver.until(lambda: begun.exists() and len(begun.read_text().split()) == NODES)
    *before, last = signals
    for number in before:
        driver.process.send_signal(number)
        heard = "ray_app: finishing the cells in flight; Ctrl-C again stops now\n"
        assert heard in iter(driver.process.stderr.readline, "")
    driver.process.send_signal(last)
    assert driver.end()[0] == status
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
    warnings = [line for line in error if "warning" in line]
    assert len(warnings) == times - 1
    for number, line in enumerate(warnings, start=1):
        assert line.startswith("ray_app: warning: cell number=7 seed=0 ")
        assert line.endswith(f": its worker was lost (WorkerCrashedError); trying again, {number} of 3")


def test_a_node_lost_half_way_changes_nothing(on_cluster, cluster, serial, tmp_path):
    driver = on_cluster(tmp_path / "run", "--seconds", 0.2, "--trace", tmp_path)
    driver.until(lambda: driver.finished() >= 25)
    nodes, lost = cluster
    nodes.remove_node(lost[0], allow_graceful=False)
    status, error = driver.end()
    assert status == 0, error
    # the node had one cell in flight, or none if it was lost between two
    begun = (tmp_path / "begun").read_text().split()
    assert len(begun) in (60, 61)
    twice = {number for number in begun if begun.count(number) == 2}
    named = [
        re.search(r"warning: cell number=(\d+) .*: its worker was lost .*; trying again, 1 of 3$", line)
        for line in error
    ]
    # one that was lost before it began is tried again, too
    assert twice <= {found[1] for found in named if found}
    assert (tmp_path / "run" / "results.csv").read_bytes() == serial


def test_a_cluster_is_started_here_if_none_is_named(start, serial, tmp_path):
    driver = start(tmp_path / "run", "--launcher", "ray", "--workers", 2)
    status, error = driver.end()
    assert status == 0, error
    assert len(error) == 1
    assert error[0].startswith("ray_app: 60/60 cells")
    assert (tmp_path / "run" / "results.csv").read_bytes() == serial
    assert subprocess.run(["pgrep", "-g", str(driver.process.pid)], check=False, stdout=-3).returncode == 1


@pytest.fixture
def guarded(tmp_path):
    """The address of a cluster of one CPU that asks for a token, and a home folder that holds it."""
    (tmp_path / "home" / ".ray").mkdir(parents=True)
    (tmp_path / "home" / ".ray" / "auth_token").write_text("5ec2e7" * 10)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    variables |= {"HOME": str(tmp_path / "home"), "RAY_USAGE_STATS_ENABLED": "0"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the names of sockets must be short
    flags = ["--head", "--port", str(port), "--num-cpus", "1", "--include-dashboard", "false", "--temp-dir", folder]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags, "--block"]
    with (tmp_path / "head.txt").open("w") as output:
        head = subprocess.Popen(command, env=variables, stdout=output, stderr=output, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while "Ray runtime started" not in (tmp_path / "head.txt").read_text():
            assert head.poll() is None, (tmp_path / "head.txt").read_text()
            assert time.monotonic() < end, "it never began"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", tmp_path / "home"
    finally:
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(10)
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if folder in line.read_text():
                    os.kill(int(line.parent.name), signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_that_asks_for_its_token(start, guarded, tmp_path):
    address, home = guarded
    flags = "--cells", 3, "--launcher", "ray", "--ray-address", address
    status, error = start(tmp_path / "run", *flags, HOME=home).end()
    assert status == 0, error
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 4
    for kind, held in {"": None, ", not the one found": "0dd"}.items():
        elsewhere = tmp_path / f"elsewhere {held}" / ".ray"
        elsewhere.mkdir(parents=True)
        if held:
            (elsewhere / "auth_token").write_text(held * 60)  # its length takes two bytes
        status, error = start(tmp_path / "refused", *flags, HOME=elsewhere.parent).end()
        assert status == 2
        message = f"--ray-address: the cluster at {address} asks for its token{kind}; expected a copy of its first"
        assert error == [f"ray_app: {message} machine's ~/.ray/auth_token here, in the same place"]
        assert not (tmp_path / "refused").exists()


def test_a_cluster_that_is_gone_is_named_and_the_run_goes_on_without_it(start, guarded, serial, tmp_path):
    address, home = guarded
    flags = "--launcher", "ray", "--ray-address", address, "--seconds", 0.2
    driver = start(tmp_path / "run", *flags, HOME=home)
    driver.until(lambda: driver.finished() >= 5)
    head = subprocess.run(
        ["pgrep", "-f", f"gcs_server .*{address.rpartition(':')[2]}"], check=True, capture_output=True, text=True
    )
    for number in head.stdout.split():
        os.kill(int(number), signal.SIGKILL)
    line = driver.process.stderr.readline()  # long before Ray itself ends the program, which then says no such thing
    assert re.match(r"ray_app: warning: the cluster's first machine, .*, does not answer \(Connection refused\)", line)
    assert line.endswith("every finished cell is kept, the same --run-dir goes on\n")
    driver.process.kill()  # Ray does so after a minute
    driver.process.wait()
    assert 5 <= driver.finished() < 60
    assert start(tmp_path / "run", "--seconds", 0.2, "--workers", 2).end()[0] == 0
    assert (tmp_path / "run" / "results.csv").read_bytes() == serial
