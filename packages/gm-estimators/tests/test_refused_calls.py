"""Calls that would give a wrong number, or an error of torch's, are refused with what was expected and what came."""

import math
from collections.abc import Callable

import jaxtyping
import pytest
import torch

from gm_estimators import metrics
from gm_estimators.attribution import AdamDistortion
from gm_estimators.critics import learnt_values
from gm_estimators.inner_loop import inner_loop
from gm_estimators.meta_gradient import meta_gradient
from gm_estimators.optimisers import adam, adam_state, ascent, clip_coefficient, constant, linear_decay
from gm_estimators.returns import discounts, gae, gae_adjoint, returns_to_go

ONES, WHOLE = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.long)
ESTIMATES = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
PARAMS, GRADIENT = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])}
HALF = {"w": torch.ones(2).half()}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: returns_to_go(WHOLE, 0.9), "reward: expected a tensor of floating-point"),
        (lambda: returns_to_go(torch.full((9,), 200, dtype=torch.uint8), 1), "reward: expected"),
        (lambda: returns_to_go(ONES.numpy(), 0.9), "reward: expected"),
        (lambda: returns_to_go(torch.tensor(1.0), 0.9), "reward: expected an axis of time"),
        (lambda: returns_to_go(ONES, 0.9, torch.ones(2, 1)), "last_value: expected a shape"),
        (lambda: returns_to_go(ONES, torch.ones(2)), "discount: expected a shape"),
        (lambda: gae(WHOLE, torch.ones(2, 4), 0.9), "reward: expected"),
        (lambda: gae(ONES, torch.ones(2, 4, dtype=torch.long), 0.9), "value: expected"),
        (lambda: discounts(0.9, -1), "horizon: expected"),
        (lambda: metrics.accuracy(WHOLE, ONES), "estimate: expected"),
        (lambda: metrics.accuracy(ESTIMATES, torch.ones(1)), "truth: expected 4 entries"),
        (lambda: metrics.accuracy(torch.ones(2, 0), torch.ones(2, 0)), "estimate: expected"),
        (lambda: metrics.relative_bias(ESTIMATES, torch.ones(1)), "truth: expected 4 entries"),
        (lambda: metrics.bias_sq(ESTIMATES, ESTIMATES), "truth: expected no axis of repeats"),
        (lambda: metrics.bias_sq(ESTIMATES, torch.ones(1)), "truth: expected 4 entries"),
        (lambda: metrics.mse(ESTIMATES, ESTIMATES), "truth: expected no axis of repeats"),
        (lambda: metrics.mse(ESTIMATES[:0], ESTIMATES[0]), "estimates: expected"),
        (lambda: metrics.summary(ESTIMATES, ESTIMATES), "truth: expected no axis of repeats"),
        (lambda: metrics.bias_sq_interval(ESTIMATES, ESTIMATES), "truth: expected no axis of repeats"),
        (lambda: metrics.variance(WHOLE), "estimates: expected"),
        (lambda: metrics.variance(torch.ones(5)), "estimates: expected 2 or more axes"),
        (lambda: metrics.mean_interval(torch.tensor(1.0)), "values: expected"),
        (lambda: metrics.paired_difference(torch.ones(5), torch.ones(1)), "first, second: expected pairs"),
        (lambda: metrics.student_t_quantile(0.975, 2.5), "degrees"),  # type: ignore[arg-type]
        (lambda: ascent(0.1, max_norm=-1), "max_norm: expected"),
        (lambda: ascent(0.1, max_norm=math.nan), "max_norm: expected"),
        (lambda: ascent(torch.ones(2, 1))(PARAMS, GRADIENT, None), "inner_lr: expected"),
        (lambda: adam(constant(0.1), betas=(0.9, 1.0)), "betas, eps: expected"),
        (lambda: adam(constant(0.1), betas=(-1.0, 0.9)), "betas, eps: expected"),
        (lambda: adam(constant(0.1), eps=0.0), "betas, eps: expected"),
        (lambda: adam("0.1"), "learning_rate: expected a number, or a function"),  # type: ignore[arg-type]
        (lambda: adam(constant(0.1))(HALF, HALF, adam_state(HALF)), "params: expected .* got float16"),
        (lambda: linear_decay(0.1, -5), "updates: expected"),
        (lambda: learnt_values(ONES, torch.zeros(2, 3, dtype=torch.long), 0.9, 4), "state: expected shape"),
        (lambda: AdamDistortion(torch.zeros(3), torch.zeros(3), 0, torch.ones(3)), "count: expected"),
    ],
)
def test_what_makes_no_sense_is_refused(
    call: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # outside of tests nothing else checks
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_an_objective_that_is_no_tensor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    w = torch.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="inner objective: expected a tensor, got a float"):
        inner_loop(lambda *_: 1.0, w, w, inner_steps=1, inner_lr=0.1)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="outer: expected a tensor, got a float"):
        meta_gradient(
            w, w, inner=lambda phi, theta, _i: (phi * theta).sum(), outer=lambda *_: 1.0,  # type: ignore[arg-type, return-value]
            inner_steps=1, inner_lr=0.1,
        )  # fmt: skip


def test_no_steps_have_no_returns() -> None:
    nothing = torch.zeros(3, 0)
    assert returns_to_go(nothing, 0.9).shape == gae(nothing, torch.zeros(3, 1), 0.9).shape == (3, 0)
    by_reward, by_value = gae_adjoint(nothing, 0.9, 0.9)
    assert by_reward.shape == (3, 0)
    assert torch.equal(by_value, torch.zeros(3, 1))


def test_half_precision_overflows_in_no_metric() -> None:
    ones = torch.ones(100_000).half()
    assert float(metrics.accuracy(ones, ones)) == pytest.approx(1)
    estimates = (300 * ESTIMATES).half()
    assert float(metrics.variance(estimates)) == pytest.approx(float(metrics.variance(estimates.double())))


def test_a_norm_that_overflows_is_no_step_of_zero() -> None:
    assert bool(clip_coefficient({"w": torch.tensor([1e30, 0.0])}, 1.0).isnan())
