"""LOLA end to end: the batched learner against the plain loop and gm-exact, and the app."""

from dataclasses import replace

import numpy as np
import pandas as pd
import plain_lola
import pytest
import torch
from torch.testing import assert_close

import gm_envs_ipd
import gm_estimators
import gm_exact
import gm_lab
import lola_offpolicy
import lola_report
from lola_problem import Curve, Game, LookAhead, opponents_view
from lola_training import Adam, Training

F64 = torch.float64
SMALL = Game(horizon=5, updates=3, evaluation_size=4, replay_capacity=9)
CURVES = {
    "shared": Curve("", inner=4, hessian=4, outer=3, shared=True),
    "apart": Curve("", inner=4, hessian=5, outer=3),
    "replay": Curve("", inner=4, hessian=4, outer=3, shared=True, replay_inner=True, replay_hessian=True),
    "replay inner": Curve("", inner=4, hessian=5, outer=3, replay_inner=True),
    "replay hessian": Curve("", inner=4, hessian=5, outer=3, replay_hessian=True),
    "no baseline": Curve("", inner=4, hessian=5, outer=3, baseline=False),
}


def training(game: Game, curve: Curve, seeds: int = 2, seed: int = 0) -> Training:
    """A learner in double precision, some way from where it starts."""
    found = Training(game, curve, seeds, np.random.Generator(np.random.SFC64(seed)), dtype=F64)
    draw = torch.Generator().manual_seed(seed)
    found.params += torch.randn(found.params.shape, generator=draw, dtype=F64)
    found.values += torch.randn(found.values.shape, generator=draw, dtype=F64)
    return found


def estimate(t: Training) -> tuple[LookAhead, torch.Tensor]:
    problem = LookAhead(t)
    (found,) = gm_estimators.decompose(
        problem,
        [t.estimator],
        permutations=["SSS"],
        sample_sizes=(1,),
        inner_steps=t.game.inner_steps,
        inner_lr=t.game.inner_lr,
    ).values()
    return problem, found


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("name", CURVES)
def test_the_batched_meta_gradient_is_the_plain_loops(name, inner_steps):
    t = training(replace(SMALL, inner_steps=inner_steps), CURVES[name])
    problem, found = estimate(t)
    game = plain_lola.Game(gm_envs_ipd.GAMES["ipd"].payoffs, t.game.discount)
    for seed in (0, 1):
        policies = tuple(gm_envs_ipd.joint_view(t.params)[seed])
        values = gm_envs_ipd.joint_view(t.values)[seed]
        for learner in (0, 1):
            inner_values = values if t.curve.baseline else torch.zeros_like(values)
            critics = [[0.0] * 5, [0.0] * 5]
            critics[learner], critics[1 - learner] = values[learner].tolist(), inner_values[1 - learner].tolist()

            def sample(role, step, at, seed=seed, learner=learner):
                drawn = problem._drawn[role, step]
                rounds = [[(o >> 1, o & 1) for o in one] for one in drawn.outcome[seed, learner].tolist()]
                if drawn.behaviour is None:
                    return [plain_lola.Played(one) for one in rounds]
                table = drawn.behaviour[seed, learner][drawn.group[learner]]  # log μ¹μ²(o | s) in player 1's states
                first = table.unflatten(-1, (2, 2)).logsumexp(-1)
                second = table.unflatten(-1, (2, 2)).logsumexp(-2)
                logits = torch.stack((first[..., 0] - first[..., 1], second[..., 0] - second[..., 1]), 1)
                return [
                    plain_lola.Played(one, tuple(gm_envs_ipd.joint_view(pair)))
                    for one, pair in zip(rounds, logits, strict=True)
                ]

            plain = plain_lola.meta_gradient(
                game,
                policies,
                critics,
                learner,
                sample,
                inner_steps=inner_steps,
                inner_lr=t.game.inner_lr,
                shared=t.curve.shared,
            )
            mine = gm_envs_ipd.joint_view(found[seed])[learner]
            assert_close(mine, plain, rtol=1e-10, atol=1e-10)


def test_exact_objectives_give_gm_exacts_meta_gradient():
    t = training(replace(SMALL, inner_steps=2), CURVES["shared"])
    found = gm_estimators.exact_meta_gradient(LookAhead(t), inner_steps=2, inner_lr=0.3)
    own = gm_envs_ipd.joint_view(t.params)
    expected = gm_exact.lola_meta_gradient(
        gm_envs_ipd.GAMES["ipd"].tensor(), own, discount=0.96, inner_lr=0.3, inner_steps=2
    )
    assert_close(gm_envs_ipd.joint_view(found), expected.gradient, rtol=1e-10, atol=1e-10)


