"""apps/mgrl_atari.py end to end on short real rollouts: files, refusals, kill and resume, verdicts."""

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import runpy
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

import gm_lab
import gm_mgrl_atari
from gm_experiments.mgrl import EXPERIMENT, claims, figures, tables, unfinished
from gm_experiments.mgrl import run as running
from gm_experiments.mgrl import settings as flags
from gm_experiments.mgrl.run import Teller
from gm_experiments.mgrl.settings import KEY, Settings, cells, completed
from gm_lab.analysis import report, summary_table
from gm_lab.run import Tail, progress, result_settings
from gm_lab.run.help import help_of
from gm_lab.track.curves import curve_of
from gm_mgrl_atari import NAMES, PAPER_GAMES, study

PACKAGES = Path(__file__).parents[1] / "packages"
picture_faults = runpy.run_path(str(PACKAGES / "gm-experiments" / "tests" / "picture_faults.py"))

APP = Path(__file__).parents[1] / "apps" / "mgrl_atari.py"
SMALL = ["--wandb", "disabled", "--envs", "2", "--steps", "2"]


@pytest.fixture
def app(run_app, monkeypatch):
    monkeypatch.setattr(running, "THROUGHPUT_SECONDS", 0.01)
    # one thread: several wait for each other where the machine is shared
    monkeypatch.setattr(running, "usable_cores", lambda: 1)
    return partial(run_app, EXPERIMENT, *SMALL)


def test_a_run_leaves_what_it_promises(app, tmp_path):
    status, error = app("--env-steps", "12", "--gradient-windows", "2", "--gradient-points", "0")
    assert status == 0
    (run,) = (tmp_path / "runs" / "mgrl_atari").iterdir()
    frame = pd.read_csv(run / "results.csv")
    assert list(frame.columns) == list(flags.COLUMNS)
    log = frame[frame["figure"] == "returns"]
    assert log.groupby("algorithm")["updates"].apply(list).to_dict() == {
        name: [1, 2, 3] for name in ("a2c", "mgrl", "mgrl-lvc")
    }
    # three updates of 4 steps; discarding windows draw four batches
    assert log.groupby("algorithm")["emulated_steps"].max().to_dict() == {"a2c": 12, "mgrl": 48, "mgrl-lvc": 48}
    assert log[log["algorithm"] == "a2c"]["gamma"].nunique() == 1
    assert log[log["algorithm"] == "mgrl"]["gamma"].nunique() == 3
    rates = frame[frame["figure"] == "throughput"]
    assert len(rates) == 3
    assert (rates[[*flags.RATES]] > 0).all(axis=None)
    measured = frame[frame["figure"] == "gradient"]
    assert set(measured["algorithm"]) == {"mgrl-lvc"}
    assert set(measured["updates"]) == {0}
    assert len(measured) == len(set(measured["variant"])) == 8
    assert np.isfinite(measured[["accuracy", "bias_sq", "variance", *(f"gradient_{n}" for n in NAMES)]]).all(axis=None)
    assert (rates[[*flags.SECONDS]].sum(axis=1) > 0).all()
    for name in ("meta_parameters", "gradient", "returns", "time"):
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name, figure in figures.figures(Settings(), frame).items():
        assert picture_faults["faults"](figure) == [], name
    verdicts = {v["id"]: v["verdict"] for v in json.loads((run / "claims.json").read_text())}
    assert verdicts.keys() == {"MGRL-1", "MGRL-2", "MGRL-3"}
    assert verdicts["MGRL-1"] == verdicts["MGRL-2"] == "not measured"
    assert "Qbert-mgrl-lvc-0: 3/3 updates" in error
    assert {path.name for path in (run / "training").iterdir()} == {"Qbert-a2c-0", "Qbert-mgrl-0", "Qbert-mgrl-lvc-0"}
    first, *_ = error.splitlines()
    assert first.startswith("mgrl_atari: 12 steps are too few to learn to play; what they show is the meta-gradient")
    assert report.load(run).foreword == [first.removeprefix("mgrl_atari: ")]
    assert returns_say_so(run)


def returns_say_so(run):
    captions = json.loads((run / "figures" / "captions.json").read_text())
    return captions["returns"]["finding"] == "12 environment steps are too few to learn to play"


