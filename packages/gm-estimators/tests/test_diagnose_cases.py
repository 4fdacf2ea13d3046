"""Loops with an exact truth that differ from MAML's: without Jacobians, with learnt rates, with batches used again.

One action a ~ N(θ, 1) with reward −½ (a − c)², as in test_diagnose.py: J(θ) = −½ (δ² + 1), δ = θ − c.
"""

import jaxtyping
import pytest
import torch

from gm_estimators import Sizes, Trajectories
from gm_estimators.diagnose import diagnose
from gm_estimators.diagnose.sources import config_of, sources_of
from gm_estimators.optimisers import ascent

RATE, TARGET = 0.3, 1.0


def draw(role, step, params, n, seed):
    mean = params["mean"]
    return mean + torch.randn(*mean.shape[:-1], n, generator=torch.Generator().manual_seed(seed))


def see(actions, params, gae_lambda):
    log_prob, reward = -0.5 * (actions - params["mean"]).square(), -0.5 * (actions - TARGET).square()
    zero = torch.zeros_like(reward)
    value = torch.stack([zero, zero], -1)
    return Trajectories(log_prob[..., None], reward[..., None], value, reward[..., None], torch.ones(2))


def diagnosed(**changes):
    options = {
        "draw": draw, "see": see, "params": {"mean": torch.tensor([0.0])}, "sizes": Sizes(8, 8, 8), "inner_lr": RATE,
        "lanes": 64, "budget": 1, "surrogate": "lvc",
    }  # fmt: skip
    return diagnose(**(options | changes))


def recorded(drawn):
    """It plays as `draw` does and keeps (role, step)."""

    def looked(role, step, *others):
        drawn.append((role, step))
        return draw(role, step, *others)

    return looked


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Checking shapes would take half of the time; test_diagnose_engine.py has them checked."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("steps", [1, 2])
def test_leaving_jacobians_out_makes_a_meta_gradient_too_long(steps):
    """E d = −(1 − α)ᴷ δ for g = −(1 − α)²ᴷ δ, by whatever inner gradients, so that all of it is the Jacobians'."""
    report = diagnosed(surrogate="first_order", inner_steps=steps, lanes=2048)
    expected, found = 1 / (1 - RATE) ** steps - 1, report.verdicts["first_order"]
    for estimate in (found.along, found.along_shares["hessian"]):
        assert estimate.low < expected < estimate.high
        assert estimate.high - estimate.low < 0.4
    assert found.bias_sq.low < expected**2 < found.bias_sq.high
    assert abs(found.along_shares["composition"].value) < 0.06
    assert "a step's Jacobian left out or by the estimator" in str(report)
    assert max(map(len, str(report).splitlines())) <= 80


def test_a_loop_without_jacobians_shares_no_batch_for_them_and_differentiates_no_clipping():
    clipped = {"inner_lr": None, "optimiser": ascent(RATE, max_norm=0.5), "sizes": Sizes(8, 8, 8, shared=True)}
    report = diagnosed(surrogate=["first_order", "lvc"], **clipped)
    left, kept = (set(report.verdicts[name].shares) for name in ("first_order", "lvc"))
    assert kept - left == {"shared_batch", "clipping"}
    assert left == {"composition", "hessian"}


def test_advice_counts_a_loop_without_jacobians_once_and_gives_these_no_trajectories():
    choices = diagnosed(surrogate=["first_order", "lvc"]).advise(trajectories=12, splits=(0.25, 0.75), budget=1).choices
    assert sorted(choice.estimator for choice in choices) == ["first_order"] * 2 + ["lvc"] * 4
    assert all(choice.first_order == (choice.estimator == "first_order") for choice in choices)
    drawn = []
    alone = diagnosed(surrogate="first_order", draw=recorded(drawn))
    drawn.clear()
    said = str(alone.advise(trajectories=12, budget=1))
    assert {role for role, _ in drawn} == {"inner", "outer"}
    assert " none " in said


def test_dice_has_a_first_order_loop_of_its_own():
    plan = diagnosed(surrogate=["first_order", "dice+first_order"], lanes=8).plan
    first, other = (config_of(plan.loop, each, sources_of(plan.loop, each)) for each in plan.estimators)
    assert (first.first_order.name, first.end.name) == ("ad", "ad")
    assert (other.first_order.name, other.end.name) == ("dice", "dice")
    assert first.curvature == other.curvature
