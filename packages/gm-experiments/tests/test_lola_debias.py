"""A jackknifed look-ahead: what it combines, what its parts draw, and the bias that it is rid of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from gm_estimators import decompose
from gm_experiments.lola import EXPERIMENT, Arm, Game
from gm_experiments.lola.arena import JointTrajectories, Start
from gm_experiments.lola.figures import closing_table
from gm_experiments.lola.learner import Learner
from gm_experiments.lola.problem import exact_meta_gradients
from gm_experiments.lola.settings import COLUMNS

F64 = torch.float64
GAME = Game(horizon=5, evaluation_size=4, replay_capacity=8)
ARMS = {
    "shared": Arm("", inner=4, hessian=4, outer=6, shared=True),
    "apart": Arm("", inner=4, hessian=8, outer=6),
    "replay": Arm("", inner=4, hessian=4, outer=6, shared=True, replay_inner=True, replay_hessian=True),
    "replay hessian": Arm("", inner=4, hessian=4, outer=6, replay_hessian=True),
}


def moved_learner(arm: Arm) -> Learner:
    """A learner in double precision, some way from where it starts."""
    learner = Learner(GAME, arm, 2, np.random.Generator(np.random.SFC64(0)), dtype=F64)
    draw = torch.Generator().manual_seed(0)
    learner.policies += torch.randn(learner.policies.shape, generator=draw, dtype=F64)
    learner.critics += torch.randn(learner.critics.shape, generator=draw, dtype=F64)
    return learner


def estimated(learner: Learner, start: Start, permutation: str = "SSE", **parts: object) -> torch.Tensor:
    """The look-ahead's meta-gradient from what was played at its start."""
    (estimate,) = decompose(
        replace(learner.look_ahead(start), **parts),
        [learner.estimator],
        permutations=[permutation],
        sizes=[learner.sizes(start)],
        inner_steps=1,
        inner_lr=learner.game.inner_lr,
    ).values()
    return estimate


def halved(sample: JointTrajectories, half: int) -> JointTrajectories:
    """The first or the second half of the trajectories."""
    size = sample.size // 2
    rows = slice(half * size, (half + 1) * size)
    group = None if sample.group is None else sample.group[..., rows]
    return JointTrajectories(sample.outcome[..., rows, :], sample.behaviour, group)


@pytest.mark.parametrize("name", ARMS)
def test_it_is_twice_the_whole_less_the_mean_of_the_halves(name):
    learner, plain = moved_learner(replace(ARMS[name], debias="+jackknife")), moved_learner(ARMS[name])
    start = learner.start()
    estimate, whole = estimated(learner, start), estimated(plain, start)
    halves = [
        estimated(
            plain, Start({role: halved(sample, half) for role, sample in start.samples.items()}, start.evaluation)
        )
        for half in (0, 1)
    ]
    assert_close(estimate, 2 * whole - (halves[0] + halves[1]) / 2, rtol=0, atol=1e-10)
    assert (estimate - whole).abs().max() > 1e-3  # the control


def test_each_part_plays_against_the_opponent_that_it_expects():
    learner = moved_learner(replace(ARMS["shared"], debias="+jackknife"))
    start = learner.start()
    problem = learner.look_ahead(start)
    played = []

    class Listener:
        def play(self, step, roles, policies):
            played.append(policies)
            return problem.player.play(step, roles, policies)

    estimated(learner, start, "SSS", player=Listener())
    assert len(played) == 3
    expected = []
    for sample in (whole := start.samples["inner"], halved(whole, 0), halved(whole, 1)):
        step = problem.at(problem.params).sampled("inner", learner.estimator, sample)
        expected.append(problem.params + GAME.inner_lr * step.gradient)
    for policies, opponents in zip(played, expected, strict=True):
        assert_close(torch.stack((policies[:, 0, 1], policies[:, 1, 0]), 1), opponents, rtol=0, atol=1e-12)


