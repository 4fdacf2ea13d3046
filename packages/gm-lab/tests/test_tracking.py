"""Weights & Biases: an offline run read back, and every mode without an account or a network."""

import json
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

from gm_lab.tables import headline
from gm_lab.tracking import Tracker, has_key, reachable


def records(path):
    """What an offline run wrote, as W&B's own reader sees it."""
    (log,) = path.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in text.splitlines()]


def test_an_offline_run_read_back(run, tmp_path):
    path = tmp_path / "run"
    status, out, err = run("--run-dir", path, "--seed", 3, "--wandb", "auto")
    assert status == 0
    (folder,) = (path / "wandb").glob("offline-run-*")
    assert out.splitlines()[-1] == f"W&B run kept offline; to upload it: wandb sync {folder}"
    assert "wandb" not in err

    written = records(path)
    (begun,) = [record["run"] for record in written if record["type"] == "run"]
    assert begun["project"] == "toy"
    assert begun["config"]["update"]["seed"] == 3
    assert begun["config"]["update"]["estimators"] == ["ad", "lvc", "mine"]

    history = [record["history"]["item"] for record in written if record["type"] == "history"]
    assert [row["cells_done"] for row in history if "cells_done" in row] == list(range(1, 13))
    assert all(row["cell_seconds"] > 0 for row in history if "cells_done" in row)
    last = history[-1]
    assert last["figures/toy._type"] == "image-file"
    assert (folder / "files" / last["figures/toy.path"]).read_bytes() == (path / "figures" / "toy.png").read_bytes()

    results = json.loads((folder / "files" / last["results.path"]).read_text())
    assert results["columns"] == ["estimator", "mdp", "size", "accuracy", "bias"]
    rows = [line.split(",") for line in (path / "results.csv").read_text().splitlines()[1:]]
    assert [(row[0], row[3]) for row in results["data"]] == [(row[0], float(row[3])) for row in rows]
    claims = json.loads((folder / "files" / last["claims.path"]).read_text())
    (verdict,) = json.loads((path / "claims.json").read_text())
    assert claims["data"] == [[verdict["id"], verdict["claim"], verdict["verdict"], verdict["measured"]]]

    summary = {}
    for record in written:
        if record["type"] == "summary":
            summary |= record["summary"].get("update", {})
    exact = pd.read_csv(path / "results.csv").query("size == 8").groupby("estimator")["accuracy"].mean()
    assert {name: summary[f"{name}/accuracy"] for name in exact.index} == pytest.approx(exact.to_dict())
    assert summary["claims/TOY-1"] == verdict["verdict"]


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No account, and a server that refuses connections."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_DATA_DIR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    import wandb

    wandb.teardown()  # it remembers the environment of its first use
    yield f"http://127.0.0.1:{port}"
    wandb.teardown()


def track(mode, path, expected_warnings=0):
    """One short W&B run: the line on syncing and the warnings."""
    warnings = []
    tracker = Tracker(mode, path, "toy", "abcd1234", {"seed": 0}, warnings.append)
    start = time.monotonic()
    tracker.start()
    tracker.log({"x": 1.0}, step=1)
    assert time.monotonic() - start < 0.2
    tracker.finish(exit_code=0)
    tracker.finish(exit_code=0)
    assert len(warnings) == expected_warnings, warnings
    return tracker.sync_line, warnings


@pytest.mark.parametrize("key", [False, True])
def test_auto_without_an_account_or_a_network_is_offline(alone, monkeypatch, tmp_path, key):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    line, _ = track("auto", tmp_path)
    assert line.startswith(f"wandb sync {tmp_path}/wandb/offline-run-")


@pytest.mark.parametrize("key", [False, True])
def test_online_without_an_account_or_a_network_is_offline_with_a_warning(alone, monkeypatch, tmp_path, key):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    line, (warning,) = track("online", tmp_path, expected_warnings=1)
    reason = "is not reachable" if key else "has no API key configured (run `wandb login`)"
    assert warning == f"--wandb online: 127.0.0.1 {reason}; logging offline"
    assert line is not None


def test_the_users_own_folder_is_respected(alone, monkeypatch, tmp_path):
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "own"))
    line, _ = track("auto", tmp_path / "run")
    assert line.startswith(f"wandb sync {tmp_path}/own/wandb/offline-run-")
    assert not (tmp_path / "run").exists()


def test_a_failing_wandb_is_one_warning(alone, monkeypatch, tmp_path):
    import wandb

    def init(**settings):
        raise wandb.errors.CommError("no\nway")

    monkeypatch.setattr(wandb, "init", init)
    line, (warning,) = track("offline", tmp_path, expected_warnings=1)
    assert line is None
    assert warning == "W&B: CommError: no way; going on without it"


def test_disabled_does_nothing(alone, monkeypatch, tmp_path):
    assert track("disabled", tmp_path) == (None, [])
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert track("auto", tmp_path) == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_keys_are_found_in_the_environment_and_in_netrc(alone, monkeypatch, tmp_path):
    assert not has_key(alone)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    assert has_key(alone)
    assert not has_key("https://elsewhere.example")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert has_key("https://elsewhere.example")


def test_reachable(alone, monkeypatch):
    assert not reachable(alone)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert reachable(url)
        monkeypatch.setenv("http_proxy", url)
        assert reachable("http://behind.the.proxy.example")


def test_headline_names():
    frame = pd.DataFrame({"estimator": ["lvc", "ad"], "permutation": ["SSE", "EEE"], "accuracy": [0.5, 1.0]})
    assert headline(frame) == {"lvc/SSE/accuracy": 0.5, "ad/EEE/accuracy": 1.0}
