"""The batched learner: its look-ahead against gm-exact, its arena, its critics and its measurements."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import gm_envs_ipd
import gm_estimators
import gm_exact
from gm_estimators.surrogates import dice
from gm_experiments.lola import Arm, Game
from gm_experiments.lola.arena import Arena
from gm_experiments.lola.learner import Estimates, Learner, TableAdam, Update
from gm_experiments.lola.measurements import measurements_of
from gm_experiments.lola.problem import exact_meta_gradients, opponents_view

F64 = torch.float64
SMALL = Game(horizon=5, updates=3, evaluation_size=4, replay_capacity=9)
ARMS = {
    "shared": Arm("", inner=4, hessian=4, outer=3, shared=True),
    "apart": Arm("", inner=4, hessian=5, outer=3),
    "replay": Arm("", inner=4, hessian=4, outer=3, shared=True, replay_inner=True, replay_hessian=True),
    "replay inner": Arm("", inner=4, hessian=5, outer=3, replay_inner=True),
    "replay hessian": Arm("", inner=4, hessian=5, outer=3, replay_hessian=True),
}


def moved_learner(game: Game, arm: Arm, seeds: int = 2, seed: int = 0) -> Learner:
    """A learner in double precision, some way from where it starts."""
    learner = Learner(game, arm, seeds, np.random.Generator(np.random.SFC64(seed)), dtype=F64)
    draw = torch.Generator().manual_seed(seed)
    learner.policies += torch.randn(learner.policies.shape, generator=draw, dtype=F64)
    learner.critics += torch.randn(learner.critics.shape, generator=draw, dtype=F64)
    return learner


def estimate(learner: Learner) -> torch.Tensor:
    return learner.estimate(learner.start()).gradient


def exact(learner: Learner, inner_steps: int) -> torch.Tensor:
    """By the look-ahead's own exact objectives."""
    problem = learner.look_ahead(learner.start())
    return gm_estimators.exact_meta_gradient(problem, inner_steps=inner_steps, inner_lr=0.3)


def measured(game: Game, arm: Arm, seeds: int = 2, **more: object) -> dict[str, torch.Tensor]:
    """What a run measures."""
    return measurements_of(game, Learner(game, arm, seeds, np.random.default_rng(0), **more).updates())


def test_the_learner_is_had_without_importing_torch_before_it_is_needed():
    code = "import sys, gm_experiments.lola as lola; assert 'torch' not in sys.modules; lola.Learner; lola.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'gm_experiments.lola' has no attribute 'nothing'"


def test_exact_objectives_give_gm_exacts_meta_gradient():
    learner = moved_learner(replace(SMALL, inner_steps=2), ARMS["shared"])
    own = gm_envs_ipd.joint_view(learner.policies)
    expected = gm_exact.lola_meta_gradient(
        gm_envs_ipd.GAMES["ipd"].tensor(), own, discount=0.96, inner_lr=0.3, inner_steps=2
    )
    assert_close(gm_envs_ipd.joint_view(exact(learner, 2)), expected.gradient, rtol=1e-10, atol=1e-10)
    assert_close(exact_meta_gradients(learner.game, learner.policies), exact(learner, 2), rtol=1e-10, atol=1e-10)


def test_against_a_naive_opponent_only_player_1_looks_ahead():
    game = replace(SMALL, learners="first")
    learner = moved_learner(game, ARMS["shared"])
    gradient = exact(learner, 1)
    own, payoffs = gm_envs_ipd.joint_view(learner.policies), gm_envs_ipd.GAMES["ipd"].tensor()
    ahead, naive = (
        gm_exact.lola_meta_gradient(payoffs, own, discount=0.96, inner_lr=0.3, inner_steps=k).gradient for k in (1, 0)
    )
    assert_close(gm_envs_ipd.joint_view(gradient)[:, 0], ahead[:, 0])
    assert_close(gm_envs_ipd.joint_view(gradient)[:, 1], naive[:, 1])

    near, far = (estimate(moved_learner(replace(game, inner_lr=rate), ARMS["shared"])) for rate in (0.1, 0.2))
    assert (near[:, 0] != far[:, 0]).all()
    assert torch.equal(near[:, 1], far[:, 1])


def test_the_opponents_view_is_its_own_inverse():
    table = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert torch.equal(opponents_view(opponents_view(table)), table)
    assert torch.equal(opponents_view(table)[:, 1], table[:, 1])


