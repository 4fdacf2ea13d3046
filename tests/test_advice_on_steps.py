"""Advice on K agrees with enumeration, in which errors are in units of each K's own ‖g‖²."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
from known_loops import PROBLEMS, error

from gm_estimators import load

STEPS = (1, 2)


@pytest.fixture(scope="module", autouse=True)
def unchecked():
    """Checking shapes would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        yield


@pytest.fixture(scope="module")
def known():
    return PROBLEMS["maml"]()


@pytest.fixture(scope="module")
def advised(unchecked, known):
    """(choice, its exact error) from the best to the worst, and what each K earns."""
    report = known.diagnosis(1, 384, surrogate=("ad", "lvc"))
    advice = report.advise(trajectories=8, lambdas=(), splits=(0.5,), inner_steps=STEPS, budget=1)
    loops = [replace(report.plan.loop, inner_steps=x.inner_steps, sizes=x.sizes) for x in advice.choices]
    exact = [error(known, loop, load(x.estimator)) for x, loop in zip(advice.choices, loops, strict=True)]
    return list(zip(advice.choices, exact, strict=True)), advice.returns


def test_what_choices_are_above_the_best_is_enumerations(advised):
    choices, _ = advised
    best, least = choices[0]
    assert {choice.inner_steps for choice, _ in choices} == set(STEPS)
    for choice, exact in choices:
        assert choice.beyond.low <= exact - least <= choice.beyond.high
    others = [choice for choice, _ in choices if choice.inner_steps != best.inner_steps]
    assert max(choice.beyond.high - choice.beyond.low for choice in others) < 0.5


def test_a_unit_for_all_would_be_refuted(advised, known):
    """The same errors in units of the ‖g‖² of the other K lie outside of these intervals."""
    choices, _ = advised
    best, least = choices[0]
    length = {steps: float(known.exact(steps) @ known.exact(steps)) for steps in STEPS}
    wrong = [
        (choice.beyond, exact * length[choice.inner_steps] / length[best.inner_steps] - least)
        for choice, exact in choices if choice.inner_steps != best.inner_steps
    ]  # fmt: skip
    assert any(not found.low <= value <= found.high for found, value in wrong)


def returned(known, theta):
    """J(θ) by all trajectories."""
    seen = known.see(known.every(True), theta, 1.0)
    return (seen.log_prob.sum(-1).exp() * (seen.discount[:-1] * seen.reward).sum(-1)).sum()


def test_what_a_loop_earns_after_some_steps_is_enumerations(advised, known):
    theta, (_, earned) = dict(known.theta), advised
    for steps in STEPS:
        leaf = {name: x.detach().requires_grad_() for name, x in theta.items()}
        grads = torch.autograd.grad(returned(known, leaf), list(leaf.values()))
        theta = {name: x.detach() + known.rate * g for (name, x), g in zip(leaf.items(), grads, strict=True)}
        assert earned[steps].low <= float(returned(known, theta)) <= earned[steps].high
        assert earned[steps].high - earned[steps].low < 0.05
