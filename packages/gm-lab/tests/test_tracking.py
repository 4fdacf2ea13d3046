"""Weights & Biases: online against a stand-in that records what it is sent, offline by reading the files back."""

import dataclasses
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wandb.util import get_core_path  # not later: wandb makes temporary folders when it is imported

import gm_lab
from gm_lab.analysis.statistics import mean_interval
from gm_lab.analysis.tables import headline
from gm_lab.run.live import LiveRows
from gm_lab.run.provenance import sessions
from gm_lab.track import tracker as tracking
from gm_lab.track.connection import has_key, reachable
from gm_lab.track.sender import Ledger, Sender, Sending
from gm_lab.track.tracker import Tracker

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture(autouse=True)
def temporary(monkeypatch, tmp_path_factory):
    """Where temporary files go; none may be left."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    gc.collect()
    assert [str(path) for path in folder.rglob("*")] == []


@pytest.fixture
def server(stand_in):
    with stand_in() as found:
        yield found


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No account, and a server that refuses connections."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["http_proxy", "HTTP_PROXY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    # where other tests keep every core busy, what gives way takes minutes
    launch = Tracker._launch
    monkeypatch.setattr(Tracker, "_launch", lambda self, gives_way: launch(self, gives_way=False))
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def connected(alone, monkeypatch):
    """Sets the environment up for a stand-in."""

    def call(server):
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setattr(tracking, "SEND_SECONDS", 0.5)

    return call


@pytest.fixture
def main(toy, tmp_path, capfd):
    """Runs the toy in this process: exit status, stdout, stderr."""

    def call(*flags):
        status = gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(tmp_path / "run"), "--workers", "1", *flags])
        return status, *capfd.readouterr()

    return call


def run_id(path):
    return (path / "config.yaml").read_text().split("run_id: ")[1].split("\n")[0].strip("'\"")


def curve_rows(rows):
    """What a run's history has of the toy's curves: by x, without W&B's own columns."""
    return {row["size"]: {key: value for key, value in row.items() if "/" in key} for row in rows if "size" in row}


def expected_curves(path):
    """The toy's curves as results.csv has them: by x, mean and band of each estimator and column."""
    rows = {}
    for (size, name), part in pd.read_csv(path / "results.csv").groupby(["size", "estimator"]):
        for column in ("accuracy", "bias"):
            if part[column].notna().all():  # the bias is NaN at the first size
                interval = mean_interval(part[column])
                ends = {"": interval.mean, "_low": interval.low, "_high": interval.high}
                for end, value in ends.items():
                    rows.setdefault(size, {})[f"curves/{name}/{column}{end}"] = pytest.approx(value)
    return rows


def by_name(server):
    """The runs of single units by their names."""
    return {run["displayName"]: name for name, run in server.runs.items() if run["jobType"] == "curve"}


def test_an_online_run_as_the_server_sees_it(main, server, connected, tmp_path):
    connected(server)
    path = tmp_path / "run"
    status, out, err = main("--wandb", "online", "--seed", "3")
    assert (status, "W&B" in out, "warning" in err) == (0, False, False), err
    whole = run_id(path)
    assert list(server.runs) == [whole]
    assert (server.runs[whole]["groupName"], server.runs[whole]["project"]) == (f"toy-{whole}", "toy")
    assert server.exit_codes == {whole: 0}

    config = server.config(whole)
    assert (config["seed"], config["estimators"]) == (3, ["ad", "lvc", "mine"])
    assert (config["workers"], config["device"], config["wandb"], config["run_dir"]) == (1, "cpu", "online", str(path))
    assert config["cells"]["mdp"] == [0, 1, 2, 3]
    assert None not in config.values()
    (begun, *_) = (json.loads(line) for line in (path / "sessions.jsonl").read_text().splitlines())
    assert config["origin"] == {name: begun[name] for name in config["origin"]}
    assert {"command", "versions", "machine"} <= set(config["origin"])
    (verdict,) = json.loads((path / "claims.json").read_text())
    assert server.summary[whole]["claims/TOY-1"] == verdict["verdict"]
    exact = pd.read_csv(path / "results.csv").query("size == 8").groupby("estimator")["accuracy"].mean()
    assert {name: server.summary[whole][f"{name}/accuracy"] for name in exact.index} == pytest.approx(exact.to_dict())
    assert {"summary", "claims", "figures/toy"} <= {name for row in server.history[whole] for name in row}
    (picture,) = [row["figures/toy"] for row in server.history[whole] if "figures/toy" in row]
    words = json.loads((path / "figures" / "captions.json").read_text())["toy"]
    assert picture["caption"] == f"{words['finding']} {words['caption']}"

    # the artifacts hold the files as they are
    kinds = {item["artifactTypeName"]: f"artifact{index}" for index, item in enumerate(server.artifacts)}
    for kind, name in (("results", "results.csv"), ("results", "claims.json"), ("figures", "figures/toy.png")):
        assert server.uploads[f"{kinds[kind]}/{Path(name).name}"] == (path / name).read_bytes()

    # all curves are keys of the one run, against their own x axis, with their bands
    assert curve_rows(server.history[whole]) == expected_curves(path)
    # W&B's short names: 1 name, 2 glob, 5 index of the step metric from one
    metrics = [(item.get("1"), item.get("2"), item.get("5")) for item in config["_wandb"]["m"]]
    x = metrics.index(("size", None, None)) + 1
    assert {(None, f"curves/{name}/*", x) for name in ("ad", "lvc", "mine")} <= set(metrics)

    # again: the run goes on, nothing is doubled
    requests = server.requests
    assert main("--wandb", "online", "--seed", "3")[0] == 0
    assert server.requests > requests
    assert list(server.runs) == [whole]
    assert [row["size"] for row in server.history[whole] if "size" in row] == [2, 4, 8]


