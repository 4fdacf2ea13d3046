"""The frontier experiment end to end, and what a split promises: not to exceed its budget, and nothing else new."""

import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from torch.testing import assert_close

import gm_estimators
from gm_estimators import Sizes
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.problem import TabularProblem
from gm_experiments.common.settings import Cell, Grid, Tabular
from gm_experiments.frontier import EXPERIMENT
from gm_experiments.frontier.choices import best_choices, held_out, name_of
from gm_experiments.frontier.problem import allocate, estimator_of, split_of
from gm_experiments.maml.problem import exact_training, maml

SMALL = ["--mdps", "3", "--repeats", "3", "--states", "4", "--actions", "2", "--horizon", "5", "--wandb", "disabled"]
NARROW = [
    *("--sample-sizes", "24", "--inner-steps", "2", "--points", "0", "2"),
    *("--splits", "1:1:1", "1:1", "--gae-lambdas", "1", "0.5"),
]
BUDGET = 997
TERMS = {"inner_steps": 2, "inner_lr": 3.0}


@pytest.fixture
def app(run_app):
    """Runs the app, without drawing unless asked."""

    def run(*arguments, draw=False):
        experiment = EXPERIMENT if draw else replace(EXPERIMENT, figures=lambda *_: {})
        return run_app(experiment, *SMALL, *arguments)

    return run


@pytest.fixture
def mdps():
    """Two small MDPs."""
    grid = Grid(sample_sizes=(BUDGET,))
    small = Tabular(repeats=3, states=4, actions=3, horizon=5)
    return RandomMDPs(Cell(0, (0, 1), 2, 3.0, (("frontier", grid),), small), "cpu")


@pytest.fixture
def problem(mdps):
    """MAML on them away from zero."""
    at, _ = next(islice(exact_training(mdps, 1.0, **TERMS), 3, None))
    return maml(mdps, at.expand(mdps.shape).contiguous())


def test_a_run_leaves_what_it_promises_and_advises_the_smallest_error(app, tmp_path):
    status, error = app("--run-dir", "run", *NARROW, draw=True)
    assert status == 0, error
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert tuple(frame.columns) == EXPERIMENT.columns
    # points × estimators × λ × splits × debias × MDPs
    assert len(frame) == 2 * 3 * 2 * 2 * 2 * 3
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()
    np.testing.assert_allclose(
        frame["mse"].to_numpy(), (frame["bias_sq"] + frame["variance"]).to_numpy(), rtol=1e-7, atol=1e-7
    )
    assert (frame["drawn"] <= 24).all()
    plain, jackknife = (frame[frame["debias"] == name] for name in ("none", "jackknife"))
    assert (plain["outer_size"].to_numpy() > jackknife["outer_size"].to_numpy()).all()
    choice = ["estimator", "gae_lambda", "split", "debias"]
    assert frame.groupby(choice)["mse"].mean().nunique() == len(frame[choice].drop_duplicates())
    assert (tmp_path / "run" / "figures" / "frontier_k2.png").read_bytes().startswith(b"\x89PNG")
    summary = pd.read_csv(tmp_path / "run" / "summary.csv").query("which == 'best'")
    place = ["inner_steps", "updates"]
    by_choice = frame.groupby([*place, "estimator", "gae_lambda", "split", "debias"])["mse"].mean()
    unit = frame.groupby([*place, "mdp"])["truth_sq"].first().groupby(place).mean()
    np.testing.assert_allclose(
        summary["mse"].to_numpy(), (by_choice.groupby(place).min() / unit).to_numpy(), rtol=1e-7, atol=1e-7
    )