def test_every_estimator_has_the_mean_that_the_blocks_have():
    """DiCE by blocks and DiCE round by round are one estimator."""
    by_blocks = estimate(moved_learner(SMALL, ARMS["apart"]))
    learner = moved_learner(SMALL, ARMS["apart"])
    learner.estimator = replace(learner.estimator, surrogate=lambda seen: dice(seen), closed_form=None)
    assert_close(estimate(learner), by_blocks, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "estimator", ["ad", "loaded_dice", "loaded_dice@0.5", "lvc", "tmaml", "vtrace", "dice+selfnorm"]
)
def test_other_estimators_train_too(estimator):
    for name in ("shared", "replay"):
        score = measured(replace(SMALL, estimator=estimator), ARMS[name])["score"]
        assert score.shape == (3, 2)
        assert bool(score.isfinite().all())


def test_mean_estimates_are_the_exact_meta_gradient_of_the_horizon():
    """The horizon is long enough for the truth's; 4.5 standard errors, and a wrong γ is seen."""
    seeds = 400
    game = Game(horizon=60, discount=0.8, evaluation_size=1)
    arm = Arm("", inner=None, hessian=None, outer=64)
    learner = Learner(game, arm, seeds, np.random.Generator(np.random.SFC64(1)), dtype=F64)
    learner.policies += torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
    truth = exact(learner, 1)[0]

    def deviation(discount: float) -> float:
        learner.game = replace(game, discount=discount)
        estimates = estimate(learner)
        error = estimates.std(0) / seeds**0.5
        return float(((estimates.mean(0) - truth).abs() / error).max())

    assert deviation(0.8) < 4.5
    assert deviation(0.7) > 4.5


@pytest.mark.parametrize("critic", ["reward", "return"])
def test_critics_learn_what_they_are_named_for(critic):
    game = Game(horizon=30, updates=60, critic=critic, critic_lr=0.5, outer_lr=1e-9, discount=0.5, evaluation_size=1)
    learner = Learner(game, Arm("", inner=None, hessian=None, outer=64), 2, np.random.default_rng(0))
    list(learner.updates())
    # uniform policies: a mean payoff of −1.5 in every state, and almost twice that with γ = 0.5
    expected = -1.5 if critic == "reward" else -1.5 * 2
    assert (learner.critics[..., 1:] - expected).abs().max() < 0.25


def test_measurements_of_an_exact_learner():
    rows = measured(replace(SMALL, updates=2), Arm("", None, None, None), 3)
    assert_close(rows["accuracy"], torch.ones(2, 3, dtype=F64))
    assert_close(rows["error_sq"], torch.zeros(2, 3, dtype=F64))
    assert rows["effective_size"].isnan().all()
    assert ((rows["score"] <= 0) & (rows["score"] >= -3)).all()
    assert_close((rows["score_1"] + rows["score_2"]) / 2, rows["score"])


def test_an_update_is_complete_when_it_is_yielded(monkeypatch):
    """Its policies are evaluated, in the draw with which the next look-ahead starts, and nothing else is played."""
    played = []
    start, play = Arena.start, Arena.play

    def recorded(arena, policies, *, looks_ahead=True):
        played.append((policies, start(arena, policies, looks_ahead=looks_ahead)))
        return played[-1][1]

    monkeypatch.setattr(Arena, "start", recorded)
    monkeypatch.setattr(Arena, "play", lambda *at: played.append(at[-1]) or play(*at))
    before = torch.zeros(2, 2, 5, dtype=F64)
    for number, update in enumerate(Learner(SMALL, ARMS["apart"], 2, np.random.default_rng(0)).updates(), start=1):
        policies, found = played[-1]
        assert len(played) == 1 + 2 * number
        assert torch.equal(update.before, before)
        assert torch.equal(update.after, policies)
        before = update.after
        for outcome in range(4):
            assert torch.equal(update.counts[:, outcome].long(), (found.evaluation == outcome).sum((1, 2)))
        assert set(found.samples) == ({"inner", "hessian"} if number < 3 else set())
    assert number == 3