def test_the_critics_learn_from_the_outer_trajectories_of_the_whole():
    learner = moved_learner(replace(ARMS["shared"], debias="+jackknife"))
    assert learner.estimate(learner.start()).outer.sample.size == 6


def test_it_takes_away_more_than_half_of_the_bias_of_composition():
    """Mean errors of 10,000 look-aheads ± four standard errors, along the plain estimator's with 8 trajectories.

    What is left is O(1/n²), which gm-estimators proves by enumeration: the less the larger the sample.
    """
    game = Game(horizon=8, discount=0.3, inner_lr=4.0, critic="none")
    errors = {}
    for size, suffix in ((8, ""), (8, "+jackknife"), (32, ""), (32, "+jackknife"), (8, "direction")):
        arm = Arm("", inner=size, hessian=size, outer=None, shared=True, debias=suffix.removeprefix("direction"))
        rng = np.random.Generator(np.random.SFC64([0, size, suffix == "direction"]))
        learner = Learner(game, arm, 10_000, rng, dtype=F64)
        learner.policies += torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
        estimate = learner.estimate(learner.start()).gradient
        errors[suffix, size] = (estimate - exact_meta_gradients(game, learner.policies[:1])).flatten(1)
    direction = errors.pop(("direction", 8)).mean(0)
    least, most = {}, {}
    for key, x in errors.items():
        along = x @ (direction / direction.norm())
        error = 4 * along.std() / len(along) ** 0.5
        least[key], most[key] = float(along.mean() - error), float(along.mean() + error)
    assert least["", 32] > 0  # the plain one is biased
    assert most["+jackknife", 8] < least["", 8]
    assert most["+jackknife", 32] < least["", 32] / 2


def test_the_app_compares_plain_and_debiased(run_app, monkeypatch):
    monkeypatch.setattr("gm_experiments.lola.figures.LAST", 15)
    small = "--figure debias --updates 25 --horizon 20 --seeds 3 --evaluation-size 8 --run-dir run --wandb disabled"
    assert run_app(EXPERIMENT, *small.split())[0] == 0
    frame = pd.read_csv("run/results.csv")
    assert tuple(frame.columns) == (*COLUMNS, "cooperation")
    assert len(frame) == 4 * 25 * 3
    # mean payoffs of CC −1, CD and DC −1.5, DD −2
    np.testing.assert_allclose(frame["cooperation"], frame["score"] + 2, atol=1e-6)
    assert frame["cooperation"].between(0, 1).all()
    assert frame["cooperation"].nunique() > 100

    table = closing_table(frame).set_index("curve")["more than plain"]
    assert {name: bool(text) for name, text in table.items()} == {
        "plain 192 + 192": False,
        "jackknife 128 + 256": True,
        "plain 24 + 24": False,
        "jackknife 16 + 32": True,
    }
    end = frame[frame["update"] > 10].groupby(["curve", "seed"])["cooperation"].mean().groupby("curve").mean()
    gain = end["jackknife 16 + 32"] - end["plain 24 + 24"]
    assert float(table["jackknife 16 + 32"].split()[0]) == pytest.approx(gain, rel=0.01)
    assert Path("run/figures/debias.png").stat().st_size > 10_000

    before = Path("run/results.csv").read_bytes()
    next(Path("run/cells").iterdir()).unlink()
    assert run_app(replace(EXPERIMENT, figures=lambda *_: {}), *small.split())[0] == 0
    assert Path("run/results.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--estimator", "dice+jackknife3"], "--estimator: expected parts of 128 trajectories, got a jackknife of 3"),
        (["--estimator", "dice+correction"], "--estimator: expected an estimator without +correction, which only the"),
    ],
)
def test_a_name_that_does_not_fit_is_one_line_and_status_2(run_app, flags, message):
    status, error = run_app(EXPERIMENT, *flags)
    assert status == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
