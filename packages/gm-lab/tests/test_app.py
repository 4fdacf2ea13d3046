"""The life of an app: flags, launchers, run directories, refusals, exit statuses."""

import dataclasses
import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import gm_lab
from gm_lab.analysis.tables import read_results
from gm_lab.run.store import in_units

TOY = str(Path(__file__).with_name("toy.py"))


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
    drawn = ["figures", "figures/captions.json", "figures/toy.png"]
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
    chosen = {"seed": 0, "mdps": 4, "estimators": ["ad", "lvc", "mine"], "scale": 1.0}
    assert config["settings"] == chosen | {"until_decided": False, "most_mdps": 160}
    assert config["versions"]["numpy"] == np.__version__
    (claim,) = json.loads((path / "claims.json").read_text())
    assert claim["id"] == "TOY-1"
    assert claim["verdict"] == "undecided"
    assert claim["budget"] == "at the paper's budget: 4 MDPs"
    assert "0 supported, 0 contradicted, 1 undecided" in claim["measured"]
    assert "TOY-1" in out
    assert str(path / "results.csv") in out
    assert err.startswith("toy: 12/12 cells")
    frame = read_results(path / "results.csv")
    assert list(zip(frame["estimator"], frame["size"], frame["mdp"], strict=True)) == [
        (name, size, mdp) for name in ("ad", "lvc", "mine") for size in (2, 4, 8) for mdp in range(4)
    ]
    assert frame["bias"].isna().sum() == 12
    assert frame["bias"].max() == 0.1 + 0.2
    again = path / "figures" / "toy.png"
    before = again.read_bytes()
    again.unlink()
    assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(path), "--wandb", "disabled"]) == 0
    assert again.read_bytes() == before
    assert not again.with_suffix(".svg").exists()
    assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(path), "--wandb", "disabled", "--svg"]) == 0
    assert again.read_bytes() == before
    assert b"<svg" in again.with_suffix(".svg").read_bytes()


def test_default_run_dir(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gm_lab.main(toy.EXPERIMENT, ["--mdps", "1", "--workers", "1", "--wandb", "disabled"]) == 0
    (path,) = (tmp_path / "runs" / "toy").iterdir()
    assert (path / "results.csv").exists()


def test_help(run):
    status, out, _ = run("--help")
    assert status == 0
    for text in ("--run-dir PATH", "An unfinished run found there is resumed.", "--mdps N", "How many problems."):
        assert text in " ".join(out.split())


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
    plain_open = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & os.O_CREAT and Path(path).is_relative_to(tmp_path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return plain_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    assert main() == (2, f"toy: cannot write {tmp_path / 'run' / '.lock'}: Read-only file system\n")


def test_a_file_in_place_of_the_folder(main, tmp_path):
    (tmp_path / "run").touch()
    assert main() == (2, f"toy: cannot write {tmp_path / 'run'}: File exists\n")


def test_a_file_in_place_of_the_folder_is_said_before_cells_are_made(main, toy, tmp_path, monkeypatch):
    (tmp_path / "run").touch()
    monkeypatch.setattr(toy, "EXPERIMENT", dataclasses.replace(toy.EXPERIMENT, cells=None))
    assert main() == (2, f"toy: cannot write {tmp_path / 'run'}: File exists\n")


def test_a_process_that_a_cell_leaves_behind_holds_no_run_up(main, toy, tmp_path, monkeypatch):
    """Those left behind stay until the run is over, or until nobody can still be waiting for anything but them."""
    over, given_up = tmp_path / "over", tmp_path / "given up"

    def run_cell(cell, context):
        if os.fork() == 0:
            guard = time.monotonic() + 1200  # only so that a run that waits for this process ends at all
            while not over.exists() and time.monotonic() < guard:
                time.sleep(0.01)
            if not over.exists():
                given_up.touch()
            os._exit(0)
        return toy.run_cell(cell, context)

    monkeypatch.setattr("gm_lab.run.interruption.GRACE_SECONDS", 3600.0)
    monkeypatch.setattr(toy, "EXPERIMENT", dataclasses.replace(toy.EXPERIMENT, run_cell=run_cell))
    try:
        assert main("--workers", "2")[0] == 0
        assert not given_up.exists()
    finally:
        over.touch()


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
        "heavy = {'numpy', 'pandas', 'matplotlib', 'wandb', 'scipy', 'rich', 'tyro', 'yaml', 'torch'}\n"
        "assert not heavy & set(sys.modules)\n"
        "toy = runpy.run_path(sys.argv[1])\n"
        "assert gm_lab.main(toy['EXPERIMENT'], sys.argv[2:]) == 0\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('wandb', 'torch', 'matplotlib.pyplot')]\n"
    )
    flags = ["--run-dir", str(tmp_path / "run"), "--wandb", "disabled", "--launcher", "threads"]
    done = subprocess.run([sys.executable, "-c", script, TOY, *flags], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "wandb").exists()


def test_the_driver_imports_nothing_that_only_reports_need(tmp_path):
    script = (
        "import sys, gm_lab, runpy\n"
        "toy = runpy.run_path(sys.argv[1])\n"
        "assert gm_lab.main(toy['EXPERIMENT'], sys.argv[2:]) == 0\n"
        "print([name for name in ('numpy', 'pandas', 'matplotlib', 'scipy', 'rich.table') if name in sys.modules])\n"
    )
    flags = ["--run-dir", str(tmp_path / "run"), "--wandb", "disabled", "--workers", "2"]
    command = [sys.executable, "-c", script, TOY, *flags]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1] == "[]"


