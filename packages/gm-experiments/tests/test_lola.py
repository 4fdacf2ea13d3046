"""LOLA end to end: the batched learner against the plain loop and gm-exact, and the app."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import plain_lola
import pytest
import torch
from rich.console import Console
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


@pytest.mark.parametrize(
    "estimator", ["ad", "loaded_dice", "loaded_dice@0.5", "lvc", "tmaml", "vtrace", "dice+selfnorm"]
)
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


@pytest.mark.parametrize("capacity", [32, 35])
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("max_age", range(9))
def test_a_maximum_age_leaves_both_learners_equally_many(monkeypatch, max_age, inner_steps, capacity):
    seen = []
    replay = Training.replay
    monkeypatch.setattr(Training, "replay", lambda *args: seen.append(replay(*args)) or seen[-1])
    game = replace(SMALL, max_age=max_age, inner_steps=inner_steps, replay_capacity=capacity)
    for name in ("replay", "replay inner", "replay hessian"):
        curve = replace(CURVES[name], inner=4, hessian=4)
        rows = list(Training(game, curve, 2, np.random.default_rng(0)).updates())
        assert all(bool(row["error_sq"].isfinite().all()) for row in rows)
        assert len(seen) == 3 * inner_steps
        assert {sample.outcome.shape[-2] for sample in seen} == {min(4 * (max_age + 1), capacity)}
        seen.clear()


def test_what_is_left_out_changes_no_draw():
    """With room for all, a maximum age above all ages gives what none gives."""
    plain = list(Training(SMALL, CURVES["replay"], 2, np.random.default_rng(0), dtype=F64).updates())
    aged = replace(SMALL, max_age=8)
    for before, after in zip(
        plain, Training(aged, CURVES["replay"], 2, np.random.default_rng(0), dtype=F64).updates(), strict=True
    ):
        for name in before:
            assert_close(after[name], before[name], equal_nan=True)


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
        (["--discount", "1"], "--discount: expected 0 ≤ γ ≤ 1 − 1e-12, got 1.0"),
        (["--discount", "0.9999999999999999"], "--discount: expected 0 ≤ γ ≤ 1 − 1e-12, got 0.9999999999999999"),
        (["--payoffs", *["1e31"] * 8], "--payoffs: expected numbers from −1e30 to 1e30, got (1e+31, "),
        (["--game", "chicken", "--payoffs", *["1"] * 8], "--game: expected no --payoffs beside it, got chicken"),
        (["--cooperative", "1"], "--cooperative: expected --payoffs beside it, since a known game has its own, got 1"),
        (["--cooperative", "2"], "--cooperative: expected one of "),
        (["--critic-lr", "1e300"], "--critic-lr: expected a number above 0 and up to 1e30, got 1e+300"),
        (["--device", "cuda"], "--device: expected auto or cpu, since this app computes on the CPU, got cuda"),
        (
            ["--figure", "debias", "--estimator", "dice+jackknife"],
            "--estimator: expected one without +jackknife, which",
        ),
        (["--game", "poker"], "--game: expected one of ipd, stag-hunt"),
        (["--payoffs", "1", "2", "3"], "--payoffs: expected 8 numbers, R¹ and R² row by row, got 3"),
        (["--estimator", "nonsense"], "--estimator: expected one of"),
        (["--estimator", "lvc+learnt"], "--estimator: expected an estimator without +learnt, which only the tabular"),
        (
            ["--estimator", "loaded_dice@0.5,0.9"],
            "--estimator: expected an estimator without τ, which only the tabular",
        ),
        (["--curves", "inner=7"], "--curves: expected some of inner=128 outer=128, "),
        (["--replay-capacity", "64"], "--replay-capacity: expected at least 128 trajectories, got 64"),
        (["--clip", "0"], "--clip: expected a number above 0, got 0.0"),
        (["--max-age", "-1"], "--max-age: expected an integer of at least 0, got -1"),
        (["--outer-lr", "0"], "--outer-lr: expected a number above 0 and up to 1e30, got 0.0"),
        (["--device", "tpu"], "--device: expected auto or cpu, since this app computes on the CPU, got tpu"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(tmp_path, capsys, flags, message):
    assert run(tmp_path, *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_numbers_that_grow_too_large_are_one_line_and_status_2(tmp_path, capsys):
    flags = ("--inner-lr", "1e30", "--inner-steps", "2", "--horizon", "100", "--curves", "comp=off hessian=off")
    assert run(tmp_path, *flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "elapsed" not in line]
    assert line.startswith("lola_offpolicy: comp=off hessian=off: payoffs, params: expected finite payoffs and")
    assert line.endswith("(smaller payoffs or learning rates, or a --clip, keep numbers finite)")


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_a_meta_gradient_that_is_not_finite_is_refused():
    t = Training(replace(SMALL, critic_lr=1e300), Curve("", None, None, 3), 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected a finite meta-gradient, got infinity or NaN"):
        list(t.updates())


def test_small_payoffs_keep_their_digits_and_large_ones_are_finite(tmp_path):
    flags = ("--curves", "inner=128 outer=128", "--figure", "fig2a", "--payoffs")
    for index, scale in enumerate((1e-9, 1e28)):
        payoffs = [str(scale * entry) for entry in (-2, 0, -3, -1, -2, -3, 0, -1)]
        assert run(tmp_path / str(index), *flags, *payoffs) == 0
        frame = pd.read_csv(tmp_path / str(index) / "run" / "results.csv")
        for column in ("score", "error_sq", "truth_sq"):
            assert ((frame[column].abs() > 0) & (frame[column].abs() < np.inf)).all()
            digits = frame[column].map(lambda value: len(f"{value:.12e}".split("e")[0].strip("-0").replace(".", "")))
            assert digits.max() in (7, 8), column
        assert frame["accuracy"].between(-1, 1).all()


def test_numbers_are_rounded_to_eight_significant_digits():
    values = torch.tensor([0.0, 123456789.0, -1.23456789e-12, 9.99999999, 1e-300, -4.5e250, torch.nan, -torch.inf])
    values = values.to(F64).clone()
    values[1:6] = torch.tensor([123456789.0, -1.23456789e-12, 9.99999999, 1e-300, -4.5e250], dtype=F64)
    found = lola_offpolicy.significant(values)
    expected = [0.0, 123456790.0, -1.2345679e-12, 10.0, 1e-300, -4.5e250, torch.nan, -torch.inf]
    assert_close(found, torch.tensor(expected, dtype=F64), rtol=1e-14, atol=0, equal_nan=True)
    draw = torch.Generator().manual_seed(0)
    many = torch.randn(1000, generator=draw, dtype=F64) * 10 ** (10 * torch.randn(1000, generator=draw, dtype=F64))
    expected = torch.tensor([float(f"{value:.8g}") for value in many.tolist()], dtype=F64)
    assert_close(lola_offpolicy.significant(many), expected, rtol=1e-14, atol=0)
    assert all(len(repr(value)) <= 11 for value in lola_offpolicy.significant(torch.rand(999, dtype=F64) + 1).tolist())


def test_ones_own_game_says_what_cooperation_is(tmp_path):
    flags = ("--curves", "inner=exact outer=exact", "--payoffs", *"40324302", "--cooperative")  # the stag hunt
    frames = {}
    for action in ("0", "1"):
        assert run(tmp_path / action, *flags, action) == 0
        frames[action] = pd.read_csv(tmp_path / action / "run" / "results.csv")
    swapped = {"start": "start", "CC": "DD", "CD": "DC", "DC": "CD", "DD": "CC"}
    for state, other in swapped.items():
        hunt, hare = frames["0"][f"cooperate_1_{state}"], frames["1"][f"cooperate_1_{other}"]
        np.testing.assert_allclose(hunt, 1 - hare, atol=1e-7)
    known = ("--curves", "inner=exact outer=exact", "--game", "stag-hunt")
    assert run(tmp_path / "known", *known) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "known" / "run" / "results.csv"), frames["0"])


def test_an_estimator_without_a_critic_is_given_none(tmp_path, monkeypatch):
    (tmp_path / "own_dice.py").write_text(
        "import gm_estimators\n"
        "def with_it(seen): return gm_estimators.dice(seen)\n"
        "def without(seen):\n"
        "    assert not bool(seen.value.any())\n"
        "    return gm_estimators.dice(seen)\n"
        "without.critic = False\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def estimated(name: str, curve: str = "shared", **more: str) -> torch.Tensor:
        return estimate(training(replace(SMALL, estimator=name, **more), CURVES[curve]))[1]

    for curve in ("shared", "replay"):
        without = estimated("own_dice:without", curve)
        assert_close(without, estimated("dice", curve, critic="none"), rtol=1e-10, atol=1e-10)
        assert_close(estimated("own_dice:with_it", curve), estimated("dice", curve), rtol=1e-10, atol=1e-10)
        assert (without - estimated("dice", curve)).abs().max() > 1e-3


def test_the_bias_of_each_update_is_along_the_truth():
    t = Training(SMALL, CURVES["shared"], 3, np.random.default_rng(0))
    at = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    truth = t.truth(at)
    across = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
    across -= truth * (across * truth).sum(-1, keepdim=True) / truth.square().sum(-1, keepdim=True)
    factor = torch.tensor([[0.7], [1.5]], dtype=F64)
    played = {"at": at, "estimate": factor * truth + across, "outer_exact": -truth + across, "after": at}
    (row,) = t._measure([played | {"played": torch.ones(3, 4, dtype=torch.int32)}])
    assert_close(row["bias"], torch.full((3,), (-0.3 + 0.5) / 2, dtype=F64))
    assert_close(row["bias_outer_exact"], torch.full((3,), -2.0, dtype=F64))


def test_without_a_truth_there_is_no_bias_and_no_accuracy_and_a_line_says_so(tmp_path, capsys):
    assert run(tmp_path, "--figure", "fig2a", "--curves", "inner=128 outer=128", "--payoffs", *"00000000") == 0
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert frame[["accuracy", "bias", "bias_outer_exact"]].isna().all(axis=None)
    assert (frame[["error_sq", "truth_sq"]] == 0).all(axis=None)
    line = (
        "accuracy is undefined (nan) in 9 of 9 rows, where the estimate or the exact meta-gradient of a player is zero"
    )
    assert line in capsys.readouterr().out.splitlines()
    assert lola_report.undefined(results().assign(accuracy=0.5)) == ""


@pytest.mark.parametrize("discount", [0.0, 0.999999999999])
def test_the_least_and_the_largest_discount_are_taken(tmp_path, discount):
    assert run(tmp_path, "--curves", "inner=128 outer=128", "--discount", str(discount)) == 0
    frame = pd.read_csv(tmp_path / "run" / "results.csv").drop(columns="effective_size")
    assert np.isfinite(frame.select_dtypes("number")).all(axis=None)


def printed(table: pd.DataFrame) -> list[str]:
    """What an 80-column terminal shows."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(gm_lab.tables.summary_table(table))
    return console.export_text().splitlines()


