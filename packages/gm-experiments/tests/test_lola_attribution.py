"""Attribution in matrix games end to end; its shares against direct measurement, its critic against known values."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

import gm_exact
import gm_lab
from gm_estimators import Sizes, decompose
from gm_estimators.attribution import MEASURES, AdamDistortion
from gm_experiments.attribution import figures, sources
from gm_experiments.attribution.lola import EXPERIMENT
from gm_experiments.attribution.lola.problem import estimates, look_ahead, state_values, trained
from gm_experiments.attribution.lola.run import run_cell
from gm_experiments.attribution.lola.settings import Cell
from gm_experiments.lola import Arm, Game
from gm_experiments.lola.learner import Learner
from gm_experiments.lola.problem import exact_meta_gradients

SMALL = [
    "--estimators",
    "dice",
    "--horizon",
    "6",
    "--seeds",
    "2",
    "--repeats",
    "3",
    "--sample-sizes",
    "4",
    "--points",
    "0",
    "2",
]


@pytest.fixture
def app(run_app):
    """Runs the app, without drawing unless asked."""

    def run(*arguments, draw=False):
        experiment = EXPERIMENT if draw else replace(EXPERIMENT, figures=lambda *_: {})
        return run_app(experiment, "--wandb", "disabled", *SMALL, *arguments)

    return run


@pytest.fixture
def cell():
    game = Game(horizon=6, updates=3, inner_lr=1.0)
    return Cell(0, (0, 1), game, ("dice",), (4,), "exact", ("composition",), 1.0, 5)


def measured(cell, learner, followed):
    """The estimates with everything in practice, and the truth."""
    adam = AdamDistortion.after(followed, exact_meta_gradients(learner.game, learner.policies))
    in_practice = sources.in_practice(estimates(cell, learner, 4), adam, cell.clip_norm)
    return in_practice(frozenset(cell.sources)), adam.truth


@pytest.mark.parametrize("path", ["exact", "sampled"])
def test_shares_sum_to_the_error_and_lost_cells_come_back(app, tmp_path, path):
    status, error = app("--run-dir", "run", "--path", path, "--inner-steps", "2", draw=path == "exact")
    assert status == 0, error
    results = tmp_path / "run" / "results.csv"
    frame = pd.read_csv(results)
    assert tuple(frame.columns) == EXPERIMENT.columns
    assert len(frame) == 2 * 2 * (7 + 1)
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()
    for measure in ("bias_sq", "variance"):
        table = frame.pivot_table(index=["updates", "seed"], columns="source", values=measure)
        assert table.abs().max().min() > 0
        np.testing.assert_allclose(
            table.drop(columns="all").sum(axis=1).to_numpy(), table["all"].to_numpy(), rtol=1e-7, atol=1e-7
        )
        closing = figures.summary(EXPERIMENT.settings(), frame).set_index(["of", "% of ‖∇φJ‖²"])
        label = {"bias_sq": "DiCE, bias²", "variance": "DiCE, variance"}[measure]
        for point, rows in frame[frame["source"] == "all"].groupby("updates"):
            expected = 100 * rows[measure].mean() / rows["truth_sq"].mean()
            assert closing.loc[(label, "whole"), f"{point}"] == pytest.approx(expected, abs=0.005)
    if path == "exact":
        assert (tmp_path / "run" / "figures" / "attribution.png").read_bytes().startswith(b"\x89PNG")

    before = results.read_bytes()
    for kept in sorted((tmp_path / "run" / "cells").glob("*.json"))[::2]:
        kept.unlink()
    results.unlink()
    assert app("--run-dir", "run", "--path", path, "--inner-steps", "2")[0] == 0
    assert results.read_bytes() == before


def test_a_single_source_has_the_error_that_is_measured_directly(cell):
    """composition alone: exact derivatives along the step that the trajectories make, by gm-exact alone."""
    learner, followed = trained(cell, "dice", 4)
    practice, truth = measured(cell, learner, followed)
    problem = look_ahead(cell, learner, state_values(learner.game, learner.policies), 4, shared=False)
    start = problem.at(problem.params)
    sample = start.draw(0, {"inner": slice(4)})["inner"]
    end = problem.at(problem.params + start.sampled("inner", learner.estimator, sample).gradient)
    inner, outer = start.exact("inner"), end.exact("outer")
    expected = outer.meta_gradient + inner.vjp(outer.gradient.unsqueeze(0))[1][0]
    assert_close(practice, expected.reshape(2, 5, 2, 5).transpose(1, 2))

    rows = pd.DataFrame(run_cell(cell, gm_lab.Context())).set_index(["source", "seed"])
    for name, measure in MEASURES.items():
        direct = measure(practice, truth).mean(-1).tolist()
        np.testing.assert_allclose(rows.loc["composition"][name], direct, rtol=1e-9)
        np.testing.assert_allclose(rows.loc["all"][name], direct, rtol=1e-9)
    assert (rows["variance"] > 0).all()


def test_everything_in_practice_is_the_estimate_of_training_itself(cell):
    """With independent batches and no clipping or Adam: `decompose` of a look-ahead on the same trajectories."""
    cell = replace(cell, sources=("composition", "hessian", "outer", "critic"))
    learner, followed = trained(cell, "dice", 4)
    practice, _ = measured(cell, learner, followed)
    again = Learner(cell.game, Arm("", inner=4, hessian=4, outer=4), 10, np.random.default_rng(0))
    again.policies, again.critics = (x.repeat_interleave(5, 0) for x in (learner.policies, learner.critics))
    common = look_ahead(cell, learner, learner.critics, 4, shared=False)
    theirs = replace(again.look_ahead(again.start()), start=common.start, player=common.player)
    settings = {"permutations": ["SSS"], "sizes": [Sizes.each(4)], "inner_steps": 1, "inner_lr": 1.0}
    (expected,) = decompose(theirs, [learner.estimator], **settings).values()
    assert_close(practice, expected.reshape(2, 5, 2, 5).transpose(1, 2))
    assert learner.critics.abs().min() > 0


def test_every_set_of_sources_reads_the_same_trajectories(cell):
    learner, _ = trained(cell, "dice", 4)
    apart, shared = (look_ahead(cell, learner, learner.critics, 4, shared=shared) for shared in (False, True))
    assert torch.equal(apart.start["inner"].outcome, shared.start["inner"].outcome)
    assert not torch.equal(apart.start["inner"].outcome, apart.start["hessian"].outcome)
    policies = torch.zeros(10, 2, 2, 5, dtype=torch.float64)
    first, second = (ahead.player.play(1, ["outer"], policies)["outer"].outcome for ahead in (apart, shared))
    assert torch.equal(first, second)


def test_what_is_exact_has_no_error_and_a_shared_batch_alone_neither(cell):
    for only in ("shared_batch", "critic"):
        rows = pd.DataFrame(run_cell(replace(cell, sources=(only,)), gm_lab.Context()))
        assert len(rows) == 2 * 2
        assert rows[["bias_sq", "variance"]].abs().to_numpy().max() < 1e-12


def test_adam_alone_leaves_the_exact_gradient_where_it_is(cell):
    rows = pd.DataFrame(run_cell(replace(cell, sources=("clipping", "adam")), gm_lab.Context()))
    assert rows[["bias_sq", "variance"]].abs().to_numpy().max() < 1e-9


def test_the_exact_path_follows_the_truth_and_the_sampled_one_its_estimates(cell):
    learner, followed = trained(cell, "dice", 4)
    assert len(followed) == 3
    assert_close(followed[0], exact_meta_gradients(learner.game, torch.zeros_like(learner.policies)))
    assert_close(learner.policies[0], learner.policies[1])
    sampled, _ = trained(replace(cell, path="sampled"), "dice", 4)
    assert (sampled.policies[0] - sampled.policies[1]).abs().max() > 1e-3


def test_the_ideal_critic_knows_the_value_of_every_state():
    """At the start the game's own value; after (own, other) the reward to come, by one step of Bellman's equation."""
    torch.manual_seed(0)
    game, params = Game(game="chicken"), torch.randn(3, 2, 5, dtype=torch.float64)
    values = state_values(game, params)
    payoffs = game.matrix_game().tensor()
    own = torch.stack((params[:, 0], params[:, 1][:, [0, 1, 3, 2, 4]]), 1)  # player 2 calls (1, 0) what is (0, 1) to 1
    assert_close(values[..., 0], gm_exact.game_value(payoffs, own, discount=game.discount))
    first, second = (torch.stack((p.sigmoid(), (-p).sigmoid()), -1) for p in params.unbind(1))
    joint = torch.einsum("nsa,nsb->nsab", first, second).flatten(-2)
    backed_up = torch.einsum("nso,npo->nps", joint, payoffs.flatten(-2) + game.discount * values[..., 1:])
    assert_close(values, backed_up)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--sources noise", "--sources: expected one of composition, hessian, outer, shared_batch"),
        ("--points -2", "--points: expected integers of at least 0"),
        ("--points 1 1", "--points: expected different values"),
        ("--clip-norm 0", "--clip-norm: expected a positive number"),
        ("--inner-lr -1", "--inner-lr: expected a number above 0 and up to 1e30"),
        ("--repeats 1", "--repeats: expected an integer of at least 2"),
        ("--sample-sizes 0", "--sample-sizes: expected integers of at least 1"),
        ("--discount 1", "--discount: expected 0 ≤ γ < 1"),
        ("--game go", "--game: expected one of"),
        ("--estimators nobody", "--estimators: expected one of ad, dice"),
        ("--estimators dice dice", "--estimators: expected different values"),
        ("--device tpu", "--device: expected auto or cpu"),
        ("--points 1000000000000", "--points: expected a run of at most 10 years; it takes about"),
        (
            "--game matching-pennies --points 0",
            "seed 0 after 0 updates: expected an exact meta-gradient that is finite",
        ),
        ("--inner-lr 1e300 --points 0", "--inner-lr: expected a number above 0 and up to 1e30, got 1e+300"),
    ],
)
def test_bad_input_is_one_line_and_status_2(app, arguments, message):
    status, error = app(*arguments.split())
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


def test_help_names_the_flags(app, capsys):
    with pytest.raises(SystemExit) as stop:
        app("--help")
    assert stop.value.code == 0
    assert all(flag in capsys.readouterr().out for flag in ("--path",))