def test_against_a_naive_opponent_only_player_1_looks_ahead():
    t = training(replace(SMALL, learners="first"), CURVES["shared"])
    found = gm_estimators.exact_meta_gradient(LookAhead(t), inner_steps=1, inner_lr=0.3)
    own, payoffs = gm_envs_ipd.joint_view(t.params), gm_envs_ipd.GAMES["ipd"].tensor()
    ahead, naive = (
        gm_exact.lola_meta_gradient(payoffs, own, discount=0.96, inner_lr=0.3, inner_steps=k).gradient for k in (1, 0)
    )
    assert_close(gm_envs_ipd.joint_view(found)[:, 0], ahead[:, 0])
    assert_close(gm_envs_ipd.joint_view(found)[:, 1], naive[:, 1])

    def sampled(inner_lr: float) -> torch.Tensor:
        problem = LookAhead(training(t.game, t.curve))
        steps = {"permutations": ["SSS"], "sample_sizes": (1,), "inner_steps": 1, "inner_lr": inner_lr}
        return next(iter(gm_estimators.decompose(problem, [t.estimator], **steps).values()))

    near, far = sampled(0.1), sampled(0.2)
    assert (near[:, 0] != far[:, 0]).all()
    assert torch.equal(near[:, 1], far[:, 1])


def test_the_opponents_view_is_its_own_inverse():
    table = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert torch.equal(opponents_view(opponents_view(table)), table)
    assert torch.equal(opponents_view(table)[:, 1], table[:, 1])


def test_every_estimator_has_the_mean_that_the_blocks_have():
    """DiCE by blocks and DiCE round by round are one estimator."""
    by_blocks = estimate(training(SMALL, CURVES["apart"]))[1]
    t = training(SMALL, CURVES["apart"])
    t.estimator = replace(t.estimator, surrogate=lambda seen: gm_estimators.dice(seen), closed_form=None)
    assert_close(estimate(t)[1], by_blocks, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("estimator", ["ad", "loaded_dice", "lvc"])
def test_other_estimators_train_too(estimator):
    for name in ("shared", "replay"):
        rows = list(Training(replace(SMALL, estimator=estimator), CURVES[name], 2, np.random.default_rng(0)).updates())
        assert len(rows) == 3
        assert all(bool(row["score"].isfinite().all()) for row in rows)


def test_mean_estimates_are_the_exact_meta_gradient_of_the_horizon():
    """The horizon is long enough for the truth's; 4.5 standard errors, and a wrong γ is seen."""
    seeds = 400
    game = Game(horizon=60, discount=0.8, evaluation_size=1)
    curve = Curve("", inner=None, hessian=None, outer=64)
    t = Training(game, curve, seeds, np.random.Generator(np.random.SFC64(1)), dtype=F64)
    t.params += torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=F64)

    def deviation(discount: float) -> float:
        t.game = replace(game, discount=0.8)
        problem = LookAhead(t)
        exact = gm_estimators.exact_meta_gradient(problem, inner_steps=1, inner_lr=0.3)
        t.game = replace(game, discount=discount)
        problem._exact.clear()
        (found,) = gm_estimators.decompose(
            problem, [t.estimator], permutations=["EES"], sample_sizes=(1,), inner_steps=1, inner_lr=0.3
        ).values()
        error = found.std(0) / seeds**0.5
        return float(((found.mean(0) - exact[0]).abs() / error).max())

    assert deviation(0.8) < 4.5
    assert deviation(0.7) > 4.5


@pytest.mark.parametrize("critic", ["reward", "return"])
def test_critics_learn_what_they_are_named_for(critic):
    game = Game(horizon=30, updates=60, critic=critic, critic_lr=0.5, outer_lr=1e-9, discount=0.5, evaluation_size=1)
    t = Training(game, Curve("", inner=None, hessian=None, outer=64), 2, np.random.default_rng(0))
    list(t.updates())
    # uniform policies: a mean payoff of −1.5 in every state, and almost twice that with γ = 0.5
    expected = -1.5 if critic == "reward" else -1.5 * 2
    assert (t.values[..., 1:] - expected).abs().max() < 0.25