def test_each_learner_reads_the_ring_as_it_was_when_it_had_added_its_own():
    zeros = torch.zeros(1, 2, 5, dtype=F64)
    arena = Arena(SMALL, ARMS["replay"], zeros, np.random.default_rng(0))
    arena.replay(torch.zeros(1, 2, 4, 5, dtype=torch.uint8), torch.zeros(1, 2, 2, 5, dtype=F64))
    fresh = torch.tensor([1, 2], dtype=torch.uint8).reshape(1, 2, 1, 1).expand(1, 2, 4, 5)
    policies = torch.tensor([1.0, 2.0], dtype=F64).reshape(1, 2, 1, 1).expand(1, 2, 2, 5)
    sample = arena.replay(fresh, policies)
    kinds = [sample.outcome[0, learner, :, 0].tolist() for learner in (0, 1)]
    assert sorted(kinds[0]) == [0] * 5 + [1] * 4
    assert sorted(kinds[1]) == [0] + [1] * 4 + [2] * 4
    for learner in (0, 1):
        log_mu = sample.behaviour[0, learner][sample.group[learner]][:, 0, 0]  # of (0, 0) at the start
        expected = 2 * torch.nn.functional.logsigmoid(torch.tensor(kinds[learner], dtype=F64))
        assert_close(log_mu, expected)


def test_the_end_of_exact_steps_has_random_numbers_that_are_drawn_before_those_of_their_start():
    rng, same = (np.random.default_rng(0) for _ in range(2))
    policies = torch.randn(2, 2, 2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    arena = Arena(SMALL, Arm("", inner=None, hessian=5, outer=3), policies[:, 0], rng)
    arena.start(policies[:, 0])
    for _ in range(2):
        played = arena.play(1, ["outer"], policies)["outer"]
        numbers = gm_envs_ipd.draws(same, (2, 2), 3, SMALL.horizon)
        assert torch.equal(played.outcome, gm_envs_ipd.rollout(gm_envs_ipd.joint_view(policies), numbers))
        gm_envs_ipd.draws(same, (2,), 2 * 5 + SMALL.evaluation_size, SMALL.horizon)
        arena.start(policies[:, 0])


def test_adam_is_torchs():
    mine, theirs = torch.zeros(5, dtype=F64), torch.zeros(5, dtype=F64)
    adam, reference = TableAdam(0.1), torch.optim.Adam([theirs], lr=0.1, maximize=True)
    for seed in range(5):
        theirs.grad = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=F64)
        mine = mine + adam.step(theirs.grad)
        reference.step()
        assert_close(mine, theirs)


def test_effective_sizes_start_at_the_size_of_the_ring():
    game = replace(SMALL, updates=4, replay_capacity=64, outer_lr=1.0)
    for learners in ("both", "first"):
        size = measured(replace(game, learners=learners), ARMS["replay"])["effective_size"]
        assert_close(size[0], torch.full((2,), 64.0, dtype=F64))
        assert (size[-1] < 50).all()
    assert measured(game, ARMS["replay hessian"])["effective_size"].isfinite().all()
    assert measured(game, ARMS["apart"])["effective_size"].isnan().all()


@pytest.mark.parametrize("capacity", [32, 35])
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("max_age", range(9))
def test_a_maximum_age_leaves_both_learners_equally_many(monkeypatch, max_age, inner_steps, capacity):
    seen = []
    replay = Arena.replay
    monkeypatch.setattr(Arena, "replay", lambda *args: seen.append(replay(*args)) or seen[-1])
    game = replace(SMALL, max_age=max_age, inner_steps=inner_steps, replay_capacity=capacity)
    for name in ("replay", "replay inner", "replay hessian"):
        arm = replace(ARMS[name], inner=4, hessian=4)
        assert bool(measured(game, arm)["error_sq"].isfinite().all())
        assert len(seen) == 3 * inner_steps
        assert {sample.size for sample in seen} == {min(4 * (max_age + 1), capacity)}
        seen.clear()


def test_what_is_left_out_changes_no_draw():
    """With room for all, a maximum age above all ages gives what none gives."""
    plain, aged = (measured(game, ARMS["replay"], dtype=F64) for game in (SMALL, replace(SMALL, max_age=8)))
    for name in plain:
        assert_close(aged[name], plain[name], equal_nan=True)


@pytest.mark.parametrize("change", [{"clip": 1.0}, {"self_normalise": True}, {"max_age": 0}])
def test_controls_of_off_policyness_change_the_estimate(change):
    plain, controlled = (measured(replace(SMALL, **more), ARMS["replay"])["error_sq"][-1] for more in ({}, change))
    assert not torch.equal(plain, controlled)