def test_the_curves_of_a_run_that_has_grown_are_another_run(main, server, connected, tmp_path):
    """What was logged can't be taken back; the run before is marked, and the grown one goes on from then on."""
    connected(server)
    for mdps in ("2", "5", "5"):
        status, _, err = main("--wandb", "online", "--mdps", mdps)
        assert (status, "warning" in err) == (0, False), err
    before, after = server.runs
    assert before == run_id(tmp_path / "run")
    assert [server.runs[name]["tags"] for name in (before, after)] == [["toy", "superseded"], ["toy"]]
    assert server.runs[before]["groupName"] == server.runs[after]["groupName"]
    for name in (before, after):
        assert [row["size"] for row in server.history[name] if "size" in row] == [2, 4, 8]
    assert curve_rows(server.history[after]) == expected_curves(tmp_path / "run")
    assert {name for row in server.history[after] for name in row} >= {"summary", "figures/toy"}


@pytest.mark.parametrize("arrived", [0, 3])
def test_curves_of_which_a_part_arrived_are_completed(main, server, connected, tmp_path, arrived):
    """As where the process is killed between two rows."""
    connected(server)
    assert main("--wandb", "online")[0] == 0
    ledger = tmp_path / "run" / "wandb" / "sent.json"
    known = json.loads(ledger.read_text())
    known["online"]["curves"]["done"] = False
    ledger.write_text(json.dumps(known))
    ((name, rows),) = server.history.items()
    del rows[[row.get("size") for row in rows].index(2) + arrived :]
    server.summary[name]["_step"] = rows[-1]["_step"] if rows else -1
    assert main("--wandb", "online")[0] == 0
    (rows,) = server.history.values()
    assert [row["size"] for row in rows if "size" in row] == [2, 4, 8]
    assert json.loads(ledger.read_text())["online"]["curves"]["done"]


def test_flags_say_where_runs_go(main, server, connected, monkeypatch, tmp_path):
    connected(server)
    monkeypatch.setenv("WANDB_PROJECT", "of the environment")
    where = ["--wandb-project", "ours", "--wandb-entity", "us", "--wandb-group", "together"]
    assert main("--wandb", "online", *where)[0] == 0
    (run,) = server.runs.values()
    assert (run["project"], run["entity"], run["groupName"]) == ("ours", "us", "together")
    (tracked,) = [line for line in sessions(tmp_path / "run") if line["event"] == "tracked"]
    assert {name: tracked[name] for name in ("project", "entity", "group")} == {
        "project": "ours", "entity": "us", "group": "together"
    }  # fmt: skip
    # they are no part of what is computed: the run goes on elsewhere
    assert main("--wandb", "disabled", "--wandb-project", "another")[0] == 0