def test_the_closing_table_fits_80_columns_and_leaves_empty_what_there_is_not(tmp_path):
    assert run(tmp_path) == 0
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    table = lola_report.summary(frame).set_index("curve")
    assert table.loc["comp=on hessian=on", "ESS"] == ""
    assert int(table.loc["comp=off hessian=off", "ESS"]) == round(
        frame.loc[frame["curve"] == "comp=off hessian=off", "effective_size"].mean()
    )
    on_policy = frame[frame["figure"] == "fig2a"]
    early = lola_report.summary(on_policy).set_index("curve")
    assert "ESS" not in early
    for curve, rows in on_policy.groupby("curve"):
        assert early.loc[curve, "Pearson"] == pytest.approx(rows["correlation"].mean())
    for frame, lines in ((table.reset_index(), 13), (early.reset_index(), 4)):
        shown = printed(frame)
        assert not any("nan" in line or "…" in line for line in shown)
        assert sum("hessian" in line or "outer=" in line for line in shown) == lines
        assert all(any(name in line for line in shown) for name in (column.split()[-1] for column in frame.columns))


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


def test_a_run_that_is_too_short_decides_no_claim():
    frame = results(**AS_THE_PAPER_SAYS)
    for verdict in lola_report.claims(frame.replace({"update": {100: 49}})):
        assert verdict.holds is None
        assert verdict.measured == "49 updates, expected at least 50"
    assert all(v.holds for v in lola_report.claims(frame.replace({"update": {100: 50}})))


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({}, 6),
        ({"payoffs": (-2.0, 0.0, -3.0, -1.0, -2.0, -3.0, 0.0, -1.0)}, 6),
        ({"payoffs": (-2.0, 0.0, -3.0, -1.0, -2.0, -3.0, 0.0, -2.0)}, 0),
        ({"game": "chicken"}, 0),
        ({"figure": ("debias",)}, 0),
    ],
    ids=str,
)
def test_the_claims_are_about_the_papers_game(more, count):
    assert len(lola_offpolicy.claims(lola_offpolicy.Settings(**more), results())) == count
