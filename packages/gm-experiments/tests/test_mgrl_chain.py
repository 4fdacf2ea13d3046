"""MGRL in the discounting chain: its parts against definitions, what it finds, and the experiment around it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import gm_estimators as estimators
import gm_lab
from gm_estimators.returns import gae, returns_to_go
from gm_experiments.mgrl_chain import EXPERIMENT, claims, findings, learner, problem, run
from gm_experiments.mgrl_chain.figures import with_lines
from gm_experiments.mgrl_chain.settings import (
    COLUMNS,
    FIXED,
    INNER,
    META,
    OUTER,
    TARGET,
    Chain,
    ChainCell,
    Curve,
    Settings,
    cells,
    further_cells,
)
from gm_lab.analysis import mean_interval

CHAINS = problem.Chains()
FEW = ("--updates", "4", "--inner-steps", "2", "--trajectories", "8")


def streams(count=3, seed=0):
    return [np.random.Generator(np.random.SFC64([seed, number])) for number in range(count)]


def agents(curve, **settings):
    """Three seeds of one curve, a few trajectories each."""
    asked = {"trajectories": 16, **settings}
    return learner.Learner(Chain(**asked), curve, streams(seed=0), streams(seed=1), streams(seed=2))


def policies(spread=0.5):
    return CHAINS.new_policies(streams()) * spread / problem.SPREAD


def test_returns_are_the_discounted_sums_of_what_comes():
    discounts = torch.tensor([0.9, 0.97, 1.0])
    expected = [returns_to_go(CHAINS.rewards, float(discount)) for discount in discounts]
    torch.testing.assert_close(CHAINS.returns(discounts), torch.stack(expected))


def test_exact_values_leave_no_temporal_difference():
    """δ is zero after the choice, and the choice's advantages have mean zero under the policy."""
    discount, log_policy = torch.tensor([0.9, 0.97, 1.0]), CHAINS.log_policy(policies())
    advantage = CHAINS.advantages(CHAINS.exact_values(discount, log_policy), discount, 0.0)
    torch.testing.assert_close(advantage[:, 1:], torch.zeros_like(advantage[:, 1:]), rtol=0, atol=1e-6)
    mean = (log_policy[:, 0].exp() * advantage[:, 0]).sum(-1)
    torch.testing.assert_close(mean, torch.zeros(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_advantages_are_gae_along_each_chain(gae_lambda):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, CHAINS.actions, CHAINS.horizon + 1, generator=generator)
    discount = torch.tensor([0.9, 0.97, 1.0])
    found = CHAINS.advantages(values, discount, gae_lambda)
    for seed, gamma in enumerate(discount):
        path = gae(CHAINS.rewards, values[seed], float(gamma), gae_lambda)
        torch.testing.assert_close(found[seed, 0], path[:, 0])
        later = found[seed, 1:-1].reshape(CHAINS.actions, CHAINS.horizon - 1, CHAINS.actions)
        torch.testing.assert_close(later, path[:, 1:, None].expand_as(later))
    assert (found[:, -1] == 0).all()


def test_a_learnt_critic_goes_to_the_exact_one_where_it_has_been():
    discount, log_policy = torch.tensor([0.9, 0.97, 1.0]), CHAINS.log_policy(policies())
    values, rngs = CHAINS.new_values(3), streams()
    for _ in range(60):
        batch = CHAINS.draw(log_policy, 64, rngs)
        values = CHAINS.learnt_values(values, discount, batch, 0.2)
    exact = CHAINS.exact_values(discount, log_policy)
    torch.testing.assert_close(values[..., 1:], exact[..., 1:], rtol=0, atol=1e-4)
    torch.testing.assert_close(values[..., 0], exact[..., 0], rtol=0, atol=0.05)  # of a mean that is sampled
    never = replace(batch, chosen=torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]).expand(3, 5))
    moved = CHAINS.learnt_values(values * 2, discount, never, 0.5)
    assert torch.equal(moved[:, 1:, 1:], 2 * values[:, 1:, 1:])
    torch.testing.assert_close(moved[:, 0, 1:], 1.5 * exact[:, 0, 1:], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", problem.STEPWISE)
def test_how_often_each_action_is_taken_is_all_that_a_sum_over_steps_needs(name):
    """Value, gradient and Hessian of the objective are those of the trajectories themselves."""
    weights, estimator = policies().requires_grad_(), estimators.load(name)
    values = torch.rand(3, CHAINS.actions, CHAINS.horizon + 1, generator=torch.Generator().manual_seed(0))
    found = []
    for whole in (False, True):
        log_policy = CHAINS.log_policy(weights)
        batch = CHAINS.draw(log_policy, 32, streams(), whole=True)
        advantage = CHAINS.advantages(values, torch.tensor([0.9, 0.97, 1.0]), 0.0)
        own = replace(estimator, name="own") if whole else estimator
        objective = CHAINS.objective(own, log_policy, batch, advantage, 0.005)
        (gradient,) = torch.autograd.grad(objective.sum(), weights, create_graph=True)
        (curvature,) = torch.autograd.grad(gradient.square().sum(), weights)
        found.append((objective.detach(), gradient.detach(), curvature))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_the_meta_gradient_is_the_derivative_of_what_three_updates_lead_to(monkeypatch):
    """With AD, batches and critics that stay as they are: then it is a function of φ, and central differences tell."""
    for module in (problem, learner):
        monkeypatch.setattr(module, "DTYPE", torch.float64)
    training = agents(Curve(META, "ad", OUTER), critic_lr=0.0, inner_lr=30.0)
    training.weights = training.weights * 50
    random = torch.Generator().manual_seed(0)
    for values in training.values.values():
        values[..., 1:-1] = torch.rand(values[..., 1:-1].shape, generator=random, dtype=torch.float64)
    batch = training.chains.draw(training.chains.log_policy(training.weights), 16, streams())
    monkeypatch.setattr(training.chains, "draw", lambda *_: batch)

    def led_to(phi):
        ended = estimators.inner_loop(
            training.inner_objective, phi, training.weights, inner_steps=3, inner_lr=training.settings.inner_lr
        )
        return training.outer_objective(ended.detach().requires_grad_()).detach()

    gradient, _ = training.meta_gradient()
    step = 1e-4
    differences = (led_to(training.phi + step) - led_to(training.phi - step)) / (2 * step)
    assert gradient.abs().min() > 1e-6
    torch.testing.assert_close(gradient, differences, rtol=1e-5, atol=1e-10)


def test_a_target_is_so_many_updates_on_and_leaves_the_critics_alone():
    training = agents(Curve(TARGET, "ad", OUTER), target_steps=3)
    training.values["outer"] += 0.3
    before, calls = dict(training.values), []
    inner, outer = training.inner_objective, training.outer_objective
    training.inner_objective = lambda *arguments: calls.append("inner") or inner(*arguments)
    training.outer_objective = lambda *arguments: calls.append("outer") or outer(*arguments)
    distance = training.distance(training.phi, training.weights.requires_grad_())
    assert calls == ["inner", "inner", "outer"]
    assert (distance > 0).all()
    assert distance.requires_grad
    assert all(training.values[name] is values for name, values in before.items())


@pytest.mark.parametrize("values", ["learnt", "exact"])
def test_the_critic_of_the_outer_objective_decides_where_the_discount_goes(values):
    """The published effect, before long: down with the inner critic, up with an outer one."""
    ends = {}
    for critic in (INNER, OUTER):
        chain = Chain(updates=150, trajectories=32, values=values)
        cell = ChainCell(0, tuple(range(10)), Curve(META, "ad", critic), chain)
        gammas = [row["gamma"] for row in run.run_cell(cell, gm_lab.Context()) if row["update"] == 150]
        ends[critic] = mean_interval(gammas)
    assert ends[INNER].high < ends[OUTER].low


def test_a_seed_has_its_numbers_however_many_there_are(rows_of):
    fewer, more = (rows_of(EXPERIMENT, *FEW, "--methods", "meta-gradient", "--seeds", seeds) for seeds in ("2", "12"))
    shared = more[more["seed"] < 2].reset_index(drop=True)
    key = ["curve", "seed", "update"]
    pd.testing.assert_frame_equal(
        fewer.sort_values(key, ignore_index=True), shared.sort_values(key, ignore_index=True), check_exact=True
    )
    last = more[(more["update"] == 4) & (more["curve"] == "ad meta-gradient outer")]
    assert last["gamma"].nunique() == 12


def test_curves_draw_by_the_same_numbers(rows_of):
    """Before γ has moved, a learnt γ and a fixed one do the same."""
    frame = rows_of(EXPERIMENT, *FEW, "--seeds", "2", "--discounts", "0.95")
    first = frame[frame["update"] == 0]
    assert first.groupby("seed")["episode_return"].nunique().tolist() == [1, 1]
    one = run.run_cell(ChainCell(0, (0,), Curve(META, "ad", OUTER), Chain(updates=2, inner_steps=2)), gm_lab.Context())
    other = run.run_cell(
        ChainCell(0, (0,), Curve(FIXED, discount=0.95), Chain(updates=2, inner_steps=2)), gm_lab.Context()
    )
    assert one[-1]["episode_return"] == pytest.approx(other[-1]["episode_return"], rel=1e-6)


def test_a_run_leaves_what_it_promises_and_goes_on_byte_for_byte(run_app, tmp_path):
    line = (*FEW, "--seeds", "2", "--wandb", "disabled", "--run-dir", "run")
    status, error = run_app(EXPERIMENT, *line)
    assert status == 0, error
    results = (tmp_path / "run" / "results.csv").read_bytes()
    frame = pd.read_csv(tmp_path / "run" / "results.csv", keep_default_na=False)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 8 * 2 * 3  # curves, seeds, updates 0, 2 and 4
    for figure in ("chain", "lvc"):
        assert (tmp_path / "run" / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    verdicts = json.loads((tmp_path / "run" / "claims.json").read_text())
    assert [verdict["id"] for verdict in verdicts] == [f"CHAIN-{i}" for i in range(1, 5)]
    for lost in sorted((tmp_path / "run" / "cells").iterdir())[::2]:
        lost.unlink()
    assert run_app(EXPERIMENT, *line)[0] == 0
    assert (tmp_path / "run" / "results.csv").read_bytes() == results


def test_a_users_estimator_is_one_more(rows_of, tmp_path, monkeypatch):
    body = "return (t.discount[..., :-1] * t.advantage * (t.log_prob - t.log_prob.detach()).exp()).sum(-1)"
    (tmp_path / "my_chain.py").write_text(f"def right(t):\n    {body}\n\ndef wrong(t):\n    return t.log_prob\n")
    monkeypatch.delitem(sys.modules, "my_chain", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    asked = ["--estimators", "lvc", "my_chain:right", "loaded_dice", "--methods", "meta-gradient", "--seeds", "2"]
    frame = rows_of(EXPERIMENT, *FEW, "--critics", "outer", *asked)
    last = frame[frame["update"] == 4].set_index(["estimator", "seed"])["gamma"]
    np.testing.assert_allclose(last["my_chain:right"], last["lvc"], rtol=1e-5)
    with pytest.raises(gm_lab.BadInput, match="estimator my_chain:wrong: surrogate: expected one number"):
        rows_of(EXPERIMENT, *FEW, "--estimators", "my_chain:wrong", "--methods", "meta-gradient")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--updates 5 --inner-steps 3", "--updates: expected a multiple of --inner-steps, 3, got 5"),
        ("--discount 0.9", "--discount: expected a number between --least-discount, 0.9, and 1, got 0.9"),
        ("--discount nan", "--discount: expected finite numbers, got nan"),
        ("--least-discount 1", "--least-discount: expected 0 ≤ γ < 1, got 1.0"),
        ("--discounts 0.5 1.5", "--discounts: expected 0 ≤ γ ≤ 1, got (0.5, 1.5)"),
        ("--discounts 0.5 0.5", "--discounts: expected different values, got [0.5, 0.5]"),
        ("--critics best", "--critics: expected one of inner, outer, got 'best'"),
        ("--values guessed", "--values: expected one of learnt, exact, got 'guessed'"),
        ("--estimators advantage", "--estimators: expected one of"),
        ("--targets ad+jackknife", "--targets: expected"),
        ("--methods", "--methods: expected at least one value, got none"),
        ("--methods fixed fixed", "--methods: expected different values, got ['fixed', 'fixed']"),
        ("--seeds 0", "--seeds: expected an integer of at least 1, got 0"),
        ("--critic-lr 2", "--critic-lr: expected a number above 0 and up to 1, got 2.0"),
        ("--device cuda", "--device: expected auto or cpu, since this app computes on the CPU, got cuda"),
    ],
)
def test_bad_input_is_one_line(run_app, tmp_path, arguments, message):
    status, error = run_app(EXPERIMENT, *arguments.split())
    assert status == 2, error
    assert error.splitlines()[-1].startswith(f"mgrl_chain: {message}")
    assert not list(tmp_path.iterdir())


def test_policies_that_are_no_numbers_are_refused(rows_of):
    with pytest.raises(
        gm_lab.BadInput, match=r"expected finite policies, got .* at curve ad meta-gradient inner; smaller"
    ):
        rows_of(EXPERIMENT, *FEW, "--entropy", "1e30", "--methods", "meta-gradient")


def results_that_hold(seeds=40, lvc=0.03):
    """results.csv where every claim holds with room to spare."""
    rng, rows = np.random.default_rng(0), []
    ends = {INNER: (1.0, 0.9), OUTER: (1.078, 1.0)}
    for method, estimator in ((META, "ad"), (META, "lvc"), (TARGET, "ad")):
        for critic, (worth, gamma) in ends.items():
            for seed in range(seeds):
                luck = 0.001 * rng.random()
                for update in (0, 30, 60):
                    curve = Curve(method, estimator, critic)
                    path = (0.95 + (gamma - 0.95) * update / 60) + lvc * (estimator == "lvc" and update == 30)
                    key = {"curve": curve.name, "method": method, "estimator": estimator, "critic": critic}
                    here = {"figure": "chain", **key, "seed": seed, "update": update, "gamma": path - luck}
                    rows.append({**here, "episode_return": 1.02 + (worth - 1.02) * update / 60, "best_arm": 0.5})
    return pd.DataFrame(rows)[list(COLUMNS)]


def verdicts_of(frame):
    return {verdict.id: verdict for verdict in claims.claims(Settings(), frame)}


@pytest.mark.claim("CHAIN-1", "CHAIN-2", "CHAIN-3", "CHAIN-4")
def test_claims():
    found = verdicts_of(results_that_hold())
    assert {name: v.measured for name, v in found.items() if v.verdict != "supported"} == {}


SPOILT = {
    "CHAIN-1": ("critic == 'inner' and estimator == 'ad' and method == 'meta-gradient'", "episode_return", 0.06),
    "CHAIN-2": ("critic == 'outer' and estimator == 'ad' and method == 'meta-gradient'", "gamma", -0.06),
    "CHAIN-3": ("critic == 'outer' and method == 'bootstrapped'", "episode_return", -0.2),
    "CHAIN-4": ("critic == 'outer' and estimator == 'lvc' and update == 30", "gamma", -0.03),
}
"""Claim ↦ rows to spoil, the column, and what to add; the last leaves no difference that matters."""


@pytest.mark.parametrize("claim", SPOILT)
def test_a_claim_that_does_not_hold_is_reported(claim):
    frame = results_that_hold()
    where, column, change = SPOILT[claim]
    frame.loc[frame.eval(where), column] += change
    assert verdicts_of(frame)[claim].verdict == "contradicted"


def test_too_few_seeds_leave_a_published_number_open():
    assert verdicts_of(results_that_hold(seeds=10))["CHAIN-2"].verdict == "undecided"


def test_what_is_missing_is_not_measured_and_asked_for():
    frame = results_that_hold()
    found = verdicts_of(frame[(frame["critic"] == INNER) & (frame["estimator"] == "ad")])
    assert [found[f"CHAIN-{i}"].verdict for i in range(1, 5)] == ["supported", *["not measured"] * 3]
    needs = found["CHAIN-4"].needs
    asked = Settings(critics=(INNER,), estimators=("ad",))
    assert EXPERIMENT.measured_by(asked, needs) == "--critics inner outer --estimators ad lvc would measure more"
    assert EXPERIMENT.measured_by(Settings(), needs) == ""


def test_more_seeds_are_drawn_of_the_curves_that_are_asked_for():
    asked = frozenset({"ad meta-gradient outer"})
    more = further_cells(Settings(), range(10, 20), asked)
    assert [(cell.curve.name, cell.seeds) for cell in more] == [("ad meta-gradient outer", tuple(range(10, 20)))]
    assert len(cells(Settings(seeds=12))) == 16


def test_words_follow_the_numbers():
    rows = with_lines(results_that_hold())
    said = findings.chain(rows, {"ad": "AD", "lvc": "LVC"})
    assert said == (
        "AD: with the inner critic γ falls to 0.90 and the return is 1.00; "
        "with a critic of its own γ rises to 1.00 and the return is 1.08"
    )
    assert findings.effect(rows) == (
        "On average over all updates LVC's γ is 0.015 to 0.015 above AD's with the inner critic and "
        "0.015 to 0.015 above it with a critic of its own"
    )
    alike = with_lines(results_that_hold(lvc=0.0))
    assert findings.effect(alike) == "With the inner critic and a critic of its own LVC's γ is not told from AD's"
    half = alike.copy()
    half.loc[(half["critic"] == OUTER) & (half["line"] == "lvc") & (half["update"] > 0), "gamma"] -= 0.01
    assert findings.effect(half).endswith(
        "below AD's with a critic of its own; with the inner critic LVC's γ is not told from AD's"
    )
    still = rows.assign(gamma=0.95 + rows["seed"] % 2 * (rows["update"] - 30) * 1e-4)
    assert "γ is not told to move" in findings.chain(still, {"ad": "AD"}) or "rises" in findings.chain(
        still, {"ad": "AD"}
    )
