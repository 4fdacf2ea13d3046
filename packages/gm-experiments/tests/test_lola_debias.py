"""A jackknifed look-ahead: what it combines, what its parts draw, and the bias that it is rid of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

import gm_estimators
import lola_offpolicy
import lola_report
from lola_problem import Curve, Game, LookAhead, Sample
from lola_training import Training

F64 = torch.float64
GAME = Game(horizon=5, evaluation_size=4, replay_capacity=8)
CURVES = {
    "shared": Curve("", inner=4, hessian=4, outer=6, shared=True),
    "apart": Curve("", inner=4, hessian=8, outer=6),
    "replay": Curve("", inner=4, hessian=4, outer=6, shared=True, replay_inner=True, replay_hessian=True),
    "replay hessian": Curve("", inner=4, hessian=4, outer=6, replay_hessian=True),
}


def training(curve: Curve) -> Training:
    """A learner in double precision, some way from where it starts."""
    found = Training(GAME, curve, 2, np.random.Generator(np.random.SFC64(0)), dtype=F64)
    draw = torch.Generator().manual_seed(0)
    found.params += torch.randn(found.params.shape, generator=draw, dtype=F64)
    found.values += torch.randn(found.values.shape, generator=draw, dtype=F64)
    return found


def estimated(t: Training, problem: LookAhead, permutation: str) -> torch.Tensor:
    (found,) = gm_estimators.decompose(
        problem,
        [t.estimator],
        permutations=[permutation],
        sample_sizes=(t.blocks,),
        inner_steps=t.game.inner_steps,
        inner_lr=t.game.inner_lr,
    ).values()
    return found


def halved(sample: Sample, half: int) -> Sample:
    """The first or the second half of the trajectories."""
    size = sample.outcome.shape[-2] // 2
    rows = slice(half * size, (half + 1) * size)
    group = None if sample.group is None else sample.group[..., rows]
    return Sample(sample.outcome[..., rows, :], sample.behaviour, group)


@pytest.mark.parametrize("name", CURVES)
def test_it_is_twice_the_whole_less_the_mean_of_the_halves(name):
    t = training(replace(CURVES[name], debias="+jackknife"))
    problem = LookAhead(t)
    found = estimated(t, problem, "SSE")
    drawn = {key: sample for key, sample in problem._drawn.items() if key[1] == 0}
    plain = training(CURVES[name])

    def at(samples):
        other = LookAhead(plain)
        other._drawn = samples
        other._drawn_at = dict.fromkeys(samples, other.params)
        return estimated(plain, other, "SSE")

    anew = {key: Sample(sample.outcome, sample.behaviour, sample.group) for key, sample in drawn.items()}
    halves = [at({key: halved(sample, half) for key, sample in drawn.items()}) for half in (0, 1)]
    assert_close(found, 2 * at(anew) - (halves[0] + halves[1]) / 2, rtol=0, atol=1e-10)
    assert (found - at(anew)).abs().max() > 1e-3  # the control


def test_each_part_plays_against_the_opponent_that_it_expects(monkeypatch):
    t = training(replace(CURVES["shared"], debias="+jackknife"))
    played = []
    play = t.play
    monkeypatch.setattr(t, "play", lambda policies, sizes: played.append(policies) or play(policies, sizes))
    problem = LookAhead(t)
    estimated(t, problem, "SSS")
    assert len(played) == 3
    expected = []
    for sample in (whole := problem._drawn["inner", 0], halved(whole, 0), halved(whole, 1)):
        step = problem.sampled("inner", t.estimator, sample, problem.params)
        expected.append(problem.params + t.game.inner_lr * step.gradient)
    for policies, opponents in zip(played, expected, strict=True):
        assert_close(torch.stack((policies[:, 0, 1], policies[:, 1, 0]), 1), opponents, rtol=0, atol=1e-12)
    # the critics learn from the outer trajectories of the whole
    assert problem.outer_sample.sums is not None


def test_it_takes_away_more_than_half_of_the_bias_of_composition():
    """Mean errors of 10,000 look-aheads ± four standard errors, along the plain estimator's with 8 trajectories.

    What is left is O(1/n²), which gm-estimators proves by enumeration: the less the larger the sample.
    """
    game = Game(horizon=8, discount=0.3, inner_lr=4.0, critic="none")
    errors = {}
    for size, suffix in ((8, ""), (8, "+jackknife"), (32, ""), (32, "+jackknife"), (8, "direction")):
        curve = Curve("", inner=size, hessian=size, outer=None, shared=True, debias=suffix.removeprefix("direction"))
        rng = np.random.Generator(np.random.SFC64([0, size, suffix == "direction"]))
        t = Training(game, curve, 10_000, rng, dtype=F64)
        t.params = t.params + torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
        errors[suffix, size] = (estimated(t, LookAhead(t), "SSE") - t.truth(t.params[:1])).flatten(1)
    direction = errors.pop(("direction", 8)).mean(0)
    least, most = {}, {}
    for key, x in errors.items():
        along = x @ (direction / direction.norm())
        error = 4 * along.std() / len(along) ** 0.5
        least[key], most[key] = float(along.mean() - error), float(along.mean() + error)
    assert least["", 32] > 0  # the plain one is biased
    assert most["+jackknife", 8] < least["", 8]
    assert most["+jackknife", 32] < least["", 32] / 2


def test_the_app_compares_plain_and_debiased(run_app):
    small = "--figure debias --updates 60 --horizon 20 --seeds 3 --evaluation-size 8 --run-dir run --wandb disabled"
    assert run_app(lola_offpolicy.EXPERIMENT, *small.split())[0] == 0
    frame = pd.read_csv("run/results.csv")
    assert tuple(frame.columns) == (*lola_offpolicy.COLUMNS, "cooperation")
    assert len(frame) == 4 * 60 * 3
    # mean payoffs of CC −1, CD and DC −1.5, DD −2
    np.testing.assert_allclose(frame["cooperation"], frame["score"] + 2, atol=1e-6)
    assert frame["cooperation"].between(0, 1).all()
    assert frame["cooperation"].nunique() > 100

    table = lola_report.summary(frame).set_index("curve")["more than plain"]
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
    assert run_app(lola_offpolicy.EXPERIMENT, *small.split())[0] == 0
    assert Path("run/results.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--estimator", "dice+jackknife3"], "--estimator: expected parts of 128 trajectories, got a jackknife of 3"),
        (["--estimator", "dice+correction"], "--estimator: expected an estimator without +correction, which only the"),
    ],
)
def test_a_name_that_does_not_fit_is_one_line_and_status_2(run_app, flags, message):
    status, error = run_app(lola_offpolicy.EXPERIMENT, *flags)
    assert status == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