def test_a_run_of_a_sweep_is_the_one_that_its_agent_waits_for(toy, server, connected, monkeypatch, tmp_path, capfd):
    connected(server)
    monkeypatch.setenv("WANDB_PROJECT", "of the sweep")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "named123")
    trained = gm_lab.Curves(by=("estimator",), x="size", y=("accuracy", "bias"), alone="mdp")
    experiment = dataclasses.replace(toy.EXPERIMENT, curves=(trained,))
    flags = ["--run-dir", str(tmp_path / "run"), "--mdps", "2", "--estimators", "ad", "--wandb", "online"]
    assert gm_lab.main(experiment, flags) == 0
    assert "warning" not in capfd.readouterr().err
    ((name, run),) = server.runs.items()  # seeds are none of what the sweep compares
    assert (name, run["sweep"], run["project"]) == ("named123", "sweep123", "of the sweep")
    assert curve_rows(server.history[name]) == expected_curves(tmp_path / "run")


def test_an_empty_name_is_refused(main):
    status, _, err = main("--wandb-project", "")
    assert (status, err) == (2, "toy: --wandb-project: expected a name, got \n")


def test_units_that_are_trained_alone_have_runs_of_their_own(toy, server, connected, tmp_path, capfd):
    connected(server)
    path = tmp_path / "run"
    trained = gm_lab.Curves(by=("estimator",), x="size", y=("accuracy", "bias"), alone="mdp")
    experiment = dataclasses.replace(toy.EXPERIMENT, curves=(trained,))
    flags = ["--run-dir", str(path), "--workers", "1", "--mdps", "2", "--wandb", "online", "--estimators", "ad", "lvc"]
    for _ in range(2):  # the second has nothing to send
        assert gm_lab.main(experiment, flags) == 0
        assert "warning" not in capfd.readouterr().err
        whole = run_id(path)
        assert set(by_name(server)) == {f"{name} mdp={mdp}" for name in ("ad", "lvc") for mdp in (0, 1)}
        assert {run["groupName"] for run in server.runs.values()} == {f"toy-{whole}"}
        assert curve_rows(server.history[whole]) == expected_curves(path)
        lvc = by_name(server)["lvc mdp=1"]
        assert server.runs[lvc]["tags"] == ["toy", "lvc"]
        config = server.config(lvc)
        # the unit's own number is apart from the root of every random stream
        assert (config["curve"], config["seed"]) == ({"estimator": "lvc", "mdp": 1}, 0)
        rows = pd.read_csv(path / "results.csv").query("estimator == 'lvc' and mdp == 1")
        assert [row["size"] for row in server.history[lvc]] == list(rows["size"])
        assert [row["accuracy"] for row in server.history[lvc]] == pytest.approx(list(rows["accuracy"]))
        assert server.summary[lvc]["accuracy"]["mean"] == pytest.approx(rows["accuracy"].mean())


def records(log):
    """What an offline run wrote, as W&B's own reader sees it."""
    command = [get_core_path(), "leet", "inspect", "--no-observability", "-json", "--run-file", str(log)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in text.splitlines()]


