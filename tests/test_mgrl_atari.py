"""apps/mgrl_atari.py end to end on short real rollouts: files, refusals, kill and resume, verdicts."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import gm_lab
import mgrl_atari
import mgrl_figures
import mgrl_report
from gm_mgrl_atari import NAMES, PAPER_GAMES

APP = Path(__file__).parents[1] / "apps" / "mgrl_atari.py"
SMALL = ["--wandb", "disabled", "--envs", "2", "--steps", "2"]


@pytest.fixture
def app(run_app, monkeypatch):
    monkeypatch.setattr(mgrl_atari, "THROUGHPUT_SECONDS", 0.01)
    # one thread: several wait for each other where the machine is shared
    monkeypatch.setattr(mgrl_atari, "usable_cores", lambda: 1)
    return partial(run_app, mgrl_atari.EXPERIMENT, *SMALL)


def test_a_run_leaves_what_it_promises(app, tmp_path):
    status, error = app("--env-steps", "12", "--gradient-windows", "2", "--gradient-points", "0.5")
    assert status == 0
    (run,) = (tmp_path / "runs" / "mgrl_atari").iterdir()
    frame = pd.read_csv(run / "results.csv")
    assert list(frame.columns) == list(mgrl_report.COLUMNS)
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
    assert (rates[[*mgrl_report.RATES]] > 0).all(axis=None)
    measured = frame[frame["figure"] == "gradient"]
    assert set(measured["algorithm"]) == {"mgrl-lvc"}
    assert set(measured["updates"]) == {2}
    assert len(measured) == len(set(measured["variant"])) == 8
    assert np.isfinite(measured[["accuracy", "bias_sq", "variance", *(f"gradient_{n}" for n in NAMES)]]).all(axis=None)
    assert (rates[[*mgrl_report.SECONDS]].sum(axis=1) > 0).all()
    for name in ("meta_parameters", "gradient", "returns", "time"):
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    verdicts = {v["id"]: v["verdict"] for v in json.loads((run / "claims.json").read_text())}
    assert verdicts.keys() == {"MGRL-1", "MGRL-2", "MGRL-3"}
    assert verdicts["MGRL-1"] == verdicts["MGRL-2"] == "not enough data"
    assert "Qbert-mgrl-lvc-0: 3/3 updates" in error
    assert {path.name for path in (run / "training").iterdir()} == {"Qbert-a2c-0", "Qbert-mgrl-0", "Qbert-mgrl-lvc-0"}


def started(run, *arguments):
    command = [sys.executable, str(APP), "--run-dir", str(run), *SMALL, "--game", "Asteroids", *arguments]
    core = {max(os.sched_getaffinity(0))}
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_goes_on_and_its_log_has_no_gap(tmp_path, number):
    """By SIGKILL from the last checkpoint of the clock, by SIGTERM from one that it writes at once."""
    minutes = "0.01" if number == signal.SIGKILL else "60"
    arguments = ["--algorithm", "a2c", "--env-steps", "480", "--checkpoint-minutes", minutes, "--figure", "returns"]
    run = tmp_path / "run"
    folder = run / "training" / "Asteroids-a2c-0"
    process = started(run, *arguments)
    deadline = time.monotonic() + 90
    while process.poll() is None and (not (folder / "log.csv").exists() or (folder / "log.csv").stat().st_size < 1000):
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM)
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
    deadline = time.monotonic() + 120
    while len([path for path in run.glob("live/*.csv") if path.stat().st_size > 600]) < workers:
        assert process.poll() is None
        assert time.monotonic() < deadline, "they never began"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert len(list(run.glob("training/*/checkpoint-*.pt"))) == workers
    frame = mgrl_figures.rows_of(run)
    assert len(frame.groupby("algorithm")) == workers
    assert (frame["env_steps"] % 4 == 0).all()
    assert not frame.duplicated(list(mgrl_report.KEY)).any()
    assert mgrl_figures.main([str(run)]) == 0
    assert (run / "figures" / "returns.png").exists()


def test_a_folder_without_rows_is_refused(tmp_path, capsys):
    assert mgrl_figures.main([str(tmp_path)]) == 2
    (tmp_path / "results.csv").write_text("figure,mdp\n")
    assert mgrl_figures.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("mgrl_atari: expected a run directory of mgrl_atari, got ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--games Chess", "--games: expected Asteroids, Qbert, Tennis"),
        ("--inner-steps 0", "--inner-steps: expected an integer of at least 1, got 0"),
        ("--envs -1", "--envs: expected an integer of at least 1, got -1"),
        ("--seeds 0", "--seeds: expected an integer of at least 1, got 0"),
        ("--env-steps 3", "--env-steps: expected at least 4, the steps of one update, got 3"),
        ("--env-steps -5", "--env-steps: expected at least 4, the steps of one update, got -5"),
        ("--inner-lr 0", "--inner-lr: expected a finite number above 0, got 0"),
        ("--meta-lr nan", "--meta-lr: expected finite numbers, got nan"),
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
    assert "refused" in error.splitlines()[0]
    assert "no usable checkpoint in" in error.splitlines()[-1]


def test_the_defaults_are_the_demonstration_and_a_budget_makes_it_the_paper_s():
    demonstration = mgrl_atari.cells(mgrl_atari.Settings())
    assert [cell.training.algorithm for cell in demonstration] == ["a2c", "mgrl", "mgrl-lvc"]
    assert {(cell.training.envs, cell.training.updates) for cell in demonstration} == {(8, 80)}
    paper = mgrl_atari.cells(mgrl_atari.Settings(games=PAPER_GAMES, env_steps=40_000_000, seeds=5))
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
    return pd.DataFrame([mgrl_report.completed(row) for row in rows])


def verdicts(frame):
    return {verdict.id: verdict for verdict in mgrl_report.claims(frame)}


def test_claims():
    found = verdicts(results_that_hold())
    assert {name: (v.holds, v.measured) for name, v in found.items() if not v.holds} == {}


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
    assert verdicts(frame)[claim].holds is False


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
    assert verdict.holds is None
    assert not math.isnan(len(verdict.measured))


def test_the_summary_has_final_returns_and_the_parts_of_the_throughput():
    frame = results_that_hold()
    rate = {"figure": "throughput", "game": "Qbert", "algorithm": "mgrl", "seed": 0, "steps_per_second": 3.0}
    rate |= {"emulator_steps_per_second": 4.0, "learner_steps_per_second": 12.0}
    frame = pd.concat([frame, pd.DataFrame([mgrl_report.completed(rate)])])
    table = mgrl_report.summary(frame).set_index("run")
    assert table.loc["Qbert mgrl", ["steps/s", "emulator", "learner"]].tolist() == [3, 4, 12]
    final = frame[(frame["game"] == "Qbert") & (frame["algorithm"] == "mgrl") & (frame["updates"] == 125_000)]
    assert table.loc["Qbert mgrl", "return"] == pytest.approx(final["episode_return"].mean())
    assert gm_lab.style_of("mgrl") != gm_lab.style_of("mgrl-lvc")
