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


def within(report, expected, errors=4):
    mean = report.sampled.reference.mean(0)
    error = report.sampled.reference.std(0) / len(report.sampled.reference) ** 0.5
    return bool(((mean - expected).abs() < errors * error).all())


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


LEARNT = {"mean": torch.tensor([0.0]), "rate": torch.tensor(RATE)}
OF_PHI = {"params": lambda phi: {"mean": phi["mean"]}, "meta_params": LEARNT, "inner_lr": lambda phi: phi["rate"]}


def spread(n):
    """Var ĝ, of the mean of n r(a) (a − θ), with δ = −1."""
    return ((1 + 18 + 15) / 4 - 1) / n


def meta_sgd(n=None):
    """∇ J(θ + α ĝ) in θ and α where δ = −1: ((1 − α)², 1 − α (1 + Var ĝ))."""
    return torch.tensor([(1 - RATE) ** 2, 1 - RATE * (1 + (spread(n) if n else 0))])


def test_a_rate_that_is_learnt_is_learnt_too_slowly_from_few_trajectories():
    """Its meta-gradient is E⟨ĝ, ∇J(θ + α ĝ)⟩, of which α Var ĝ is no part of the truth; that of θ⁰ has no bias."""
    report = diagnosed(see=lambda *given: see(*given[:3]), **OF_PHI, lanes=2048)
    g, found = meta_sgd(), report.verdicts["lvc"]
    assert within(report, g)
    assert not within(report, meta_sgd(8))
    off = meta_sgd(8) - g
    assert found.bias_sq.low < off @ off / (g @ g) < found.bias_sq.high
    for estimate in (found.along, found.along_shares["composition"]):
        assert estimate.low < off @ g / (g @ g) < estimate.high
        assert estimate.high - estimate.low < 0.3


def test_the_gain_of_adapting_with_a_learnt_rate():
    report = diagnosed(
        see=lambda *given: see(*given[:3]), **OF_PHI, lanes=2048, estimand="adapted", sizes=Sizes(2, 2, 8)
    )
    delta, n = -TARGET, 2
    of_start = -((1 - RATE) ** 2) * delta - RATE**2 * (delta**3 + 7 * delta) / (2 * n)
    assert within(report, torch.tensor([of_start, float(meta_sgd(2)[1])]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"meta_params": None}, "params: expected parameters, or beside a function of φ the meta_params that it is of"),
        ({"params": lambda phi: [phi["mean"]]}, "params: expected a tensor, or tensors by name .*, got a list"),
        ({"inner_lr": lambda phi: {"man": phi["rate"]}}, "inner_lr: expected one for each of mean, got man"),
        ({"inner_lr": lambda phi: phi["rate"].expand(3)},
         r"inner_lr: expected one that broadcasts to 'mean' of shape \(1,\), got shape \(3,\)"),
        ({"inner_lr": lambda phi: phi["rate"] / 0}, "inner_lr: expected finite numbers, got NaN or infinity"),
        ({"inner_lr": {"mean": 0.1}}, "inner_lr: expected a number, a tensor, or a function of φ that gives one, got "),
        ({"see": see}, r"see: expected a function of \(batch, params, gae_lambda, meta_params\), got one of "),
    ],
)  # fmt: skip
def test_a_start_and_rates_that_do_not_fit_are_refused_in_a_line(changes, said):
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        diagnosed(**({"see": lambda *given: see(*given[:3])} | OF_PHI | changes))
    assert "\n" not in str(caught.value)
