"""The attribution experiment end to end, and what clipping and Adam are to it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import gm_estimators
import gm_lab
from gm_experiments.attribution import EXPERIMENT
from gm_experiments.attribution.run import estimates, run_cell, trained
from gm_experiments.attribution.settings import GRID, Cell
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.settings import Tabular
from gm_experiments.maml.problem import maml

SMALL = ["--mdps", "3", "--repeats", "3", "--states", "4", "--actions", "2", "--horizon", "5", "--wandb", "disabled"]
NARROW = ["--sample-sizes", "8", "--points", "0", "2", "--estimators", "lvc", "ad"]


@pytest.fixture
def app(run_app):
    """Runs the app, without drawing unless asked."""

    def run(*arguments, draw=False):
        experiment = EXPERIMENT if draw else replace(EXPERIMENT, figures=lambda *_: {})
        return run_app(experiment, *SMALL, *arguments)

    return run


def test_shares_sum_to_the_error_and_lost_cells_come_back(app, tmp_path):
    status, error = app("--run-dir", "run", *NARROW, draw=True)
    assert status == 0, error
    results = tmp_path / "run" / "results.csv"
    frame = pd.read_csv(results)
    assert tuple(frame.columns) == EXPERIMENT.columns
    assert len(frame) == 2 * 2 * 3 * (7 + 1)
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()
    for measure in ("bias_sq", "variance"):
        table = frame.pivot_table(index=["estimator", "updates", "mdp"], columns="source", values=measure)
        assert table.abs().max().min() > 0
        np.testing.assert_allclose(
            table.drop(columns="all").sum(axis=1).to_numpy(), table["all"].to_numpy(), rtol=1e-7, atol=1e-7
        )
    assert (tmp_path / "run" / "figures" / "attribution.png").read_bytes().startswith(b"\x89PNG")

    before = results.read_bytes()
    for cell in sorted((tmp_path / "run" / "cells").glob("*.json"))[::2]:
        cell.unlink()
    results.unlink()
    assert app("--run-dir", "run", *NARROW)[0] == 0
    assert results.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--sources noise", "--sources: expected one of composition, hessian, outer, shared_batch"),
        ("--sources adam adam", "--sources: expected different values"),
        ("--points -2", "--points: expected integers of at least 0"),
        ("--points 1 1", "--points: expected different values"),
        ("--meta-lr -1", "--meta-lr: expected a positive number"),
        ("--clip-norm 0", "--clip-norm: expected a positive number"),
        ("--samples shared", "--samples: expected independent, since shared_batch is a source"),
        ("--permutations SSE", "--permutations: expected SSS, since --sources says what is exact"),
        ("--estimators nobody", "--estimators: expected one of ad, dice"),
        ("--points 1000000000000", "--points: expected a run of at most 10 years; it takes about"),
        ("--points 200000", "--points: expected at most 100000 updates"),
        (
            "--points 0 --actions 1",
            "MDP 0 after 0 updates: expected an exact meta-gradient that is finite and not zero",
        ),
        ("--points 2 --meta-lr 1e300", "MDP 0 after 2 updates: expected an exact meta-gradient that is finite and not"),
        ("--points 0 --inner-lrs 1e200", "finite and not zero, got one of length inf"),
    ],
)
def test_bad_input_is_one_line_and_status_2(app, arguments, message):
    status, error = app(*arguments.split())
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture
def cell():
    grid = replace(GRID, estimators=("lvc",), sample_sizes=(6,))
    small = Tabular(repeats=4, states=4, actions=3, horizon=5)
    return Cell(0, (0, 1), 2, 3.0, (("attribution", grid),), small, updates=3)


def test_without_clipping_and_adam_the_shares_are_those_of_the_library(cell):
    some = ("composition", "hessian", "outer", "shared_batch")
    found = pd.DataFrame(run_cell(replace(cell, sources=some), gm_lab.Context()))

    def problem(extras):
        assert not extras  # a shared batch is no matter of the problem
        settings = replace(cell.tabular, critic_noise=0.0)
        mdps = RandomMDPs(replace(cell, tabular=settings), "cpu")
        at, _ = trained(cell, mdps)
        return maml(mdps, at.expand(mdps.shape).contiguous())

    terms = {"sample_size": 6, "inner_steps": 2, "inner_lr": 3.0}
    lvc = gm_estimators.load("lvc")
    expected = gm_estimators.attribution.attribution(problem, lvc, extras=("shared_batch",), **terms)
    for measure, shares in expected.items():
        for source, share in shares.items():
            np.testing.assert_allclose(
                found[found["source"] == source][measure].to_numpy(), share.numpy(), rtol=1e-7, atol=1e-7
            )


def test_the_ideal_of_a_learnt_critic_is_the_exact_one(cell):
    """Its share is that of learning; with the exact critic a name with and without +learnt is the same estimator."""
    mdps = RandomMDPs(cell, "cpu")
    params, _ = trained(cell, mdps)
    at = params.expand(mdps.shape).contiguous()
    learnt, given = (estimates(cell, mdps, at, name, 6) for name in ("lvc+learnt", "lvc"))
    ideal, practice = learnt(frozenset()), learnt(frozenset({"critic"}))
    for permutation, estimate in given(frozenset()).items():
        assert torch.equal(ideal[permutation], estimate)
    assert (ideal["ESE"] - practice["ESE"]).abs().max() > 1e-3

    grid = replace(cell.grids[0][1], estimators=("lvc+learnt",))
    found = pd.DataFrame(run_cell(replace(cell, grids=(("attribution", grid),)), gm_lab.Context()))
    assert found[found["source"] == "critic"][["bias_sq", "variance"]].abs().to_numpy().min() > 1e-6
