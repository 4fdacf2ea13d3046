import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest

import gm_lab

# no deadline, which a busy machine would miss, and the same examples every time
hypothesis.settings.register_profile("any machine", deadline=None, derandomize=True)
hypothesis.settings.load_profile("any machine")

TOY = Path(__file__).with_name("toy.py")


def load(path):
    """A file beside this one as a module."""
    spec = importlib.util.spec_from_file_location(f"gm_lab_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def hanging_up():
    """SIGHUP means what it means to a program of a terminal, also where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def toy():
    """The toy experiment as a module, for tests that run it in this process."""
    return load(TOY)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A browser to look at pages with."""
    with load(TOY.with_name("browser.py")).opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="session")
def stand_in():
    """The class of servers that stand in for W&B's."""
    return load(TOY.with_name("standin.py")).StandIn


def environment(**variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TOY_"))}
    return clean | {name: str(value) for name, value in variables.items()}


class Program:
    """The toy experiment as a program of its own process group."""

    def __init__(self, *arguments, **variables):
        command = [sys.executable, str(TOY), *map(str, arguments)]
        if "--wandb" not in arguments:
            command += ["--wandb", "disabled"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**({"TOY_GRACE": 3600} | variables)),  # however busy the machine is
            start_new_session=True,
        )

    def end(self, timeout=60):
        """Exit status, stdout, stderr."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def members(self):
        """The living processes of the group."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name = stat.read_text()
            except OSError:  # it ended meanwhile
                continue
            state, _, group = name.rpartition(")")[2].split()[:3]
            if int(group) == self.process.pid and state not in "ZX":
                found.append(int(stat.parent.name))
        return found


@contextlib.contextmanager
def starting():
    """What starts the toy program; none of its processes outlives it."""
    started = []

    def program(*arguments, **variables):
        started.append(Program(*arguments, **variables))
        return started[-1]

    yield program
    for item in started:
        for pid in item.members():
            os.kill(pid, 9)
        item.process.communicate()


@pytest.fixture
def start():
    """Starts the toy program; none of its processes outlives the test."""
    with starting() as program:
        yield program


@pytest.fixture(scope="module")
def run_once():
    """Runs the toy program to its end, for several tests."""
    with starting() as program:
        yield lambda *arguments: program(*arguments).end()


@pytest.fixture
def run(start):
    """Runs the toy program to its end."""
    return lambda *arguments, **variables: start(*arguments, **variables).end()


@pytest.fixture(scope="session")
def finish(toy):
    """Brings a run of 30 cells to its end, in this process on one worker, and returns its results.csv."""

    def call(path):
        flags = ["--run-dir", str(path), "--mdps", "10", "--workers", "1", "--wandb", "disabled"]
        assert gm_lab.main(toy.EXPERIMENT, flags) == 0
        return (path / "results.csv").read_bytes()

    return call


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, finish):
    """results.csv of a run of 30 cells that nothing disturbed."""
    return finish(tmp_path_factory.mktemp("undisturbed") / "run")


def wait_until(condition, seconds=60.0):
    """Waits for something another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def until():
    return wait_until


@pytest.fixture
def main(toy, capfd, tmp_path):
    """Runs the toy in this process on one worker: exit status and stderr."""

    def call(*flags):
        default = ["--run-dir", str(tmp_path / "run"), "--wandb", "disabled", "--workers", "1", "--mdps", "2"]
        status = gm_lab.main(toy.EXPERIMENT, [*default, *map(str, flags)])
        return status, capfd.readouterr().err

    return call
