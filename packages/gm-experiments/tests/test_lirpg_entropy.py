"""LIRPG's figure entropy: expectations against enumeration and sampled means, what the rows say, the verdict."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import gm_lab
from gm_estimators import Trajectories, decompose, exact_meta_gradient
from gm_estimators.estimator import CATALOGUE
from gm_estimators.returns import discounts, gae
from gm_exact import TabularMDP, evaluate, expectation, state_values, trajectories
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.lirpg import EXPERIMENT, Settings, settings
from gm_experiments.lirpg.claims import claims
from gm_experiments.lirpg.entropy import PRODUCTS, ExpectedObjective, ExpectedProblem, mean_entropy
from gm_experiments.lirpg.figures import by_entropy, figures, summary
from gm_experiments.lirpg.problem import LirpgProblem
from gm_experiments.lirpg.run import run_cell

F64 = torch.float64
HORIZON, GAMMA, LAMBDA, REPEATS = 3, 0.8, 0.9, 100
SMALL = ["--mdps", "3", "--repeats", "3", "--states", "4", "--actions", "2", "--horizon", "6", "--wandb", "disabled"]
NARROW = ["--sample-sizes", "4", "--inner-steps", "1", "3"]


class Tiny:
    """An MDP of two states and two actions, all whose trajectories are enumerated."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        transition = torch.rand(2, 2, 2, generator=draw, dtype=F64)
        self.reward, self.params = torch.randn(2, 2, 2, generator=draw, dtype=F64)
        self.mdp = TabularMDP(transition / transition.sum(-1, keepdim=True), self.reward, 0, GAMMA)
        self.every = trajectories(self.mdp, HORIZON)

    def read(self, log_prob: Tensor, reward: Tensor) -> Trajectories:
        """What an estimator reads where the critic is exact, both as functions of the reward."""
        value = state_values(self.mdp.with_reward(reward), self.params)[self.every.states]
        rewards = reward[self.every.states[:, :-1], self.every.actions]
        return Trajectories(log_prob, rewards, value, gae(rewards, value, GAMMA, LAMBDA), discounts(GAMMA, HORIZON + 1))

    def mean_gradient(self, name: str, theta: Tensor, reward: Tensor) -> Tensor:
        """E[∇θ f], differentiable in the reward."""
        surrogate = CATALOGUE[name].surrogate(self.read(self.every.log_probs(theta), reward))
        mean = (self.every.probability(self.params) * surrogate).sum()
        return torch.autograd.grad(mean, theta, create_graph=True)[0]


@pytest.mark.claim("expected-hessians")
@pytest.mark.parametrize("name", PRODUCTS)
def test_expected_derivatives_by_enumeration(name):
    tiny = Tiny()
    mean = expectation(
        lambda log_prob, _: CATALOGUE[name].surrogate(tiny.read(log_prob, tiny.reward)), tiny.mdp, tiny.params, HORIZON
    )
    theta, reward = tiny.params.clone().requires_grad_(), tiny.reward.clone().requires_grad_()
    gradient = tiny.mean_gradient(name, theta, reward)
    basis = torch.eye(4, dtype=F64).reshape(4, 2, 2)
    mixed = [torch.autograd.grad(gradient, reward, v, retain_graph=True)[0] for v in basis]
    objective = ExpectedObjective(evaluate(tiny.mdp, tiny.params), HORIZON, PRODUCTS[name])
    found = objective.vjp(basis)
    assert_close(found[0].reshape(2, 2, 2, 2), mean.hessian, rtol=0, atol=1e-12)
    assert_close(found[1], torch.stack(mixed), rtol=0, atol=1e-12)
    exact = evaluate(tiny.mdp, tiny.params).tangent(basis)
    assert (found[1] - exact.occupancy).abs().max() > 0.01  # three steps are far from for ever


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_horizon_is_all_that_loaded_dice_lacks(name):
    """At 200 steps the mixed derivative is exact for all estimators, the Hessian for Loaded-DiCE alone."""
    tiny = Tiny()
    evaluation, basis = evaluate(tiny.mdp, tiny.params), torch.eye(4, dtype=F64).reshape(4, 2, 2)
    exact, found = evaluation.tangent(basis), ExpectedObjective(evaluation, 200, PRODUCTS[name]).vjp(basis)
    assert_close(found[1], exact.occupancy, rtol=0, atol=1e-12)
    assert ((found[0] - exact.gradient).abs().max() < 1e-12) == (name == "loaded_dice")