def test_the_map_has_the_choice_of_the_smallest_error_for_each_budget_and_step(app, tmp_path):
    flags = ["--figure", "budgets", "--sample-sizes", "16", "40", "--inner-lrs", "3", "10", "--points", "0", "2"]
    status, error = app("--run-dir", "run", *flags, draw=True)
    assert status == 0, error
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    # points × α × budgets × estimators × λ × splits × debias × MDPs
    assert len(frame) == 2 * 2 * 2 * 3 * 2 * 3 * 2 * 3
    assert (frame["drawn"] <= frame["sample_size"]).all()
    place = ["updates", "inner_lr", "sample_size"]
    found = best_choices(frame).set_index(place)
    assert len(found) == 8
    for at, rows in frame.groupby(place):
        error = rows.groupby(["estimator", "gae_lambda", "split", "debias"])["mse"].mean()
        unit = rows.groupby("mdp")["truth_sq"].first().mean()
        assert found.loc[at, "best"] == name_of(error.idxmin())
        assert found.loc[at, "mse"] == pytest.approx(error.min() / unit)
        assert found.loc[at, "usual"] == pytest.approx(error["ad", 1.0, "1:1", "none"] / error.min())
        kinds = error.index.to_frame()
        apart, jackknife = kinds["split"] == "1:1:1", kinds["debias"] != "none"
        assert found.loc[at, "apart"] == pytest.approx(error[apart].min() / error.min())
        assert found.loc[at, "jackknife"] == pytest.approx(error[jackknife].min() / error.min())
    assert (found["unseen"] >= 1).all()
    assert (tmp_path / "run" / "figures" / "budgets.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(tmp_path / "run" / "summary.csv")) == 8


def test_training_starts_alike_and_follows_the_exact_gradient_with_many_samples(app, tmp_path):
    wanted = ["--figure", "training", "--updates", "3", "--estimators", "loaded_dice", "--concentration", "1"]
    status, error = app(
        "--run-dir", "run", *wanted, "--sample-sizes", "4000", "--horizon", "40", "--discount", "0.5", draw=True
    )
    assert status == 0, error
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    table = frame.pivot_table(index=["updates", "mdp"], columns=["estimator", "debias"], values="value")
    assert table.shape == (4 * 3, 3)
    assert table.loc[0].nunique(axis=1).eq(1).all()
    gain = table["exact", "none"].loc[3] - table["exact", "none"].loc[0]
    assert (gain > 0).all()
    assert table.sub(table["exact", "none"], axis=0).abs().loc[3].max(axis=1).lt(0.1 * gain).all()
    assert (tmp_path / "run" / "figures" / "training.png").exists()


def test_a_run_that_lost_cells_ends_with_the_same_bytes(app, tmp_path):
    few = [*NARROW, "--estimators", "lvc", "--gae-lambdas", "1"]
    app("--run-dir", "run", *few)
    results = tmp_path / "run" / "results.csv"
    before = results.read_bytes()
    lost = sorted((tmp_path / "run" / "cells").glob("*.json"))[::2]
    kept = {cell: cell.stat().st_mtime_ns for cell in (tmp_path / "run" / "cells").glob("*.json") if cell not in lost}
    for cell in lost:
        cell.unlink()
    results.unlink()
    assert app("--run-dir", "run", *few)[0] == 0
    assert results.read_bytes() == before
    assert {cell: cell.stat().st_mtime_ns for cell in kept} == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--figure fig1", "--figure: expected one of frontier, budgets, training, got 'fig1'"),
        ("--splits 1:0:1", "--splits: expected a:b:c, or a:b for a batch that I and II share, got '1:0:1'"),
        ("--splits 1", "--splits: expected a:b:c, or a:b for a batch that I and II share, got '1'"),
        ("--splits 1:1 1:1", "--splits: expected different values, got ['1:1', '1:1']"),
        ("--sample-sizes 4", "--sample-sizes: expected enough for the split 1:1:1 at K = 1, got 4"),
        ("--gae-lambdas 1.5", "--gae-lambdas: expected numbers from 0 to 1, got 1.5"),
        ("--debias bootstrap", "--debias: expected none or a jackknife, got 'bootstrap'"),
        ("--debias learnt+jackknife1", "--debias: expected none or a jackknife"),
        ("--debias none learnt", "--debias: expected none or a jackknife, got 'learnt'"),
        ("--debias correction", "--debias: expected none or a jackknife, got 'correction'"),
        ("--debias vtrace", "--debias: expected none or a jackknife, got 'vtrace'"),
        ("--debias learnt+jackknife", "--debias: expected none or a jackknife, got 'learnt+jackknife'"),
        ("--debias jackknife none jackknife2", "--debias: expected different values, got jackknife and jackknife2"),
        (
            "--debias jackknife24.12",
            "blocks, order: expected at most 100000 parts, got more with 24 blocks and order 12",
        ),
        ("--splits 1:1 2:2", "--splits: expected different values, got 1:1 and 2:2"),
        ("--points 1000000000000", "--points: expected a run of at most 10 years; it takes about"),
        ("--points 200000", "--points: expected at most 100000 updates"),
        ("--updates 1000000000000", "--updates: expected at most 100000 updates"),
        (
            "--points 0 --actions 1",
            "MDP 0 after 0 updates: expected an exact meta-gradient that is finite and not zero",
        ),
        ("--points 2 --meta-lr 1e300", "MDP 0 after 2 updates: expected an exact meta-gradient that is finite and not"),
        ("--points 0 --inner-lrs 1e200", "finite and not zero, got one of length inf"),
        ("--estimators loaded_dice@1,0.5", "--estimators: expected ones without τ beside --gae-lambdas"),
        ("--estimators lvc+jackknife", "--estimators: expected plain ones beside --debias, got 'lvc+jackknife'"),
        ("--points -1", "--points: expected integers of at least 0, got (-1,)"),
        ("--points 2 2", "--points: expected different values, got [2, 2]"),
        ("--meta-lr 0", "--meta-lr: expected a positive number, got 0"),
        ("--updates 0", "--updates: expected an integer of at least 1, got 0"),
        ("--samples shared", "--samples: expected independent, since --splits says what is shared, got shared"),
        ("--permutations SSE", "--permutations: expected SSS, since every role draws samples"),
    ],
)
def test_bad_input_is_one_line_and_status_2(app, arguments, message):
    status, error = app(*arguments.split())
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_users_estimator_takes_part(app, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_estimators", raising=False)
    (tmp_path / "my_estimators.py").write_text("from gm_estimators.surrogates import ad as mine\n")
    status, error = app("--run-dir", "run", *NARROW, "--points", "0", "--estimators", "ad", "my_estimators:mine")
    assert status == 0, error
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    mine, ours = (frame[frame["estimator"] == name] for name in ("my_estimators:mine", "ad"))
    np.testing.assert_allclose(mine["mse"].to_numpy(), ours["mse"].to_numpy(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("split", ["1:1:1", "1:2:3", "1:3"])
@pytest.mark.parametrize("name", ["lvc", "lvc+jackknife", "lvc+jackknife3.2"])
def test_the_budget_is_used_and_never_exceeded(mdps, problem, monkeypatch, name, split, steps):
    """Every trajectory that is rolled out is counted, the parts of a jackknife included."""
    drawn = []

    def counted(role, step, policy, rows):
        rollout = RandomMDPs.rollout(mdps, role, step, policy, rows)
        drawn.append(rollout.action.shape[-2])
        return rollout

    monkeypatch.setattr(mdps, "rollout", counted)
    estimator = gm_estimators.load(name)
    allocation = allocate(BUDGET, split_of(split), estimator.debias, steps)
    terms = {"inner_steps": steps, "inner_lr": 3.0, "permutations": ["SSS"], "sizes": [allocation.sizes]}
    gm_estimators.decompose(problem, [estimator], **terms)
    assert sum(drawn) == allocation.drawn
    assert 0.5 * BUDGET < allocation.drawn <= BUDGET


@pytest.mark.parametrize("name", ["ad", "lvc+jackknife", "loaded_dice+jackknife3"])
@pytest.mark.parametrize("gae_lambda", [1.0, 0.5])
def test_the_lambda_of_a_choice_is_that_of_a_problem(mdps, problem, name, gae_lambda):
    plain, _, debias = name.partition("+")
    chosen = estimator_of(plain, debias or "none", gae_lambda)
    found = gm_estimators.decompose(problem, [chosen], sizes=[12], **TERMS)
    own = TabularProblem(mdps.mdp, problem.params, mdps, gae_lambda=gae_lambda)
    expected = gm_estimators.decompose(own, [gm_estimators.load(name)], sizes=[12], **TERMS)
    for (_, permutation, _), estimate in found.items():
        assert_close(estimate, expected[name, permutation, 12])


def test_a_split_of_two_shares_a_batch():
    apart, shared = (allocate(60, split_of(name), None, 1).sizes for name in ("1:1:1", "1:2"))
    assert (apart, shared) == (Sizes(20, 20, 20), Sizes(20, 20, 40, shared=True))
    debias = gm_estimators.load("lvc+jackknife").debias
    assert allocate(60, split_of("1:1:1"), debias, 1).sizes == Sizes(20, 20, 10)  # those of III twice


def test_advice_held_out_is_that_of_the_other_mdps():
    table = pd.DataFrame({0: [1.0, 2.0], 1: [9.0, 3.0], 2: [1.0, 3.0]}, index=["a", "b"])
    # without MDP 1 "a" is the best, without one of the others "b"
    assert held_out(table).tolist() == [2.0, 9.0, 3.0]