def test_a_run_is_told_to_be_too_short_to_learn_and_what_it_shows_instead():
    (demonstration,) = flags.foreword(Settings())
    assert demonstration == (
        "3,200 steps are too few to learn to play; what they show is the meta-gradient itself (which estimators agree "
        "on it, its spread, direction and bias over windows), how the meta-parameters begin to move and the speed"
    )
    (only_a2c,) = flags.foreword(Settings(env_steps=100_000, algorithms=("a2c",), figure=("returns",)))
    assert only_a2c == "100,000 steps are too few to learn to play; what they show is the speed"
    assert flags.foreword(Settings(env_steps=100_001)) == ()
    assert "too few steps (3,200)" in help_of(Settings, "uv run apps/mgrl_atari.py")


def test_live_rows_are_points_of_curves_while_the_run_is_trained(app, tmp_path):
    """What is sent to W&B meanwhile: game, algorithm and seed tell the curves apart, which have returns and paths."""
    status, error = app("--run-dir", "run", "--algorithms", "mgrl", "--env-steps", "16", "--figure", "returns")
    assert status == 0, error
    (file,) = (tmp_path / "run" / "live").glob("*.csv")
    points = [curve_of(EXPERIMENT.curves, row) for row in Tail(file).rows()]
    assert [point.rows[0]["env_steps"] for point in points] == [4, 8, 12, 16]
    assert {point.name for point in points} == {"returns Qbert mgrl seed=0"}
    assert all({*NAMES, "steps_per_second"} <= point.rows[0].keys() for point in points)


def test_how_far_a_cell_is_counts_the_study_and_what_an_earlier_session_did():
    """In the units of A2C updates: 80 of discarding MGRL cost 544, two points of 24 windows 960 each."""
    (cell, *_), said = cells(Settings()), []
    with told(said.append):
        work = running.Work(cell, before=20)
        work.trained(80)
        work.studied(1, 0.5)
    total = 80 * 1.7 * 4 + 2 * 960
    np.testing.assert_allclose(said, np.array([(136, 136), (544, 136), (1984, 136)]) / total)
    assert flags.weight(cell) == pytest.approx(40 * total)
    online = cells(Settings(schedule="online", algorithms=("mgrl",), figure=("returns",)))[0]
    assert flags.weight(online) == 2 * flags.weight(cells(Settings(algorithms=("a2c",), figure=("returns",)))[0])


@contextlib.contextmanager
def told(listen):
    token = progress._told.set(lambda part, before: listen((part, before)))
    try:
        yield
    finally:
        progress._told.reset(token)


PATIENT = """import runpy, sys
from gm_experiments.mgrl import run
from gm_lab.run import interruption
interruption.GRACE_SECONDS = 3600.0
run.THROUGHPUT_SECONDS = 0.01
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs an app whose workers have all the time that they take for their checkpoints, and which hardly measures speed."""