@pytest.mark.claim("expected-hessians")
def test_the_mean_of_many_estimates_is_the_expectation():
    """K = 5 with the paper's noisy critic: within 4.5 standard errors; that of another estimator is not.

    Along random directions, since a single entry may be that of a step that is taken once in a million.
    """
    chosen = Settings(
        figure=("entropy",), mdps=2, repeats=REPEATS, sample_sizes=(64,), inner_steps=(5,), estimators=tuple(PRODUCTS)
    )
    (cell,) = settings.cells(chosen)
    mdps = RandomMDPs(cell, "cpu")
    many = LirpgProblem(mdps.mdp, mdps.zeros(), mdps, mdps.zeros().requires_grad_(), gae_lambda=LAMBDA)
    estimates = decompose(many, [CATALOGUE[name] for name in PRODUCTS], permutations=["ESE"], sizes=[64], **cell.terms)
    one, horizon = (mdps.mdp, mdps.zeros()[:, :1], mdps, mdps.zeros()[:, :1]), chosen.horizon
    expected = {
        name: exact_meta_gradient(ExpectedProblem(*one, estimator=name, trajectory_horizon=horizon), **cell.terms)
        for name in PRODUCTS
    }
    directions = torch.randn(20, 2, 1, 20, 5, generator=torch.Generator().manual_seed(0), dtype=F64)

    def off(name: str, truth: Tensor) -> float:
        """The largest distance of a mean from a truth, in standard errors."""
        error = ((estimates[name, "ESE", 64] - truth) * directions).sum((-2, -1))
        return float((error.mean(-1) / (error.std(-1) / REPEATS**0.5)).abs().max())

    assert max(off(name, expected[name]) for name in PRODUCTS) < 4.5
    assert min(off(name, expected["loaded_dice"]) for name in ("lvc", "ad")) > 10


def test_entropy_by_hand():
    """From state 0, uniform, to state 1, deterministic: at γ = ½ both are visited 1 = ½ + ¼ + … times."""
    transition = torch.tensor([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], dtype=F64)
    mdp = TabularMDP(transition, torch.zeros(2, 2, dtype=F64), 0, 0.5)
    logits = torch.tensor([[0, 0], [0, -torch.inf]], dtype=F64)
    assert mean_entropy(evaluate(mdp, logits)) == pytest.approx(0.5)
    assert mean_entropy(evaluate(mdp, torch.zeros(2, 2, dtype=F64))) == pytest.approx(1)


@pytest.fixture
def measure(rows_of):
    return partial(rows_of, EXPERIMENT, *SMALL)


def test_what_the_rows_say(measure):
    frame = measure("--figure", "entropy", *NARROW, "--estimators", "lvc", "dice", "--permutations", "ESE", "SSS")
    assert len(frame) == 2 * 2 * 2 * 3
    uniform, later = (frame[frame["inner_steps"] == steps] for steps in (1, 3))
    assert uniform["entropy"].tolist() == pytest.approx([1.0] * 12)
    assert later["entropy"].between(0, 1, inclusive="neither").all()
    known = (frame["estimator"] == "lvc") & (frame["permutation"] == "ESE")
    for column in ("expected_accuracy", "expected_bias"):
        assert frame[column].notna().tolist() == known.tolist()
    assert frame.loc[known, "expected_accuracy"].between(-1, 1 + 1e-12).all()


def test_the_other_figures_keep_their_numbers(measure):
    alone = measure("--figure", "fig1", *NARROW)
    both = measure("--figure", "fig1", "entropy", *NARROW)
    of_paper = both[both["figure"] == "fig1"].reset_index(drop=True)
    assert of_paper[list(settings.EXTRA)].isna().all(axis=None)
    pd.testing.assert_frame_equal(of_paper[alone.columns], alone)
    assert set(alone.columns) == set(settings.COLUMNS)


def test_an_mdp_has_its_rows_however_many_there_are(measure):
    one, more = (measure("--figure", "entropy", *NARROW, "--mdps", str(n)) for n in (1, 3))
    pd.testing.assert_frame_equal(one, more[more["mdp"] == 0].reset_index(drop=True))


def test_more_mdps_for_an_open_claim_are_those_of_a_larger_run(measure):
    """The claim asks for LVC's expectation at 256 trajectories and K = 5 alone."""
    (verdict,) = claims(ENTROPY, results(0.0))
    chosen = Settings(figure=("entropy",), mdps=2, repeats=2, states=4, actions=2, horizon=6)
    (cell,) = settings.further_cells(chosen, range(2, 4), verdict.needs)
    assert (cell.mdps, cell.inner_steps) == ((2, 3), 5)
    found = pd.DataFrame(run_cell(cell, gm_lab.Context()))
    flags = ["--mdps", "4", "--repeats", "2", "--inner-steps", "5", "--estimators", "lvc"]
    whole = measure("--figure", "entropy", *flags)
    pd.testing.assert_frame_equal(
        found[whole.columns], whole[whole["mdp"] > 1].reset_index(drop=True), check_exact=False, rtol=1e-9
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--critic none", "--critic: expected paper or all with --figure entropy, got none"),
        ("--intrinsic-critic detached", "--intrinsic-critic: expected depends with --figure entropy, got detached"),
        ("--actions 1", "--actions: expected at least 2 with --figure entropy, got 1"),
    ],
)
def test_what_the_expectation_is_not_about_is_refused(run_app, flags, message):
    status, error = run_app(EXPERIMENT, *SMALL, "--figure", "entropy", *flags.split())
    assert (status, error.splitlines()[-1]) == (2, f"lirpg_tabular: {message}")
    assert settings.cells(replace(Settings(), critic="none"))