def test_an_offline_run_read_back(alone, main, tmp_path):
    path = tmp_path / "run"
    for _ in range(2):  # the second writes the same again in the place of the first
        status, out, err = main("--wandb", "auto")
        assert status == 0
        runs = f"{path}/wandb/offline-run-*-{run_id(path)}*"
        assert out.splitlines()[-1] == f"W&B run kept offline; to upload it: wandb sync {runs}"
        assert "wandb" not in err
        (log,) = path.glob("wandb/offline-run-*/run-*.wandb")
    whole = run_id(path)
    assert log.stem == f"run-{whole}"
    found = {whole: records(log)}
    history = {
        name: [record["history"]["item"] for record in written if record["type"] == "history"]
        for name, written in found.items()
    }
    begun = {name: record["run"] for name, written in found.items() for record in written if record["type"] == "run"}
    assert {run["run_group"] for run in begun.values()} == {f"toy-{whole}"}
    origin = json.loads((path / "sessions.jsonl").read_text().splitlines()[0])
    for run in begun.values():
        recorded = run["config"]["update"]["origin"]
        assert recorded["command"] == origin["command"]
        assert recorded.get("git_commit") == origin.get("git_commit")
    assert begun[whole]["tags"] == ["toy"]
    axes = {
        name: {
            metric.get("name") or metric["glob_name"]: metric.get("step_metric")
            for metric in (record["metric"] for record in written if record["type"] == "metric")
        }
        for name, written in found.items()
    }
    assert axes[whole] == {"cells_done": None, "cell_seconds": "cells_done", "size": None} | {
        f"curves/{name}/*": "size" for name in ("ad", "lvc", "mine")
    }
    metrics = {
        name: value
        for record in found[whole]
        if record["type"] == "summary"
        for name, value in record["summary"]["update"].items()
    }
    at_last = pd.read_csv(path / "results.csv").query("size == 8").groupby("estimator")["accuracy"].mean()
    assert {name: metrics[f"{name}/accuracy"] for name in at_last.index} == pytest.approx(at_last.to_dict())
    (verdict,) = json.loads((path / "claims.json").read_text())
    assert metrics["claims/TOY-1"] == verdict["verdict"]
    artifacts = {
        record["artifact"]["type"]: {item["path"]: item for item in record["artifact"]["manifest"]["contents"]}
        for record in found[whole]
        if record["type"] == "artifact"
    }
    results = {"results.csv", "summary.csv", "claims.json", "config.yaml", "sessions.jsonl"}
    assert set(artifacts["results"]) == results
    assert set(artifacts["figures"]) == {"toy.png"}
    for item in (artifacts["results"]["results.csv"], artifacts["figures"]["toy.png"]):
        (file,) = path.rglob(f"{'figures/' * item['path'].endswith('png')}{item['path']}")
        assert Path(item["local_path"]).read_bytes() == file.read_bytes()
    assert curve_rows(history[whole]) == expected_curves(path)
    (last,) = [row for row in history[whole] if "claims.path" in row]
    (folder,) = path.glob(f"wandb/offline-run-*-{whole}")
    claims = json.loads((folder / "files" / last["claims.path"]).read_text())
    assert claims["data"] == [[verdict["id"], verdict["claim"], verdict["verdict"], verdict["measured"]]]
    assert (folder / "files" / last["figures/toy.path"]).read_bytes() == (path / "figures/toy.png").read_bytes()


def test_the_line_that_uploads_an_offline_run_does_so(stand_in, alone, main, monkeypatch, tmp_path):
    path, home = tmp_path / "run", tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    _, out, _ = main("--wandb", "offline")
    shutil.rmtree(home, ignore_errors=True)  # as on another machine
    another = tmp_path / "another"
    (another / "tmp").mkdir(parents=True)  # wandb's own command keeps a log here, or in ./wandb
    line = out.splitlines()[-1].partition("to upload it: ")[2]
    with stand_in() as server:
        account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40}
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        machine = os.environ | account | {"PATH": places, "TMPDIR": str(another / "tmp")}
        subprocess.run(line, shell=True, check=True, capture_output=True, env=machine, cwd=another)
        (rows,) = server.history.values()
        assert curve_rows(rows) == expected_curves(path)
        assert set(server.exit_codes.values()) == {0}
        (results,) = (number for number, item in enumerate(server.artifacts) if item["artifactTypeName"] == "results")
        assert server.uploads[f"artifact{results}/results.csv"] == (path / "results.csv").read_bytes()


def test_a_server_that_refuses_the_key(stand_in, main, connected, tmp_path):
    with stand_in(refuse=True) as server:
        connected(server)
        status, out, err = main("--wandb", "online", "--estimators", "ad", "lvc")
    assert status == 0
    assert "logging offline" in err
    assert "wandb sync" in out
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*"))) == 1


def test_a_slow_server_is_waited_for_a_limited_time(stand_in, main, connected, tmp_path, until, monkeypatch):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 4.0)
    with stand_in(delay=100) as server:
        connected(server)
        status, _, err = main("--wandb", "online")
    assert status == 0
    send = f"going on without it. The same settings with --run-dir {tmp_path / 'run'} send the rest"
    assert f"W&B did not finish in 4 s; {send}" in err
    assert (tmp_path / "run" / "claims.json").exists()
    until(lambda: not survivors(tmp_path))  # a killed process takes a moment to be gone