def test_a_reporter_that_is_killed_is_replaced(main, toy, tmp_path, monkeypatch):
    """As when memory runs out while it draws."""
    driver = os.getpid()

    def figures(settings, frame):
        if os.getpid() != driver:
            os.kill(os.getpid(), signal.SIGKILL)
        return toy.figures(settings, frame)

    monkeypatch.setattr(toy, "EXPERIMENT", dataclasses.replace(toy.EXPERIMENT, figures=figures))
    status, err = main()
    assert status == 0
    assert re.fullmatch(r"toy: 6/6 cells, .* s elapsed, 0 s left\n", err)
    assert (tmp_path / "run" / "figures" / "toy.png").exists()


def test_a_run_whose_time_is_over_keeps_what_is_finished(toy, capfd, tmp_path, monkeypatch, finish, undisturbed):
    monkeypatch.setenv("TOY_SLEEP", "0.5")
    flags = ["--run-dir", str(tmp_path / "run"), "--mdps", "10", "--workers", "2", "--wandb", "disabled"]
    assert gm_lab.main(toy.EXPERIMENT, flags, stop_after=1.5) == 124
    kept = f"every finished cell is kept; to go on: --run-dir {tmp_path / 'run'}"
    assert capfd.readouterr().err.splitlines()[-1] == f"toy: its time is over, {kept}"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.delenv("TOY_SLEEP")
    assert finish(tmp_path / "run") == undisturbed


def test_experiments_run_one_after_another_in_one_process(toy, tmp_path, undisturbed):
    common = ["--mdps", "10", "--wandb", "disabled"]
    for number, how in enumerate((["--workers", "2"], ["--launcher", "threads"], ["--workers", "3"])):
        path = tmp_path / str(number)
        assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(path), *common, *how]) == 0
        assert (path / "results.csv").read_bytes() == undisturbed
    assert not multiprocessing.active_children()


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
    from gm_lab.run.settings import worker_count

    assert worker_count(RunSettings(device="cuda:1", workers=4)) == 1
    assert worker_count(RunSettings(device="auto", workers=4)) == 4


def test_sizes_are_readable():
    assert [in_units(size) for size in (0, 999, 1_234_000, 5e10)] == ["0 bytes", "999 bytes", "1.23 MB", "50.0 GB"]


def test_cells_are_told_the_whole_path_of_a_run_directory(toy, monkeypatch, tmp_path):
    """Workers on other machines were started in other folders."""
    told = []

    def prepare(settings):
        told.append(settings.run_dir)
        return toy.prepare(settings)

    experiment = dataclasses.replace(toy.EXPERIMENT, run_cell=gm_lab.late("gm_lab_toy:run_cell"), prepare=prepare)
    monkeypatch.chdir(tmp_path)
    assert gm_lab.main(experiment, ["--run-dir", "here", "--workers", "1", "--wandb", "disabled"]) == 0
    assert told == [tmp_path / "here"]