def test_measurements_of_an_exact_learner():
    t = Training(replace(SMALL, updates=2), Curve("", None, None, None), 3, np.random.default_rng(0))
    rows = list(t.updates())
    for row in rows:
        assert_close(row["accuracy"], torch.ones(3, dtype=F64))
        assert_close(row["error_sq"], torch.zeros(3, dtype=F64))
        assert row["effective_size"].isnan().all()
        assert ((row["score"] <= 0) & (row["score"] >= -3)).all()
        assert_close(row["scores"].mean(-1), row["score"])


def test_each_learner_reads_the_ring_as_it_was_when_it_had_added_its_own():
    t = Training(SMALL, CURVES["replay"], 1, np.random.default_rng(0))
    t.replay(torch.zeros(1, 2, 4, 5, dtype=torch.uint8), torch.zeros(1, 2, 2, 5, dtype=F64))
    fresh = torch.tensor([1, 2], dtype=torch.uint8).reshape(1, 2, 1, 1).expand(1, 2, 4, 5)
    policies = torch.tensor([1.0, 2.0], dtype=F64).reshape(1, 2, 1, 1).expand(1, 2, 2, 5)
    found = t.replay(fresh, policies)
    kinds = [found.outcome[0, learner, :, 0].tolist() for learner in (0, 1)]
    assert sorted(kinds[0]) == [0] * 5 + [1] * 4
    assert sorted(kinds[1]) == [0] + [1] * 4 + [2] * 4
    for learner in (0, 1):
        log_mu = found.behaviour[0, learner][found.group[learner]][:, 0, 0]  # of (0, 0) at the start
        expected = 2 * torch.nn.functional.logsigmoid(torch.tensor(kinds[learner], dtype=F64))
        assert_close(log_mu, expected)


def test_adam_is_torchs():
    mine, theirs = torch.zeros(5, dtype=F64), torch.zeros(5, dtype=F64)
    adam, reference = Adam(0.1), torch.optim.Adam([theirs], lr=0.1, maximize=True)
    for seed in range(5):
        theirs.grad = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=F64)
        mine = mine + adam.step(theirs.grad)
        reference.step()
        assert_close(mine, theirs)


def test_effective_sizes_start_at_the_size_of_the_ring():
    game = replace(SMALL, updates=4, replay_capacity=64, outer_lr=1.0)
    rows = list(Training(game, CURVES["replay"], 2, np.random.default_rng(0)).updates())
    assert_close(rows[0]["effective_size"], torch.full((2,), 64.0, dtype=F64))
    assert (rows[-1]["effective_size"] < 50).all()


@pytest.mark.parametrize("change", [{"clip": 1.0}, {"self_normalise": True}, {"max_age": 0}])
def test_controls_of_off_policyness_change_the_estimate(change):
    plain, controlled = (
        list(Training(replace(SMALL, **more), CURVES["replay"], 2, np.random.default_rng(0)).updates())[-1]
        for more in ({}, change)
    )
    assert not torch.equal(plain["error_sq"], controlled["error_sq"])


@pytest.mark.parametrize(
    "extreme",
    [{"discount": 0.0}, {"discount": 1 - 1e-9}, {"horizon": 1}, {"outer_lr": 40.0, "updates": 6}],
    ids=str,
)
def test_extremes_are_finite(extreme):
    for name in ("shared", "replay"):
        curve = replace(CURVES[name], inner=1, hessian=1, outer=1)
        game = replace(SMALL, evaluation_size=1, **extreme)
        if "outer_lr" in extreme:
            game = replace(game, self_normalise=True)
        for row in Training(game, curve, 1, np.random.default_rng(0)).updates():
            for measure in ("score", "error_sq", "truth_sq", "action_0"):
                assert row[measure].isfinite().all(), measure


def run(tmp_path, *flags: str) -> int:
    fixed = ("--run-dir", str(tmp_path / "run"), "--wandb", "disabled", "--workers", "1")
    tiny = ("--updates", "3", "--horizon", "6", "--seeds", "3", "--evaluation-size", "8", "--replay-capacity", "1024")
    return gm_lab.main(lola_offpolicy.EXPERIMENT, [*fixed, *tiny, *flags])


