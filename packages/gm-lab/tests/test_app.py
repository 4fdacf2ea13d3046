"""The life of an app: flags, launchers, run directories, refusals, exit statuses."""

import dataclasses
import errno
import importlib
import json
import os
import re
import resource
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import gm_lab
from gm_lab.store import in_units
from gm_lab.tables import read_results


@pytest.mark.parametrize(
    "how",
    [
        ("--workers", 3),
        ("--workers", 3, "--launcher", "threads"),
    ],
    ids=str,
)
def test_results_do_not_depend_on_how_they_are_computed(run, tmp_path, undisturbed, how):
    status, _, err = run("--run-dir", tmp_path / "run", "--mdps", 10, *how)
    assert status == 0, err
    assert (tmp_path / "run" / "results.csv").read_bytes() == undisturbed


def test_a_run_directory_holds_what_the_design_says(run, toy, tmp_path):
    path = tmp_path / "run"
    status, out, err = run("--run-dir", path)
    assert status == 0
    names = sorted(str(item.relative_to(path)) for item in path.rglob("*") if item.parent.name != "cells")
    drawn = ["figures", "figures/toy.png", "figures/toy.svg"]
    assert names == [
        ".lock",
        "cells",
        "claims.json",
        "config.yaml",
        *drawn,
        *("log.txt", "results.csv", "sessions.jsonl", "summary.csv"),
    ]
    assert len(list((path / "cells").iterdir())) == 12
    config = yaml.safe_load((path / "config.yaml").read_text())
    assert config["settings"] == {"seed": 0, "mdps": 4, "estimators": ["ad", "lvc", "mine"], "scale": 1.0}
    assert config["versions"]["numpy"] == np.__version__
    (claim,) = json.loads((path / "claims.json").read_text())
    assert claim["id"] == "TOY-1"
    assert claim["verdict"] in {"holds", "does not hold"}
    assert claim["measured"] == "4 problems"
    assert "TOY-1" in out
    assert str(path / "results.csv") in out
    assert err.startswith("toy: 12/12 cells")
    frame = read_results(path / "results.csv")
    assert list(zip(frame["estimator"], frame["size"], frame["mdp"], strict=True)) == [
        (name, size, mdp) for name in ("ad", "lvc", "mine") for size in (2, 4, 8) for mdp in range(4)
    ]
    assert frame["bias"].isna().sum() == 12
    assert frame["bias"].max() == 0.1 + 0.2
    again = path / "figures" / "toy.svg"
    before = again.read_bytes()
    again.unlink()
    assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(path), "--wandb", "disabled"]) == 0
    assert again.read_bytes() == before


