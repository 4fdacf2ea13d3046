"""The Ray launcher without a cluster: what is refused, what a cell needs, what travels to the workers."""

import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import gm_lab
from gm_lab.launch import ray as launcher
from gm_lab.launch.ray import needed, room


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """No address is known yet, and no way to show a token chosen."""
    launcher.let_in.cache_clear()
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)


@pytest.fixture
def silent():
    """The address of a socket that accepts connections and says nothing, as some firewalls do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "{}:{}".format(*server.getsockname())


def test_a_cluster_that_does_not_answer_is_refused(main, silent, monkeypatch, tmp_path):
    monkeypatch.setattr(launcher, "IMPATIENT", launcher.IMPATIENT | {"RAY_py_gcs_connect_timeout_s": "1"})
    status, err = main("--launcher", "ray", "--ray-address", silent)
    assert status == 2
    assert err.startswith(
        f"toy: --ray-address: expected a running Ray cluster at {silent}, got: ConnectionError: Failed"
    )
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "expected a running Ray cluster at 127.0.0.1:1, got: Connection refused"),
        ("127.0.0.1:70000", "expected host:port or auto, got '127.0.0.1:70000'"),
        ("ray://head:10001", "expected host:port or auto, got 'ray://head:10001'"),
        ("127.0.0.1:²", "expected host:port or auto, got '127.0.0.1:²'"),
        ("127.0.0.1:" + "9" * 5000, "expected host:port or auto, got '127.0.0.1:" + "9" * 5000 + "'"),
        ("head", "expected host:port or auto, got 'head'"),
    ],
)
def test_an_address_of_no_cluster_is_refused(main, tmp_path, address, message):
    assert main("--launcher", "ray", "--ray-address", address) == (2, f"toy: --ray-address: {message}\n")
    assert not (tmp_path / "run").exists()


REFUSED = "W gcs_client.cc:210: Unauthenticated: RPC error\nConnectionError: Failed to connect"
NOTHING = "ray.exceptions.AuthenticationError: ... but no authentication token was found. ..."
TOKEN = "asks for its token"


@pytest.mark.parametrize(
    ("answers", "mode", "refusal"),
    [
        ([""], None, ""),  # no token is shown
        ([REFUSED, ""], "token", ""),
        ([REFUSED, REFUSED], None, f"{TOKEN}, not the one found; expected"),
        ([REFUSED, NOTHING], None, f"{TOKEN}; expected"),
        (["Traceback\nRuntimeError: Version mismatch"], None, "got: RuntimeError: Version mismatch"),
    ],
)
def test_what_ray_says_of_an_address(answers, mode, refusal, silent, monkeypatch):
    tried = []

    def trial(address, **variables):
        tried.append(variables)
        return answers[len(tried) - 1]

    monkeypatch.setattr(launcher, "_trial", trial)
    if refusal:
        with pytest.raises(gm_lab.BadInput, match=refusal):
            launcher.let_in(silent)
    else:
        assert launcher.let_in(silent) == silent
    assert tried == [{}, {"RAY_AUTH_MODE": "token"}][: len(answers)]
    assert launcher.os.environ.get("RAY_AUTH_MODE") == mode


def test_a_cluster_that_stops_answering_is_named_each_time(monkeypatch, until):
    monkeypatch.setattr(launcher, "HEAD_SECONDS", 0.02)
    said = []
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    with launcher._watched("{}:{}".format(*address), said.append):
        for times in (1, 2):
            listening.accept()[0].close()
            assert len(said) == times - 1
            listening.close()
            until(lambda times=times: len(said) == times)
            time.sleep(0.2)  # it stays away
            assert len(said) == times
            listening = socket.create_server(address)
    listening.close()
    assert said[0].startswith("the cluster's first machine, 127.0.0.1:")


def test_without_ray_the_extra_is_named(main, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    message = "toy: --launcher: ray is not installed; expected the extra: pip install 'gm-lab[ray]'\n"
    assert main("--launcher", "ray") == (2, message)


def test_what_a_cell_needs_of_a_cluster():
    assert needed(gm_lab.RunSettings(device="cuda", workers=3)) == (1.0, 1.0)
    assert needed(gm_lab.RunSettings(device="cuda", gpus_per_cell=0.25)) == (1.0, 0.25)
    assert needed(gm_lab.RunSettings(ray_address="a:1", cpus_per_cell=4)) == (4, 0.0)


def test_cells_find_room_on_living_nodes():
    def node(alive, **resources):
        return {"Alive": alive, "Resources": resources}

    nodes = [node(True, CPU=8.0, GPU=2.0), node(True, CPU=3.0), node(False, CPU=64.0, GPU=8.0), node(True)]
    ray = SimpleNamespace(nodes=lambda: nodes)
    assert [room(ray, *need) for need in ((1, 0), (4, 0), (1, 1), (0.1, 0.1))] == [11, 2, 2, 20]


def test_cells_that_this_machine_has_no_room_for_are_refused(main, monkeypatch):
    closed = []
    fake = SimpleNamespace(__spec__=True, init=lambda **_: None, nodes=list, shutdown=lambda: closed.append(True))
    monkeypatch.setitem(sys.modules, "ray", fake)
    message = "toy: --gpus-per-cell: expected what this machine has, got cells that need 1 CPUs and 99 GPUs\n"
    assert main("--launcher", "ray", "--gpus-per-cell", 99) == (2, message)
    assert closed


CONTENTS = {
    "alone.py": "import whole, parts.used, installed\n"
    "def run_cell(cell, context):\n    import parts.used\n    return [{'a': cell * parts.used.factor() + whole.one}]\n"
    "def setup():\n    return None\n",
    "whole/__init__.py": "one = 1",
    "parts/used.py": "two = 2\ndef factor():\n    return two",
    "lib/installed.py": "import threading\nlock = threading.Lock()",
}
DRIVER = """import sys
sys.path[:0] = [".", "lib"]
import ray, alone
from gm_lab.launch import ray as launcher
sys.stdout.buffer.write(launcher.packed(ray, launcher.Job(alone.run_cell, ("a",), alone.setup)))
"""
WORKER = """import importlib, sys
sys.path.insert(0, "here/lib")
from gm_lab.launch import ray as launcher
job, context = launcher._prepared(sys.stdin.buffer.read())
print(job.run_cell(3, context), importlib.import_module("parts.used").two, "whole" in sys.modules)
"""


def test_what_only_the_driver_has_travels(tmp_path):
    """That is what was imported from the current folder; what is installed below it has its name elsewhere."""
    for name, text in CONTENTS.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(text)
    packed = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=tmp_path / "here", check=True, capture_output=True
    ).stdout
    said = subprocess.run([sys.executable, "-c", WORKER], cwd=tmp_path, check=True, capture_output=True, input=packed)
    assert said.stdout.decode() == "[{'a': 7}] 2 True\n"


def test_a_module_that_cannot_travel_is_named(tmp_path):
    (tmp_path / "alone.py").write_text("import threading\nlock = threading.Lock()\nrun_cell = setup = None\n")
    failed = subprocess.run([sys.executable, "-c", DRIVER], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert "BadInput: --launcher ray: cannot send alone to the workers: cannot pickle '_thread.lock'" in failed.stderr