def test_the_app_end_to_end(tmp_path):
    assert run(tmp_path) == 0
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert tuple(frame.columns) == lola_offpolicy.EXPERIMENT.columns
    names = {(f, c.name) for f, curves in lola_offpolicy.CURVES.items() for c in curves if f != "debias"}
    assert set(zip(frame["figure"], frame["curve"], strict=True)) == names
    assert len({name for _, name in names}) == 13
    assert len(frame) == len(names) * 3 * 3
    for figure in ("fig2a", "fig2b", "fig2c", "fig2d", "fig8", "policies"):
        assert (tmp_path / "run" / "figures" / f"{figure}.png").stat().st_size > 10_000
    before = (tmp_path / "run" / "results.csv").read_bytes()
    (next((tmp_path / "run" / "cells").iterdir())).unlink()
    assert run(tmp_path) == 0
    assert (tmp_path / "run" / "results.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--updates", "0"], "--updates: expected an integer of at least 1, got 0"),
        (["--discount", "1"], "--discount: expected 0 ≤ γ < 1, got 1.0"),
        (["--game", "poker"], "--game: expected one of ipd, stag-hunt"),
        (["--payoffs", "1", "2", "3"], "--payoffs: expected 8 numbers, R¹ and R² row by row, got 3"),
        (["--estimator", "nonsense"], "--estimator: expected one of"),
        (["--estimator", "lvc+learnt"], "--estimator: expected an estimator without +learnt, which only the tabular"),
        (["--curves", "inner=7"], "--curves: expected some of inner=128 outer=128, "),
        (["--replay-capacity", "64"], "--replay-capacity: expected at least 128 trajectories, got 64"),
        (["--clip", "0"], "--clip: expected a number above 0, got 0.0"),
        (["--max-age", "-1"], "--max-age: expected an integer of at least 0, got -1"),
        (["--outer-lr", "0"], "--outer-lr: expected a finite number above 0, got 0.0"),
        (["--device", "tpu"], "--device: expected auto or cpu, got 'tpu'"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(tmp_path, capsys, flags, message):
    assert run(tmp_path, *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def results(**scores: float) -> pd.DataFrame:
    """Results of all curves: two seeds near a score, accuracy near the mean of those."""
    rows = [
        {
            "figure": figure,
            "curve": curve.name,
            "seed": seed,
            "update": update,
            "score": scores.get(curve.name, -1.6) + 0.001 * seed * (1 + len(curve.name) % 3),
            "accuracy_outer_exact": {1024: 0.7, None: 1.0}.get(curve.inner, 0.3) + 0.001 * seed,
        }
        for figure, curves in lola_offpolicy.CURVES.items()
        for curve in curves
        for seed in range(4)
        for update in (1, 100)
    ]
    return pd.DataFrame(rows)


AS_THE_PAPER_SAYS = {
    "inner=128 outer=128": -1.8,
    "inner=1024 outer=128": -1.3,
    "inner=exact outer=128": -1.2,
    "inner=exact outer=exact": -1.0,
    "comp=128 hessian=128": -1.8,
    "comp=1024 hessian=128": -1.7,
    "comp=exact hessian=128": -1.6,
    "comp=128 hessian=1024": -1.3,
    "comp=128 hessian=exact": -1.2,
    "comp=on hessian=on": -1.8,
    "comp=off hessian=off": -1.2,
    "comp=off hessian=on": -1.6,
    "comp=on hessian=off": -1.4,
}


@pytest.mark.claim("LOLA-1", "LOLA-2", "LOLA-3", "LOLA-4", "LOLA-5", "LOLA-6")
def test_claims():
    verdicts = lola_report.claims(results(**AS_THE_PAPER_SAYS))
    assert [verdict.id for verdict in verdicts] == [f"LOLA-{i}" for i in range(1, 7)]
    assert all(verdict.holds for verdict in verdicts), verdicts


@pytest.mark.claim("LOLA-1", "LOLA-2", "LOLA-3", "LOLA-4", "LOLA-5", "LOLA-6")
@pytest.mark.parametrize(
    ("curve", "score", "claim"),
    [
        ("inner=128 outer=128", -1.2, "LOLA-1"),
        ("inner=exact outer=exact", -1.3, "LOLA-2"),
        ("comp=1024 hessian=128", -1.9, "LOLA-3"),
        ("comp=128 hessian=1024", -1.75, "LOLA-4"),
        ("comp=off hessian=on", -1.9, "LOLA-5"),
        ("inner=exact outer=128", -0.5, "LOLA-6"),
    ],
)
def test_a_claim_that_does_not_hold_is_reported(curve, score, claim):
    verdicts = {v.id: v for v in lola_report.claims(results(**AS_THE_PAPER_SAYS | {curve: score}))}
    assert verdicts[claim].holds is False
    missing = {v.id: v for v in lola_report.claims(results()[lambda f: f["figure"] == "fig2b"])}
    assert missing["LOLA-1"].holds is None