def survivors(path):
    """Processes that still have to do with a run directory."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            environment = (cmdline.parent / "environ").read_bytes()
        except OSError:
            continue
        if str(path).encode() in environment and int(cmdline.parent.name) != os.getpid():
            found.append(cmdline.read_bytes())
    return found


@dataclass(frozen=True)
class Cell:
    name: str


def live_tracker(path, warnings):
    kinds = [gm_lab.Curves(by=("game",), x="updates", y=("score",), alone="seed")]
    tracker = Tracker("online", path, "toy", "abcd1234", warnings.append, kinds)
    tracker.start({})
    return tracker


def test_live_rows_arrive_while_the_cell_runs_once_each(server, connected, tmp_path, until, monkeypatch):
    connected(server)
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0)
    (tmp_path / "cells").mkdir()
    warnings = []
    everything = [{"game": "Qbert", "seed": 0, "updates": step, "score": step / 2} for step in range(5, 60, 5)]

    def sent():
        return [row for name, rows in server.history.items() for row in rows if "updates" in row]

    tracker = live_tracker(tmp_path, warnings)
    live = LiveRows(tmp_path, Cell("one"), step="updates")
    for row in everything[:4]:
        live.append(row)
    until(lambda: len(sent()) == 4, seconds=40)
    # the driver is killed; the cell goes on from a checkpoint that is two rows old
    tracker._process.kill()
    tracker.finish(1)
    again = LiveRows(tmp_path, Cell("one"), step="updates")
    for row in everything[2:8]:
        again.append(row)
    tracker = live_tracker(tmp_path, warnings)
    for row in everything[8:]:
        again.append(row)
    (tmp_path / "cells" / f"{again.path.stem}.json").touch()
    until(lambda: server.exit_codes, seconds=20)
    tracker.finish(1)
    assert [(row["updates"], row["score"]) for row in sent()] == [(row["updates"], row["score"]) for row in everything]
    assert list(by_name(server)) == ["Qbert seed=0"]
    assert warnings == ["W&B: its process ended with SIGKILL; going on without it"]


def test_what_was_begun_beside_the_cells_is_taken_over_and_sent_once(
    main, toy, server, connected, tmp_path, until, monkeypatch
):
    """By a process of normal priority, wherever the other one is by then."""
    connected(server)
    assert main("--wandb", "disabled")[0] == 0
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "UNNOTICED_SECONDS", 0.3)
    launched, launch = [], Tracker._launch
    monkeypatch.setattr(
        Tracker, "_launch", lambda self, gives_way: launched.append(gives_way) or launch(self, gives_way)
    )
    warnings = []
    tracker = Tracker("online", tmp_path / "run", "toy", "abcd1234", warnings.append, toy.EXPERIMENT.curves)
    tracker.start({})
    until(lambda: server.runs, seconds=40)
    tracker.finish(0)
    assert warnings == []
    assert launched == [True, False]
    assert server.exit_codes == {"abcd1234": 0}
    assert curve_rows(server.history["abcd1234"]) == expected_curves(tmp_path / "run")
    assert [row["size"] for row in server.history["abcd1234"] if "size" in row] == [2, 4, 8]
    assert "claims/TOY-1" in server.summary["abcd1234"]


def track(mode, path, expected_warnings=0):
    """A W&B run that is interrupted before it has anything to show: the line on syncing and the warnings."""
    warnings = []
    tracker = Tracker(mode, path, "toy", "abcd1234", warnings.append)
    tracker.start({"seed": 0})
    tracker.progress(1, 0.5)
    tracker.finish(exit_code=1)
    tracker.finish(exit_code=1)
    assert len(warnings) == expected_warnings, warnings
    return tracker.sync_line, warnings


@pytest.mark.parametrize("key", [False, True])
def test_online_without_an_account_or_a_network_is_offline_with_a_warning(alone, monkeypatch, key):
    from gm_lab.track.connection import chosen_mode

    if key:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    warnings = []
    assert chosen_mode("auto", alone, warnings.append) == "offline"
    assert warnings == []
    assert chosen_mode("online", alone, warnings.append) == "offline"
    reason = "is not reachable" if key else "has no API key configured (run `wandb login`)"
    assert warnings == [f"--wandb online: 127.0.0.1 {reason}; logging offline"]


def test_the_users_own_folder_is_respected_and_progress_logged(alone, monkeypatch, tmp_path, until):
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("WANDB_PROJECT", "chosen")
    monkeypatch.setenv("WANDB_RUN_GROUP", "together")
    monkeypatch.setenv("WANDB_ENTITY", "us")
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0)
    # of modules of these names beside the run, none is imported
    for name in ("queue", "secrets", "wandb", "gm_lab"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    older = tmp_path / "own" / "wandb" / "offline-run-20200101_000000-abcd1234"
    older.mkdir(parents=True)
    tracker = Tracker("auto", tmp_path / "run", "toy", "abcd1234", pytest.fail)
    tracker.start({"run_dir": "r\udcff"})
    until(lambda: tracker._hear() or tracker.sync_line)
    tracker.progress(1, 0.5)
    tracker.finish(exit_code=1)
    assert tracker.sync_line == f"wandb sync {tmp_path}/own/wandb/offline-run-*-abcd1234*"
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "executed").exists()
    assert older.exists()
    (log,) = tmp_path.glob("own/wandb/offline-run-*/run-*.wandb")
    rows = [record["history"]["item"] for record in records(log) if record["type"] == "history"]
    assert [(row["cells_done"], row["cell_seconds"]) for row in rows] == [(1, 0.5)]
    (run,) = [record["run"] for record in records(log) if record["type"] == "run"]
    assert [run[name] for name in ("project", "run_group", "entity")] == ["chosen", "together", "us"]
    assert run["config"]["update"]["run_dir"] == "r\\udcff"


def test_a_process_that_dies_is_one_warning(alone, monkeypatch, tmp_path, until):
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "ALONE", "import nowhere")
    warnings = []
    tracker = Tracker("offline", tmp_path, "toy", "abcd1234", warnings.append)
    tracker.start({})
    until(lambda: tracker._hear() or warnings)
    tracker.finish(exit_code=1)
    reason = "exit status 1: ModuleNotFoundError: No module named 'nowhere'"
    assert warnings == [f"W&B: its process ended with {reason}; going on without it"]


@pytest.mark.parametrize("name", ["*", "../../victim", "a/b", "", "a" * 33, None, 7.5])
def test_a_run_id_that_is_no_name_is_refused(tmp_path, monkeypatch, name):
    """It is read from config.yaml, perhaps somebody else's, and becomes part of the folders that are replaced."""
    about = {"run_dir": str(tmp_path), "curves": [], "run_id": name, "config": {}, "app": "toy", "sweep": False}
    monkeypatch.setattr(Sender, "_begun", lambda self: pytest.fail("begun"))
    with pytest.raises(ValueError, match="expected letters and digits as run_id"):
        Sender(about, pytest.fail)