def test_default_run_dir(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gm_lab.main(toy.EXPERIMENT, ["--mdps", "1", "--workers", "1", "--wandb", "disabled"]) == 0
    (path,) = (tmp_path / "runs" / "toy").iterdir()
    assert (path / "results.csv").exists()


def test_help(run):
    status, out, _ = run("--help")
    assert status == 0
    for text in ("--run-dir", "An", "unfinished run found there is resumed", "--mdps INT", "How many problems."):
        assert text in out


BAD = {
    "unknown flag": (["--nope", "3"], "expected a flag that --help lists, got --nope 3"),
    "misspelt flag": (["--sed", "3"], "expected a flag that --help lists, got --sed 3 (did you mean --seed?)"),
    "stray word": (["stray"], "expected a flag that --help lists, got stray"),
    "not an integer": (["--mdps", "x"], "--mdps: expected an integer, got 'x'"),
    "fraction": (["--mdps=1.5"], "--mdps: expected an integer, got '1.5'"),
    "not a number": (["--scale", "y"], "--scale: expected a number, got 'y'"),
    "NaN": (["--scale", "nan"], "--scale: expected finite numbers, got nan"),
    "infinity": (["--scale", "inf"], "--scale: expected finite numbers, got inf"),
    "missing value": (["--mdps"], "--mdps: expected 1 value, got none"),
    "empty list": (["--estimators"], "--estimators: expected at least one value, got none"),
    "not a choice": (["--launcher", "dask"], "--launcher: expected one of local, threads, ray, got 'dask'"),
    "no part of a core": (["--cpus-per-cell", "0"], "--cpus-per-cell: expected a positive number, got 0.0"),
    "negative GPUs": (["--gpus-per-cell", "-1"], "--gpus-per-cell: expected a number of at least 0, got -1.0"),
    "address of nothing": (["--ray-address", "auto"], "--ray-address: expected --launcher ray beside it, got auto"),
    "not a W&B mode": (["--wandb", "on"], "--wandb: expected one of auto, online, offline, disabled, got 'on'"),
    "optional integer": (["--workers", "many"], "--workers: expected an integer, got 'many'"),
    "no worker": (["--workers", "0"], "--workers: expected a positive integer, got 0"),
    "negative seed": (["--seed", "-1"], "--seed: expected an integer of at least 0, got -1"),
    "refused by the app": (["--mdps", "-3"], "--mdps: expected a positive integer, got '-3'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_flags_get_one_line(toy, capfd, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    flags, message = BAD[name]
    assert gm_lab.main(toy.EXPERIMENT, flags) == 2
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"toy: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_bad_flags_end_the_program_with_status_2(run):
    assert run("--mdps", "x") == (2, "", "toy: --mdps: expected an integer, got 'x'\n")


@pytest.fixture
def main(toy, capfd, tmp_path):
    """Runs the toy in this process on one worker: exit status and stderr."""

    def call(*flags):
        default = ["--run-dir", str(tmp_path / "run"), "--wandb", "disabled", "--workers", "1", "--mdps", "2"]
        status = gm_lab.main(toy.EXPERIMENT, [*default, *map(str, flags)])
        return status, capfd.readouterr().err

    return call


def test_other_settings_are_refused(main, tmp_path):
    path = tmp_path / "run"
    assert main()[0] == 0
    before = (path / "results.csv").read_bytes()
    holds = f"toy: --run-dir: {path} holds a run of other settings: "
    assert main("--seed", 1, "--mdps", 3) == (2, holds + "seed is 0 there, but 1 was asked for\n")
    assert main("--estimators", "ad") == (
        2,
        holds + "estimators is ['ad', 'lvc', 'mine'] there, but ['ad'] was asked for\n",
    )
    assert main("--workers", 2, "--launcher", "threads", "--device", "cuda")[0] == 0
    assert (path / "results.csv").read_bytes() == before


def test_a_folder_of_something_else_is_refused_and_left_alone(main, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    message = f"toy: --run-dir: expected a run directory or an empty one, got {other}, which holds thesis.tex\n"
    assert main("--run-dir", other) == (2, message)
    assert [item.name for item in other.iterdir()] == ["thesis.tex"]
    (other / "thesis.tex").unlink()
    assert main("--run-dir", other)[0] == 0


@pytest.mark.parametrize("text", ["", "]", "app: toy", "- 1"])
def test_a_damaged_config_is_refused(main, tmp_path, text):
    assert main()[0] == 0
    config = tmp_path / "run" / "config.yaml"
    config.write_text(text)
    message = f"toy: --run-dir: expected {config} as this program writes it, got another or a damaged file\n"
    assert main() == (2, message)


@pytest.mark.parametrize("damage", ["truncated", "empty", "altered", "other columns", "not a record"])
def test_damaged_cells_are_computed_again(main, tmp_path, damage):
    assert main()[0] == 0
    results = tmp_path / "run" / "results.csv"
    before = results.read_bytes()
    cell = min((tmp_path / "run" / "cells").iterdir())
    text = cell.read_text()
    damaged = {
        "truncated": text[:100],
        "empty": "",
        "altered": text.replace('"accuracy": ', '"accuracy": 1', 1),
        "other columns": text.replace('"accuracy"', '"acuracy"'),
        "not a record": "[]",
    }[damage]
    assert damaged != text
    cell.write_text(damaged)
    status, err = main()
    assert status == 0
    assert err.startswith(f"toy: warning: {cell} is damaged (")
    assert "computing it again" in (tmp_path / "run" / "log.txt").read_text()
    assert results.read_bytes() == before
    assert cell.read_text() == text


def test_other_versions_are_warned_of(main, tmp_path):
    assert main()[0] == 0
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(f"numpy: {np.__version__}", "numpy: 1.0"))
    assert main()[1].startswith(f"toy: warning: this run was begun with numpy 1.0, now {np.__version__}\n")


def test_full_disk_keeps_the_finished_cells(main, tmp_path, monkeypatch):
    sync, written = os.fsync, []

    def full_after_four(number):
        written.append(number)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(number)

    monkeypatch.setattr(os, "fsync", full_after_four)
    status, err = main()
    monkeypatch.undo()
    assert status == 2
    assert len(err.splitlines()) == 1
    assert err.startswith(f"toy: cannot write {tmp_path / 'run' / 'cells'}/")
    free = in_units(shutil.disk_usage(tmp_path).free)[:2]  # a few digits: others use the disk as well
    needs = rf"No space left on device: it needs \d{{3}} bytes, {re.escape(free)}.* is free; "
    assert re.search(needs + "with more room the same --run-dir goes on from here\n$", err)
    assert len(list((tmp_path / "run" / "cells").glob("*.json"))) == 3  # the first write is config.yaml
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert main()[0] == 0


def test_a_limit_of_the_system_on_file_sizes(tmp_path, toy):
    """The kernel itself refuses results.csv, which is longer than any cell."""
    path = tmp_path / "run"
    command = [sys.executable, toy.__file__, "--run-dir", str(path), "--wandb", "disabled"]
    limited = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert limited.returncode == 2
    assert limited.stderr.splitlines()[-1] == f"toy: cannot write {path / 'results.csv'}: File too large"
    assert "Traceback" not in limited.stderr
    assert len(list((path / "cells").glob("*.json"))) == 12
    assert gm_lab.main(toy.EXPERIMENT, [*command[2:], "--workers", "1"]) == 0


def test_read_only_folder(main, tmp_path, monkeypatch):
    plain_open = Path.open

    def read_only(path, mode="r", *args, **kwargs):
        if mode != "r" and path.is_relative_to(tmp_path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return plain_open(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", read_only)
    assert main() == (2, f"toy: cannot write {tmp_path / 'run' / '.lock'}: Read-only file system\n")


def test_a_file_in_place_of_the_folder(main, tmp_path):
    (tmp_path / "run").touch()
    assert main() == (2, f"toy: cannot write {tmp_path / 'run'}: File exists\n")


def test_an_error_in_a_figure_is_one_line(main, toy, tmp_path, monkeypatch):
    def figures(settings, frame):
        raise RuntimeError("no\npaper")

    monkeypatch.setattr(toy, "EXPERIMENT", gm_lab.Experiment(**(vars(toy.EXPERIMENT) | {"figures": figures})))
    status, err = main()
    log = tmp_path / "run" / "log.txt"
    assert (status, err.splitlines()[-1]) == (1, f"toy: RuntimeError: no paper (traceback in {log})")
    assert "in figures" in log.read_text()
    assert (tmp_path / "run" / "results.csv").exists()


def test_importing_is_light_and_disabled_touches_nothing_of_wandb(tmp_path):
    script = (
        "import sys, gm_lab, runpy\n"
        "assert not {'pandas', 'matplotlib', 'wandb', 'scipy', 'rich', 'tyro', 'yaml', 'torch'} & set(sys.modules)\n"
        "toy = runpy.run_path(sys.argv[1])\n"
        "assert gm_lab.main(toy['EXPERIMENT'], sys.argv[2:]) == 0\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('wandb', 'torch', 'matplotlib.pyplot')]\n"
    )
    toy = str(Path(__file__).with_name("toy.py"))
    flags = ["--run-dir", str(tmp_path / "run"), "--wandb", "disabled", "--launcher", "threads"]
    done = subprocess.run([sys.executable, "-c", script, toy, *flags], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "wandb").exists()


def test_nothing_is_drawn_while_a_thread_still_imports(tmp_path, monkeypatch):
    """Two threads that import matplotlib from different ends find it half-made, as where all cells were done before."""
    toy, ready = runpy.run_path(str(Path(__file__).with_name("toy.py"))), []

    def slowly():
        time.sleep(0.3)
        ready.append(True)

    monkeypatch.setattr("gm_lab.app._import_what_reports_need", slowly)
    experiment = dataclasses.replace(toy["EXPERIMENT"], figures=lambda *_: ready.append("drawn") or {})
    flags = ["--run-dir", str(tmp_path / "run"), "--wandb", "disabled", "--launcher", "threads"]
    assert gm_lab.main(experiment, flags) == 0
    assert ready == [True, "drawn"]


@pytest.mark.parametrize("flags", [["--help"], ["--wandb", "disabled", "--launcher", "threads"]])
def test_output_that_nobody_reads_is_no_error(tmp_path, flags):
    toy, reader = Path(__file__).with_name("toy.py"), "import os; os.close(0)"
    command = [sys.executable, str(toy), *flags] + ([] if "--help" in flags else ["--run-dir", str(tmp_path / "run")])
    with subprocess.Popen([sys.executable, "-c", reader], stdin=subprocess.PIPE) as head:
        head.wait()
        done = subprocess.run(command, stdout=head.stdin, stderr=subprocess.PIPE, check=False, text=True)
    assert done.returncode == 1
    assert "Error" not in done.stderr
    assert "--help" in flags or (tmp_path / "run" / "results.csv").exists()


def test_a_gpu_has_one_worker():
    from gm_lab import RunSettings
    from gm_lab.settings import worker_count

    assert worker_count(RunSettings(device="cuda:1", workers=4)) == 1
    assert worker_count(RunSettings(device="auto", workers=4)) == 4


@pytest.fixture
def no_cluster():
    """A socket that accepts connections and says nothing, as some firewalls do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "{}:{}".format(*server.getsockname())


def test_a_cluster_that_does_not_answer_is_refused_soon(main, no_cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=None))
    start = time.monotonic()
    expected = f"toy: --ray-address: expected a running Ray cluster at {no_cluster}, got: timed out\n"
    assert main("--launcher", "ray", "--ray-address", no_cluster) == (2, expected)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "expected a running Ray cluster at 127.0.0.1:1, got: Connection refused"),
        ("127.0.0.1:70000", "expected host:port or auto, got '127.0.0.1:70000'"),
        ("ray://head:10001", "expected host:port or auto, got 'ray://head:10001'"),
        ("head", "expected host:port or auto, got 'head'"),
    ],
)
def test_an_address_of_no_cluster_is_refused(main, monkeypatch, tmp_path, address, message):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=None))
    assert main("--launcher", "ray", "--ray-address", address) == (2, f"toy: --ray-address: {message}\n")
    assert not (tmp_path / "run").exists()


HELLO = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
OPEN, GUARDED = HELLO + b"\x0bgrpc-status\x010\0", HELLO + b"\x0bgrpc-status\x0216\0"
NONE = "expected a running Ray cluster at "
TOKEN = "asks for its token"


@pytest.mark.parametrize(
    ("held", "answers", "found"),
    [
        ("", [OPEN], False),
        ("a" * 40, [OPEN], False),  # nor is it shown
        ("a" * 40, [GUARDED, OPEN], True),
        ("a" * 300, [GUARDED, OPEN], True),
        ("a" * 40, [GUARDED, GUARDED], f"{TOKEN}, not the one found"),
        ("", [GUARDED], f"{TOKEN}; expected"),
        ("", [b"HTTP/1.1 400 Bad Request\r\n\r\n"], NONE),
        ("", [b""], NONE),
    ],
)
def test_what_answers_at_an_address(held, answers, found, monkeypatch, tmp_path):
    """Also where the address is one of IPv6."""
    from gm_lab.cluster import answering

    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text(f"{held}\n")
    asked = []
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:

        def answered():
            for answer in answers:
                with listening.accept()[0] as connection:
                    asked.append(connection.recv(4096))
                    connection.sendall(answer)

        answering_thread = threading.Thread(target=answered)
        answering_thread.start()
        address = f"[::1]:{listening.getsockname()[1]}"
        if isinstance(found, str):
            with pytest.raises(gm_lab.BadInput, match=found):
                answering(address)
        else:
            assert answering(address) == (address, found)
        answering_thread.join()
    assert [f"Bearer {held}".encode() in question for question in asked] == [False, True][: len(answers)]


def test_a_cluster_that_stops_answering_is_named_each_time(monkeypatch, until):
    from gm_lab import cluster

    monkeypatch.setattr(cluster, "HEAD_SECONDS", 0.02)
    said = []
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    with cluster._watched("{}:{}".format(*address), said.append):
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
    from gm_lab import RunSettings
    from gm_lab.cluster import Place, place

    assert place(RunSettings(device="cuda", workers=3)) == Place(None, 1.0, 1.0, 3)
    assert place(RunSettings(device="cuda", gpus_per_cell=0.25)) == Place(None, 1.0, 0.25, None)
    assert place(RunSettings(ray_address="a:1", cpus_per_cell=4)) == Place("a:1", 4, 0.0, None)


def test_cells_find_room_on_living_nodes():
    from gm_lab.cluster import Place, room

    def node(alive, **resources):
        return {"Alive": alive, "Resources": resources}

    nodes = [node(True, CPU=8.0, GPU=2.0), node(True, CPU=3.0), node(False, CPU=64.0, GPU=8.0), node(True)]
    ray = SimpleNamespace(nodes=lambda: nodes)
    assert room(ray, Place(None, 1, 0, None)) == 11
    assert room(ray, Place(None, 4, 0, None)) == 2
    assert room(ray, Place(None, 1, 1, None)) == 2
    assert room(ray, Place(None, 0.1, 0.1, None)) == 20


def test_cells_that_this_machine_has_no_room_for_are_refused(main, monkeypatch):
    closed = []
    fake = SimpleNamespace(init=lambda **_: None, nodes=list, shutdown=lambda: closed.append(True))
    monkeypatch.setitem(sys.modules, "ray", fake)
    message = "toy: --gpus-per-cell: expected what this machine has, got cells that need 1 CPUs and 99 GPUs\n"
    assert main("--launcher", "ray", "--gpus-per-cell", 99) == (2, message)
    assert closed


def test_sizes_are_readable():
    assert [in_units(size) for size in (0, 999, 1_234_000, 5e10)] == ["0 bytes", "999 bytes", "1.23 MB", "50.0 GB"]


def test_modules_travel_as_text(monkeypatch):
    from gm_lab.cluster import Shipped, Source

    texts = {"travelled": "import also_travelled.inside as other", "also_travelled.inside": "x = 3"}
    modules = {name: Source(text) for name, text in texts.items()} | {"also_travelled": Source("", package=True)}
    monkeypatch.setattr(sys, "meta_path", [Shipped(modules)])
    import travelled

    assert travelled.other.x == 3
    for name in modules:
        del sys.modules[name]


def test_which_modules_travel(monkeypatch, tmp_path):
    """Those imported from the current folder, of a package all; what is installed below it has its name elsewhere."""
    from gm_lab.cluster import Source, sources

    contents = {
        "alone.py": "import whole, parts.used, installed",
        "unused.py": "",
        "whole/__init__.py": "",
        "whole/later/more.py": "y = 2",
        "parts/used.py": "",
        "parts/unused.py": "",
        "lib/installed.py": "",
    }
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None)
    before = set(sys.modules)
    importlib.import_module("alone")
    found = sources()
    for name in set(sys.modules) - before:
        del sys.modules[name]
    assert set(found) == {"alone", "whole", "whole.later", "whole.later.more", "parts", "parts.used"}
    assert {name for name, source in found.items() if source.package} == {"whole", "whole.later", "parts"}
    assert found["whole.later.more"] == Source("y = 2")


def test_cells_are_told_the_whole_path_of_a_run_directory(toy, monkeypatch, tmp_path):
    """Workers on other machines were started in other folders."""
    told = []
    experiment = dataclasses.replace(toy.EXPERIMENT, warm_up=lambda settings: told.append(settings.run_dir))
    monkeypatch.chdir(tmp_path)
    assert gm_lab.main(experiment, ["--run-dir", "here", "--workers", "1", "--wandb", "disabled"]) == 0
    assert told == [tmp_path / "here"]