def started(run, *arguments):
    program = [sys.executable, "-c", PATIENT, str(APP)]
    command = [*program, "--run-dir", str(run), *SMALL, "--game", "Asteroids", *arguments]
    core = {max(os.sched_getaffinity(0))}
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_and_its_log_has_no_gap(tmp_path, number):
    """By SIGKILL from the last checkpoint of the clock, by SIGTERM and one Ctrl-C from one that it writes at once."""
    minutes = "0.001" if number == signal.SIGKILL else "60"
    arguments = ["--algorithm", "a2c", "--env-steps", "480", "--checkpoint-minutes", minutes, "--figure", "returns"]
    run = tmp_path / "run"
    folder = run / "training" / "Asteroids-a2c-0"
    process = started(run, *arguments)

    def begun():
        log, written = folder / "log.csv", number != signal.SIGKILL or any(folder.glob("checkpoint-*.pt"))
        return written and log.exists() and log.stat().st_size > 1000

    while process.poll() is None and not begun():
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
    reached = max(int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.pt"))
    assert 0 < reached < 120
    assert started(run, *arguments).wait(200) == 0
    with (folder / "log.csv").open() as file:
        updates = [int(row["updates"]) for row in csv.DictReader(file)]
    assert updates == list(range(5, 121, 5))
    frame = pd.read_csv(run / "results.csv")
    assert sorted(frame[frame["figure"] == "returns"]["updates"]) == updates
    assert frame["emulated_steps"].max() == 480


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_grid_has_checkpoints_live_rows_and_figures(tmp_path, workers):
    """By SIGTERM to the driver alone: each worker's run writes its checkpoint, and what it has logged can be drawn."""
    run = tmp_path / "run"
    grid = ["--algorithms", "a2c", "mgrl", "--env-steps", "4000", "--workers", str(workers), "--figure", "returns"]
    process = started(run, *grid, "--checkpoint-minutes", "60")
    while len([path for path in run.glob("live/*.csv") if path.stat().st_size > 600]) < workers:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert len(list(run.glob("training/*/checkpoint-*.pt"))) == workers
    frame = unfinished.rows_of(run)
    assert len(frame.groupby("algorithm")) == workers
    assert (frame["env_steps"] % 4 == 0).all()
    assert not frame.duplicated(list(KEY)).any()
    assert unfinished.main([str(run)]) == 0
    assert (run / "figures" / "returns.png").exists()


def test_a_folder_without_rows_is_refused(tmp_path, capsys):
    assert unfinished.main([str(tmp_path)]) == 2
    (tmp_path / "config.yaml").write_text("app: mgrl_atari\nsettings: {seed: 0}\n")
    assert unfinished.main([str(tmp_path)]) == 2
    (tmp_path / "results.csv").write_text("figure,mdp\n")
    assert unfinished.main([str(tmp_path)]) == 2
    (tmp_path / "config.yaml").write_text("app: maml_tabular\nsettings: {seed: 0}\n")
    assert unfinished.main([str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert all(line.startswith("mgrl_figures: expected a run directory of mgrl_atari, got ") for line in errors)


@pytest.fixture
def paper_runs(tmp_path):
    """Run directories of one game each, with two roots of their random streams."""

    def make(name, games, seed=0, **changes):
        run = tmp_path / "all" / name
        run.mkdir(parents=True)
        settings = dataclasses.replace(Settings(games=games, seed=seed, seeds=5), **changes)
        config = {"app": "mgrl_atari", "settings": result_settings(settings)}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        frame = results_that_hold()
        frame[frame["game"].isin(games)].to_csv(run / "results.csv", index=False, na_rep="nan")
        return run

    return make


def test_run_directories_are_drawn_and_judged_together(paper_runs, tmp_path, capsys):
    first, second = (paper_runs(name, games) for name, games in (("a", PAPER_GAMES[:3]), ("b", PAPER_GAMES[3:])))
    assert unfinished.main([str(first)]) == 0
    assert "3 of 8 games" in " ".join(capsys.readouterr().out.split())
    assert unfinished.main([str(first.parent), "--to", str(tmp_path / "drawn")]) == 0
    out = capsys.readouterr().out
    ours = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("MGRL-")]
    assert ours == [[f"MGRL-{number}", "supported"] for number in (1, 2, 3)]
    assert (tmp_path / "drawn" / "returns.png").exists()
    third = paper_runs("c", PAPER_GAMES[:1], seed=1)
    frame, _ = unfinished.together([first, second, third])
    counts = frame[frame["figure"] == "returns"].groupby("game")["seed"].nunique()
    assert counts.to_dict() == {game: 10 if game == PAPER_GAMES[0] else 5 for game in PAPER_GAMES}
    fourth = paper_runs("d", PAPER_GAMES[:1], inner_steps=2)
    assert unfinished.main([str(first), str(fourth)]) == 2
    assert f"expected runs of the same settings, got inner_steps 3 in {first} and 2 in" in capsys.readouterr().err


def test_what_a_killed_run_computed_after_its_checkpoint_is_not_drawn(tmp_path):
    """The live file keeps it, so that no row is shown twice; log.csv has what was computed anew."""
    log = tmp_path / "training" / "Qbert-mgrl-lvc-2" / "log.csv"
    log.parent.mkdir(parents=True)
    log.write_text("updates,env_steps,episode_return\n5,20,1.5\n10,40,2.5\n15,6")
    (tmp_path / "live").mkdir()
    live = "figure,game,algorithm,seed,updates,env_steps,episode_return\nreturns,Qbert,mgrl-lvc,2,10,40,9.5\n"
    (tmp_path / "live" / "0.csv").write_text(live)
    rows = unfinished.rows_of(tmp_path)
    assert rows[["algorithm", "seed", "updates", "episode_return"]].to_numpy().tolist() == [
        ["mgrl-lvc", 2, 5, 1.5],
        ["mgrl-lvc", 2, 10, 2.5],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--games Chess", "--games: expected Asteroids, Qbert, Tennis"),
        ("--inner-steps 0", "--inner-steps: expected an integer of at least 1, got 0"),
        ("--envs -1", "--envs: expected an integer of at least 1, got -1"),
        ("--seeds 0", "--seeds: expected an integer of at least 1, got 0"),
        ("--env-steps 3", "--env-steps: expected at least 4, the steps of one update, got 3"),
        ("--env-steps -5", "--env-steps: expected at least 4, the steps of one update, got -5"),
        ("--inner-lr 0", "--inner-lr: expected a finite number above 0, also in float32, got 0"),
        ("--meta-lr nan", "--meta-lr: expected finite numbers, got nan"),
        ("--adam-eps 1e-50", "--adam-eps: expected a finite number above 0, also in float32, got 1e-50"),
        ("--games ../../Qbert", "--games: expected Asteroids, Qbert, Tennis"),
        (
            "--gradient-points 1.0",
            "--gradient-points: expected points whose windows of 3 updates end within the run's 80",
        ),
        (
            "--env-steps 16",
            "--gradient-points: expected points whose windows of 3 updates end within the run's 4, after",
        ),
        ("--estimator ad", "--estimator: expected one of mgrl and mgrl-lvc beside it, which it makes the same, got ad"),
        ("--estimator dice", "--estimator: expected an estimator that uses advantages"),
        ("--estimator lvc+learnt", "--estimator: expected an estimator without +learnt, which only the tabular"),
        ("--estimator nobody", "--estimator: expected one of ad, dice, loaded_dice, lvc or package.module:function"),
        ("--algorithm ppo", "--algorithm: expected one of a2c, mgrl, mgrl-lvc, got 'ppo'"),
        ("--gradient-points 2", "--gradient-points: expected numbers from 0 to 1, got (2.0,)"),
        ("--gradient-windows 1", "--gradient-windows: expected an integer of at least 2, got 1"),
        ("--checkpoint-minutes 0", "--checkpoint-minutes: expected a positive number, got 0"),
        ("--device tpu9", "--device: expected cpu, or cuda where there is a GPU, got 'tpu9'"),
        ("--device cuda:9", "--device: expected cpu, or cuda where there is a GPU, got 'cuda:9'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(app, arguments, message):
    status, error = app(*arguments.split())
    assert status == 2
    assert error.startswith(f"mgrl_atari: {message}")
    assert error.count("\n") == 1


def test_a_run_without_a_usable_checkpoint_is_refused(app, tmp_path):
    folder = tmp_path / "run" / "training" / "Qbert-a2c-0"
    arguments = ("--run-dir", "run", "--algorithms", "a2c", "--figure", "returns", "--env-steps", "8")
    app(*arguments)
    for finished in (tmp_path / "run" / "cells").iterdir():
        finished.unlink()
    for checkpoint in folder.glob("*.pt"):
        torch.save({"state_dict": {}}, checkpoint)
    status, error = app(*arguments)
    assert status == 2
    assert "refused" in error.splitlines()[1]  # after what so short a run cannot show
    assert "no usable checkpoint in" in error.splitlines()[-1]


def test_a_run_whose_numbers_are_not_finite_says_so(app):
    """The throughput probe, which comes first, meets them too."""
    status, error = app("--algorithm", "a2c", "--figure", "returns", "--env-steps", "40", "--inner-lr", "1e30")
    assert status == 1
    assert "failed: NotFiniteError: expected finite numbers, got NaN or infinity in" in error


def test_a_lost_copy_costs_its_measurement_alone(app, tmp_path):
    arguments = ("--run-dir", "run", "--algorithms", "mgrl", "--env-steps", "16", "--gradient-points", "0", "0.25")
    arguments += ("--gradient-windows", "2")
    app(*arguments)
    for finished in (tmp_path / "run" / "cells").iterdir():
        finished.unlink()
    lost, damaged = (tmp_path / "run" / "training" / "Qbert-mgrl-0" / f"point-00000000{n}.pt" for n in (0, 1))
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    status, error = app(*arguments)
    assert status == 0
    assert f"no meta-gradients after 0 updates: {lost}: expected a complete checkpoint" in error
    assert f"no meta-gradients after 1 updates: {damaged}: expected a complete" in error
    assert set(pd.read_csv(tmp_path / "run" / "results.csv")["figure"]) == {"returns", "throughput"}


def test_a_game_has_one_name():
    """Its folder, its label and its seeds are the same however it is spelt, and it is played once."""
    spelt = cells(Settings(games=("qbert", "Q-bert", "beam rider"), algorithms=("a2c",)))
    assert [cell.game for cell in spelt] == ["Qbert", "BeamRider"]
    assert spelt[0] == cells(Settings(algorithms=("a2c",)))[0]


def test_meta_gradients_are_measured_at_the_end_of_a_window():
    settings = Settings(schedule="online", algorithms=("mgrl",), gradient_points=(0.0, 0.5))
    assert cells(settings)[0].points == (0, 42)


def test_names_are_those_of_the_package_that_trains():
    """They are written down a second time, so that flags and help need no training package."""
    assert flags.NAMES == gm_mgrl_atari.NAMES
    assert flags.PARTS == gm_mgrl_atari.PARTS
    assert flags.PAPER_GAMES == PAPER_GAMES
    assert set(get_args(flags.Algorithm)) == set(gm_mgrl_atari.ALGORITHMS)


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        # one worker has the GPU, and all the cores
        ({"device": "cuda", "seeds": 5}, 16),
        ({"seeds": 5}, 1),
        ({"seeds": 1}, 5),
        ({"seeds": 5, "workers": 2}, 8),
        ({"seeds": 5, "launcher": "ray", "cpus_per_cell": 8.0}, 8),
        ({"seeds": 5, "launcher": "ray", "cpus_per_cell": 0.5}, 1),
    ],
)
def test_cores_are_shared_by_the_workers_that_there_are(monkeypatch, settings, threads):
    for module in (running, gm_lab.run.settings):
        monkeypatch.setattr(module, "usable_cores", lambda: 16)
    assert running.threads_of(Settings(**settings)) == threads


def test_finished_cells_need_no_cores(monkeypatch, tmp_path):
    for module in (running, gm_lab.run.settings):
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    settings = Settings(run_dir=tmp_path)
    (tmp_path / "cells").mkdir()
    for cell in cells(settings)[:-1]:
        (tmp_path / "cells" / f"{gm_lab.cell_id(cell)}.json").touch()
    assert running.threads_of(settings) == 4


def test_a_gpu_that_is_listed_and_does_not_work_is_refused(app, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def broken(*_size, device=None):
        raise RuntimeError(f"CUDA error: no kernel image for {device}\nCUDA kernel errors might be …")

    monkeypatch.setattr(torch, "empty", broken)
    status, error = app("--device", "cuda")
    assert status == 2
    assert "--device: expected a GPU that works as cuda, got: CUDA error: no kernel image for cuda\n" in error


def test_the_defaults_are_the_demonstration_and_a_budget_makes_it_the_paper_s():
    demonstration = cells(Settings())
    # that whose meta-gradient is studied takes longest, so it comes first
    assert [cell.training.algorithm for cell in demonstration] == ["mgrl-lvc", "mgrl", "a2c"]
    assert {(cell.training.envs, cell.training.updates) for cell in demonstration} == {(8, 80)}
    paper = cells(Settings(games=PAPER_GAMES, env_steps=40_000_000, seeds=5))
    assert len(paper) == 8 * 3 * 5
    training = paper[-1].training
    assert (training.envs, training.steps, training.updates, training.inner_steps) == (64, 5, 125_000, 3)
    assert (training.inner_lr, training.meta_lr, training.max_grad_norm) == (7e-4, 1e-3, 0.5)
    assert training.schedule == "discard"


def results_that_hold():
    """results.csv as the paper has it."""
    draw = np.random.default_rng(0)
    rows = []
    for game, algorithm, seed in product(PAPER_GAMES, ("a2c", "mgrl", "mgrl-lvc"), range(5)):
        lvc = algorithm == "mgrl-lvc"
        for updates in (62_500, 125_000):
            row = {"figure": "returns", "game": game, "algorithm": algorithm, "seed": seed, "updates": updates}
            row |= {"env_steps": 320 * updates, "episode_return": 100 + 50 * lvc + draw.normal()}
            row |= {name: 0.5 + 0.1 * lvc + 0.001 * draw.normal() for name in NAMES}
            rows.append(row)
    for variant, distance in (("lvc, K=1", 1e-7), ("lvc", 0.1)):
        rows.append({"figure": "gradient", "game": "Qbert", "algorithm": "mgrl-lvc", "seed": 0, "updates": 100})
        rows[-1] |= {"variant": variant, "distance": distance}
    return pd.DataFrame([completed(row) for row in rows])


PAPER = result_settings(Settings())


def verdicts(frame, **settings):
    return {verdict.id: verdict for verdict in claims.verdicts(PAPER | settings, frame)}


def test_claims():
    found = verdicts(results_that_hold())
    assert {name: v.measured for name, v in found.items() if v.verdict != "supported"} == {}


SPOILT = {
    "MGRL-1": ("algorithm == 'mgrl-lvc' and game in ('Alien', 'Tennis')", {"episode_return": -200.0}),
    "MGRL-2": ("algorithm == 'mgrl-lvc' and game == 'Alien'", dict.fromkeys(NAMES, -0.1)),
    "MGRL-3": ("variant == 'lvc, K=1'", {"distance": 0.1}),
}


@pytest.mark.parametrize("claim", SPOILT)
def test_a_claim_that_does_not_hold_is_reported(claim):
    frame = results_that_hold()
    where, changes = SPOILT[claim]
    for column, change in changes.items():
        frame.loc[frame.eval(where), column] += change
    assert verdicts(frame)[claim].verdict == "contradicted"


@pytest.mark.parametrize(
    ("claim", "where"),
    [
        ("MGRL-1", "seed < 4"),
        ("MGRL-1", "game != 'Alien'"),
        ("MGRL-1", "env_steps < 30e6 or figure != 'returns'"),
        ("MGRL-2", "seed < 4"),
        ("MGRL-2", "algorithm != 'mgrl'"),
        ("MGRL-3", "variant != 'lvc'"),
    ],
)
def test_a_claim_without_enough_data_is_not_decided(claim, where):
    frame = results_that_hold()
    verdict = verdicts(frame[frame.eval(where)])[claim]
    assert verdict.verdict == "not measured"
    assert not math.isnan(len(verdict.measured))


@pytest.mark.parametrize("setting", [{"estimator": "loaded_dice"}, {"inner_steps": 2}, {"schedule": "online"}])
def test_returns_of_other_settings_decide_nothing_about_the_paper_s(setting):
    found = verdicts(results_that_hold(), **setting)
    expected = {"MGRL-1": "not measured", "MGRL-2": "not measured", "MGRL-3": "supported"}
    assert {name: verdict.verdict for name, verdict in found.items()} == expected
    ((name, value),) = setting.items()
    assert found["MGRL-1"].measured == f"needs {name} {PAPER[name]}, as in the paper; this is with {name} {value}"


@pytest.mark.parametrize(("distance", "settings"), [(math.nan, {}), (1e-7, {"inner_steps": 1})])
def test_without_windows_of_several_steps_mgrl_3_is_not_decided(distance, settings):
    """Meta-gradients of zero have no relative distance, and a run's own K may be one."""
    frame = results_that_hold()
    frame.loc[frame["variant"] != "", "distance"] = distance
    assert verdicts(frame, **settings)["MGRL-3"].verdict == "not measured"


GRADIENT = [f"gradient_{name}" for name in NAMES]


def shown(table, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(table)
    return console.file.getvalue()


def test_the_closing_tables_fit_a_terminal():
    """Nothing is cut at 80 columns; throughput beside its parts, meta-gradients with their intervals."""
    frame = results_that_hold()
    rate = {"figure": "throughput", "game": "DoubleDunk", "algorithm": "mgrl-lvc", "seed": 0, "steps_per_second": 3.6}
    rate |= {"emulator_steps_per_second": 1234.5, "learner_steps_per_second": 12.0}
    gradient = {"figure": "gradient", "game": "DoubleDunk", "algorithm": "mgrl-lvc", "seed": 0, "updates": 40}
    gradient |= {"windows": 8, "variance": 4e-12, "variance_low": -1e-12, "variance_high": 9e-12}
    gradient |= {"accuracy": 0.98, "accuracy_low": 0.96, "accuracy_high": 1.0}
    gradient |= {"bias_sq": 1e-12, "bias_sq_low": -1e-12, "bias_sq_high": 2.25e-12}
    gradient |= {"spread": 0.97, "spread_low": 0.95, "spread_high": 0.99}
    # as in results.csv, which is sorted; bias is relative to the reference, whichever comes first
    names = sorted(variant.name for variant in study.VARIANTS)
    gradients = [
        gradient | {"variant": name} | dict.fromkeys(GRADIENT, 1e-6 * (name == study.REFERENCE)) for name in names
    ]
    added = [completed(row) for row in (rate, *gradients)]
    frame = pd.concat([frame[frame["figure"] == "returns"], pd.DataFrame(added)])
    texts = [shown(tables.throughputs(frame)), shown(summary_table(tables.closing(frame)))]
    texts += [shown(table) for table in tables.meta_gradients(frame)]
    assert len(texts) == 3
    assert not any("…" in text for text in texts)
    both = [tables.throughputs(frame), *tables.meta_gradients(frame)]
    assert not any("…" in shown(table, width=60) for table in both)
    assert texts[0].splitlines()[-2].replace("│", " ").split() == ["DoubleDunk", "mgrl-lvc", "3.6", "1234", "12", "30"]
    assert "│ DoubleDunk mgrl-lvc │" in texts[1]
    assert "DoubleDunk, meta-gradients after 40 updates: 8 windows" in texts[2]
    assert texts[2].splitlines()[4].split()[1] == study.REFERENCE
    assert all(part in texts[2] for part in (" 0.5 ", "[0, 0.75]", "[0.96, 1]", "[0.95, 0.99]", " – "))


@pytest.mark.parametrize("least", [1e-30, 1e-12, 1e-3, 0.0])
def test_ticks_of_the_gradient_figure_can_be_read(least):
    """None covers another, however many magnitudes the values span."""
    gradient = {"figure": "gradient", "game": "Qbert", "algorithm": "mgrl-lvc", "seed": 0, "updates": 40, "windows": 8}
    rows = []
    for k, variant in enumerate(study.VARIANTS):
        row = gradient | {"variant": variant.name}
        for measure, value in (("accuracy", 0.9), ("bias_sq", least * 10**k), ("variance", least), ("change", 0.1)):
            row |= {measure: value, f"{measure}_low": -value, f"{measure}_high": math.inf}
        rows.append(completed(row))
    figure = figures.figures(Settings(), pd.DataFrame(rows))["gradient"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        left, right = axes.get_xlim()
        labels = [
            text for at, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if left <= at <= right
        ]
        boxes = sorted((text.get_window_extent() for text in labels), key=lambda box: box.x0)
        assert len(boxes) >= 2
        assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_the_summary_has_final_returns():
    frame = results_that_hold()
    rate = {"figure": "throughput", "game": "Qbert", "algorithm": "mgrl", "seed": 0, "steps_per_second": 3.0}
    frame = pd.concat([frame, pd.DataFrame([completed(rate)])])
    table = tables.closing(frame).set_index("run")
    assert table.loc["Qbert mgrl", "steps/s"] == 3
    final = frame[(frame["game"] == "Qbert") & (frame["algorithm"] == "mgrl") & (frame["updates"] == 125_000)]
    assert table.loc["Qbert mgrl", "return"] == pytest.approx(final["episode_return"].mean())
    assert gm_lab.style_of("mgrl") != gm_lab.style_of("mgrl-lvc")


def test_what_is_told_of_a_run_has_no_return_before_an_episode_has_ended(capsys):
    row = {"updates": 3, "episode_return": float("nan"), "gamma": 0.99, "gae_lambda": 0.95, "steps_per_second": 39.0}
    tell = Teller("Qbert", 3)
    tell(row)
    tell(row | {"episode_return": 12.5})
    first, second = capsys.readouterr().err.splitlines()
    assert first == "mgrl_atari: Qbert: 3/3 updates, no episode ended yet, γ 0.9900, λ 0.9500, 39 steps/s"
    assert ", return 12.5, " in second