def test_a_folder_that_wandb_cannot_take_is_said(tmp_path):
    about = {
        "run_dir": str(tmp_path / "r\udcff"),
        "curves": [],
        "run_id": "abcd",
        "config": {},
        "app": "toy",
        "sweep": False,
    }
    with pytest.raises(ValueError, match="expected a run directory or WANDB_DIR whose name is UTF-8"):
        Sender(about, pytest.fail)


@pytest.mark.parametrize("run", ["*", "../victim", "abcd-1", "abcd-../../x", "", None, 7])
def test_no_run_is_gone_on_with_whose_id_is_no_name(tmp_path, run):
    curves = {"run": run, "digest": "00000000", "step": 3, "done": True}
    (tmp_path / "sent.json").write_text(json.dumps({"online": {"curves": curves}}))
    assert Ledger(tmp_path / "sent.json", "online").curves is None


def test_what_is_on_its_way_is_remembered(tmp_path):
    sending = Sending("abcd1234-0123abcd", "0123abcd", 3)
    Ledger(tmp_path / "sent.json", "online").curves = sending
    assert Ledger(tmp_path / "sent.json", "online").curves == sending
    assert Ledger(tmp_path / "sent.json", "offline").curves is None


@settings(deadline=None, derandomize=True)
@given(json_values)
def test_no_record_of_what_was_sent_is_believed_but_ours(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "sent.json"
    path.write_text(json.dumps(content))
    ledger = Ledger(path, "offline")
    ledger.note("mine")
    assert ledger.curves is None
    assert Ledger(path, "offline").done("mine")
    assert not Ledger(path, "online").done("mine")


def test_a_failing_wandb_is_one_warning(alone, monkeypatch, tmp_path, until):
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file"))
    warnings = []
    tracker = Tracker("offline", tmp_path, "toy", "abcd1234", warnings.append)
    tracker.start({})
    until(lambda: tracker._hear() or warnings)
    tracker.finish(exit_code=1)
    assert warnings == [f"W&B: FileExistsError: [Errno 17] File exists: '{tmp_path}/file'; going on without it"]


def test_a_run_that_is_interrupted_early_leaves_nothing(alone, tmp_path):
    assert track("offline", tmp_path) == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_disabled_does_nothing(alone, monkeypatch, tmp_path):
    assert track("disabled", tmp_path) == (None, [])
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert track("auto", tmp_path) == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_read_does_not_hold_the_run_up(alone, monkeypatch, tmp_path, until):
    monkeypatch.setattr(tracking, "QUIET_SECONDS", 0.0)
    warnings = []
    tracker = Tracker("offline", tmp_path, "toy", "abcd1234", warnings.append)
    tracker.start({})
    until(lambda: tracker._process)
    os.kill(tracker._process.pid, signal.SIGSTOP)
    for step in range(20_000):  # it would never end if it waited
        tracker.progress(step, 0.1)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr(tracking, "UNNOTICED_SECONDS", 0.1)
    tracker.finish(1)
    assert [warning.partition(";")[0] for warning in warnings] == ["W&B did not finish in 0 s"]


DRIVER = """import pathlib, sys, time
from gm_lab.track import tracker
tracker.QUIET_SECONDS = 0.0
tracking = tracker.Tracker("offline", pathlib.Path(sys.argv[1]), "toy", "abcd1234", print)
tracking.start({})
while tracking._process is None:
    time.sleep(0.01)
print("started", flush=True)
time.sleep(60)
"""


def test_a_driver_that_is_killed_leaves_no_temporary_files(alone, tmp_path, temporary, until):
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        assert len(list(temporary.iterdir())) == 1
        process.kill()
    until(lambda: not list(temporary.iterdir()))


def test_keys_are_found_in_the_environment_and_in_netrc(alone, monkeypatch, tmp_path):
    assert not has_key(alone)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    assert has_key(alone)
    assert not has_key("https://elsewhere.example")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert has_key("https://elsewhere.example")


def test_reachable(alone, monkeypatch):
    assert not reachable(alone)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert reachable(url)
        monkeypatch.setenv("http_proxy", url)
        assert reachable("http://behind.the.proxy.example")


def test_headline_names():
    frame = pd.DataFrame({"estimator": ["lvc", "ad"], "permutation": ["SSE", "EEE"], "accuracy": [0.5, 1.0]})
    assert headline(frame) == {"lvc/SSE/accuracy": 0.5, "ad/EEE/accuracy": 1.0}


class Diagnosed:
    """A diagnosis of one estimator with one source."""

    repeats, env_steps, plan, meanings, notes = 8, 960, types.SimpleNamespace(seed=3), {}, ()

    def rows(self):
        whole = {"estimator": "ad", "measure": "bias_sq", "source": "", "value": 0.5, "low": 0.4, "high": 0.6}
        return [whole, {**whole, "source": "hessian", "value": 0.45}]


def test_a_diagnosis_is_sent_with_its_numbers_table_and_picture(alone, tmp_path):
    line = gm_lab.log_diagnosis(Diagnosed(), tmp_path, caption="CartPole.", mode="auto", project="mine")
    assert line.startswith(f"wandb sync {tmp_path}/wandb/offline-run-*")
    (log,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    written = records(log)
    (begun,) = [record["run"] for record in written if record["type"] == "run"]
    assert begun["project"] == "mine"
    assert {"repeats": 8, "env_steps": 960, "seed": 3}.items() <= begun["config"]["update"].items()
    told = [record["summary"]["update"] for record in written if record["type"] == "summary"]
    numbers = {name: value for update in told for name, value in update.items()}
    assert [numbers[f"ad/bias_sq/{name}"] for name in ("all/value", "all/low", "hessian/value")] == [0.5, 0.4, 0.45]
    rows = [record["history"]["item"] for record in written if record["type"] == "history"]
    (last,) = [row for row in rows if "summary.path" in row]
    table = json.loads((log.parent / "files" / last["summary.path"]).read_text())
    assert table["columns"] == ["estimator", "measure", "source", "value", "low", "high"]
    assert table["data"][1] == ["ad", "bias_sq", "hessian", 0.45, 0.4, 0.6]
    picture = (log.parent / "files" / last["figures/diagnosis.path"]).read_bytes()
    assert picture == (tmp_path / "figures" / "diagnosis.png").read_bytes()


def test_a_diagnosis_that_is_not_sent_has_its_files_all_the_same(alone, monkeypatch, tmp_path):
    monkeypatch.setattr(Tracker, "_launch", lambda *_: pytest.fail("W&B was started"))
    assert gm_lab.log_diagnosis(Diagnosed(), tmp_path) is None
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert files == ["claims.json", "figures/captions.json", "figures/diagnosis.png", "results.csv", "summary.csv"]