def test_ratios_are_normalised_by_name_as_by_the_games_flag():
    named, flagged = (
        measured(replace(SMALL, **how), ARMS["replay"], dtype=F64)
        for how in ({"estimator": "dice+selfnorm"}, {"self_normalise": True})
    )
    assert_close(named["error_sq"], flagged["error_sq"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "extreme",
    [{"discount": 0.0}, {"discount": 1 - 1e-9}, {"horizon": 1}, {"outer_lr": 40.0, "updates": 6}],
    ids=str,
)
def test_extremes_are_finite(extreme):
    for name in ("shared", "replay"):
        arm = replace(ARMS[name], inner=1, hessian=1, outer=1)
        game = replace(SMALL, evaluation_size=1, **extreme)
        if "outer_lr" in extreme:
            game = replace(game, self_normalise=True)
        rows = measured(game, arm, 1)
        for measure in ("score", "error_sq", "truth_sq", "action_0"):
            assert rows[measure].isfinite().all(), measure


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_a_meta_gradient_that_is_not_finite_is_refused():
    learner = Learner(replace(SMALL, critic_lr=1e300), Arm("", None, None, 3), 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected a finite meta-gradient, got infinity or NaN"):
        list(learner.updates())


def test_an_estimator_without_a_critic_is_given_none(tmp_path, monkeypatch):
    (tmp_path / "own_dice.py").write_text(
        "from gm_estimators.surrogates import dice\n"
        "def with_it(seen): return dice(seen)\n"
        "def without(seen):\n"
        "    assert not bool(seen.value.any())\n"
        "    return dice(seen)\n"
        "without.critic = False\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def estimated(name: str, arm: str = "shared", **more: str) -> torch.Tensor:
        return estimate(moved_learner(replace(SMALL, estimator=name, **more), ARMS[arm]))

    for arm in ("shared", "replay"):
        without = estimated("own_dice:without", arm)
        assert_close(without, estimated("dice", arm, critic="none"), rtol=1e-10, atol=1e-10)
        assert_close(estimated("own_dice:with_it", arm), estimated("dice", arm), rtol=1e-10, atol=1e-10)
        assert (without - estimated("dice", arm)).abs().max() > 1e-3
    estimated("own_dice:without+selfnorm", "replay")


def test_the_bias_of_each_update_is_along_the_truth():
    at = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    truth = exact_meta_gradients(SMALL, at)
    across = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
    across -= truth * (across * truth).sum(-1, keepdim=True) / truth.square().sum(-1, keepdim=True)
    factor = torch.tensor([[0.7], [1.5]], dtype=F64)
    estimates = Estimates(factor * truth + across, -truth + across)
    rows = measurements_of(SMALL, [Update(at, estimates, at, torch.ones(3, 4, dtype=torch.int32))])
    assert_close(rows["bias"], torch.full((1, 3), (-0.3 + 0.5) / 2, dtype=F64))
    assert_close(rows["bias_outer_exact"], torch.full((1, 3), -2.0, dtype=F64))


def test_the_error_of_an_estimate_is_told_apart_by_its_sources():
    draw = torch.Generator().manual_seed(0)
    at, composition, hessian = (torch.randn(3, 2, 5, generator=draw, dtype=F64) for _ in range(3))
    truth = exact_meta_gradients(SMALL, at)
    estimates = Estimates(truth, truth + composition + hessian, truth + composition)
    rows = measurements_of(SMALL, [Update(at, estimates, at, torch.ones(3, 4, dtype=torch.int32))])
    assert_close(rows["composition_error_sq"], composition.square().sum(-1).mean(-1).unsqueeze(0))
    assert_close(rows["hessian_error_sq"], hessian.square().sum(-1).mean(-1).unsqueeze(0))


@pytest.mark.parametrize("inner", [4, None])
@pytest.mark.parametrize("hessian", [5, None])
def test_what_is_exact_has_no_error(inner, hessian):
    rows = measured(replace(SMALL, updates=3), Arm("", inner, hessian, 3))
    for name, sampled in (("composition_error_sq", inner), ("hessian_error_sq", hessian)):
        assert ((rows[name] > 1e-6) == (sampled is not None)).all()
        assert ((rows[name] > 1e-6) | (rows[name] < 1e-20)).all()