def results(slope: float) -> pd.DataFrame:
    """200 MDPs at K = 5 where LVC's accuracy grows with the entropy by that slope, and Loaded-DiCE's is 1."""
    rng, rows = np.random.default_rng(0), []
    for mdp in range(200):
        entropy = rng.random()
        accuracy = {"lvc": 0.92 + slope * (entropy - 0.5) + 0.02 * rng.standard_normal(), "loaded_dice": 1.0}
        place = {"figure": "entropy", "permutation": "ESE", "sample_size": 256, "inner_steps": 5, "mdp": mdp}
        place |= {"inner_lr": 10.0}
        rows += [
            place
            | {"estimator": name, "accuracy": x - 0.01, "entropy": entropy, "expected_accuracy": x}
            | {"std_sum": 1.0, "variance": 1.0, "bias_sq": 0.0, "truth_sq": 1.0}
            for name, x in accuracy.items()
        ]
    return pd.DataFrame(rows)


ENTROPY = Settings(figure=("entropy",))


@pytest.mark.claim("LIRPG-OWN-1")
@pytest.mark.parametrize(("slope", "outcome"), [(0.1, "supported"), (0.0, "undecided"), (-0.1, "contradicted")])
def test_the_claim(slope, outcome):
    (verdict,) = claims(ENTROPY, results(slope))
    assert (verdict.id, verdict.verdict) == ("LIRPG-OWN-1", outcome)


def test_the_rank_correlation_is_spearmans():
    frame = results(0.02)
    of_lvc = frame[frame["estimator"] == "lvc"]
    expected = of_lvc["entropy"].rank().corr(of_lvc["expected_accuracy"].rank())
    (verdict,) = claims(ENTROPY, frame)
    values = verdict.comparisons[0].comparison.values
    assert values is not None
    assert values.mean() == pytest.approx(expected, abs=1e-4)  # but for a factor of 1 − 1/n²


def test_what_is_counted_on_either_side_of_the_median():
    frame = results(-0.1)
    of_lvc = frame[frame["estimator"] == "lvc"]
    low, beyond = of_lvc["expected_accuracy"] < 0.9, of_lvc["entropy"] > of_lvc["entropy"].median()
    (verdict,) = claims(ENTROPY, frame)
    label = verdict.comparisons[1].comparison.label
    assert label.endswith(f"({(low & ~beyond).sum()} and {(low & beyond).sum()} of 200 MDPs)")


def test_the_claim_is_not_decided_without_its_rows():
    (verdict,) = claims(ENTROPY, results(0.1).query("inner_steps == 1"))
    assert verdict.verdict == "not measured"
    both = claims(Settings(figure=("fig1", "entropy")), results(0.1))
    assert [verdict.id for verdict in both][-2:] == ["LIRPG-5", "LIRPG-OWN-1"]


def test_the_table_has_a_tenth_of_the_mdps_in_each_row():
    table = summary(ENTROPY, results(0.1))
    assert table["tenth"].tolist() == list(range(1, 11))
    assert table["entropy"].is_monotonic_increasing
    assert table["LVC: median"].corr(table["entropy"]) > 0.9
    assert (table["LVC: least"] <= table["LVC: median"]).all()
    assert set(table["Loaded-DiCE: median"]) == {1.0}
    assert len(by_entropy(results(0.1).query("mdp < 3"))) == 3  # fewer MDPs than groups
    some = by_entropy(results(0.1).query("estimator == 'lvc' or mdp < 100"))
    pd.testing.assert_frame_equal(some, by_entropy(results(0.1).query("mdp < 100")))


def test_the_picture_says_how_often_accuracy_is_low():
    frame = results(0.1)
    drawn = figures(ENTROPY, frame)["entropy"]
    low = int((frame["expected_accuracy"] < 0.9).sum())
    assert f"LVC’s in {low} of 200 MDPs" in gm_lab.finding_of(drawn)
    assert "Loaded-DiCE’s in none of 200 MDPs" in gm_lab.finding_of(drawn)
    assert low > 10


def test_a_run_draws_it(run_app, tmp_path):
    status, _ = run_app(EXPERIMENT, *SMALL, "--figure", "entropy", *NARROW, "--run-dir", "run")
    assert status == 0
    assert (tmp_path / "run" / "figures" / "entropy.png").read_bytes().startswith(b"\x89PNG")
