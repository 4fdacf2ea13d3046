"""Intervals of squared lengths from vectors whose distribution is known: x ~ N(μ, 1) in one dimension or more."""

import math

import pytest
import torch

from gm_estimators.diagnose.pairs import Kernel, each, half_width, inner, mean, ratio, ratios, repeats_for, shares
from gm_estimators.metrics import student_t_quantile

DRAWS, REPEATS, MEAN = 400, 32, 0.3


def drawn(mean, dimensions, repeats, seed):
    draw = torch.Generator().manual_seed(seed)
    return mean / dimensions**0.5 + torch.randn(repeats, dimensions, generator=draw, dtype=torch.float64)


def by_jackknife(x):
    """The control: Student's interval of U, whose variance is that of U without each repeat in turn."""
    h = (x @ x.mT).fill_diagonal_(0)
    count = len(x)
    without = (h.sum() - 2 * h.sum(1)) / ((count - 1) * (count - 2))
    value = float(h.sum()) / (count * (count - 1))
    half = student_t_quantile(0.975, count - 1) * float(((count - 1) * without.var(correction=0)).sqrt())
    return value, value - half, value + half


def held(intervals):
    """How many of them hold μ²."""
    return sum(low <= MEAN**2 <= high for _, low, high in intervals) / DRAWS


def test_a_squared_length_near_zero_has_an_interval_that_holds_it():
    """95% are meant, standard error 1.1%; the jackknife is the control, too short where the estimate is low."""
    draws = [drawn(MEAN, 1, REPEATS, seed) for seed in range(DRAWS)]
    assert held(ratios([inner(x, x) for x in draws], each(torch.ones(REPEATS)))) >= 0.917
    assert held(by_jackknife(x) for x in draws) < 0.88


def test_a_squared_length_far_from_zero_has_students_interval():
    """U moves with 2 μ x̄ alone there: 2 μ t s / √R on either side."""
    x = drawn(100.0, 1, REPEATS, 0)
    value, low, high = ratio(inner(x, x))
    half = 2 * float(x.mean()) * student_t_quantile(0.975, REPEATS - 1) * float(x.std()) / REPEATS**0.5
    assert (value - low, high - value) == (pytest.approx(half, rel=0.01), pytest.approx(half, rel=0.01))


def test_a_ratio_of_means_has_fiellers_interval():
    """Of what is linear there is nothing to correct: (ā − θ b̄)² = t² s²(a − θ b) / R at both ends."""
    a, b = drawn(1.0, 1, REPEATS, 0).squeeze(-1), drawn(2.0, 1, REPEATS, 1).squeeze(-1)
    found = ratio(each(a), each(b))
    assert found.value == pytest.approx(float(a.mean() / b.mean()))
    for theta in (found.low, found.high):
        rest = a - theta * b
        t = abs(float(rest.mean())) / float(rest.std()) * REPEATS**0.5
        assert t == pytest.approx(student_t_quantile(0.975, REPEATS - 1), rel=1e-3)


def test_means_are_over_pairs_of_different_repeats():
    x, y = drawn(1.0, 3, 70, 0), drawn(1.0, 3, 70, 1)  # more than have all their pairs made
    products = (x @ y.mT).fill_diagonal_(0)
    assert mean(inner(x, y)) == pytest.approx(float(products.sum()) / (70 * 69))
    assert mean(inner(x, y)) == pytest.approx(mean(inner(y, x)))
    assert mean(each(x[:, 0])) == pytest.approx(float(x[:, 0].mean()))
    assert math.isnan(mean(inner(x[:1], y[:1])))


def test_shares_of_kernels_are_kernels_of_shares():
    x, y = drawn(1.0, 3, 8, 0), drawn(1.0, 3, 8, 1)
    nothing = inner(0 * x, x)
    value = {frozenset(): nothing, frozenset("a"): inner(x, x), frozenset("b"): nothing, frozenset("ab"): inner(y, y)}
    found = shares(value, ["a", "b"])
    assert mean(found["a"]) + mean(found["b"]) == pytest.approx(mean(inner(y, y)))
    half = Kernel(*((one + two) / 2 for one, two in zip(inner(x, x), inner(y, y), strict=True)))
    for part, expected in zip(found["a"], half, strict=True):
        assert torch.allclose(part, expected)


def test_an_interval_has_no_bounds_where_what_is_below_may_be_zero():
    x, noise = drawn(2.0, 3, REPEATS, 0), drawn(0.0, 3, REPEATS, 1)
    assert math.isinf(ratio(inner(x, x), inner(noise, noise)).high)
    assert math.isinf(ratio(inner(x[:3], x[:3])).high)  # too few repeats
    assert math.isfinite(ratio(inner(noise, noise), inner(x, x)).high)
    assert math.isinf(ratio(inner(math.nan * x, x)).high)


def test_what_is_zero_for_sure_has_an_interval_without_width():
    x = drawn(2.0, 3, REPEATS, 0)
    other, nothing = ratios([inner(x, 2 * x), inner(0 * x, x)], inner(x, x))
    assert nothing == (0, 0, 0)
    assert other == pytest.approx((2, 2, 2))


def test_an_interval_does_not_depend_on_units():
    x, y = drawn(2.0, 3, REPEATS, 0), drawn(1.0, 3, REPEATS, 1)
    one, other = ratio(inner(y, x), inner(x, x)), ratio(inner(1e-9 * y, 1e9 * x), inner(1e9 * x, 1e9 * x))
    assert [1e18 * number for number in other] == pytest.approx(list(one), rel=1e-4)


def test_half_a_width_depends_on_what_is_true():
    """That of μ² is 2 μ t s / √R far from 0: as large for μ = 6 as twice that for μ = 3."""
    x = drawn(3.0, 1, 64, 0)
    x = (x - x.mean()) / x.std() + 3
    estimated = 2 * 3 * student_t_quantile(0.975, 63) / 64**0.5
    assert half_width(inner(x, x)) == pytest.approx(estimated, rel=0.01)
    assert half_width(inner(x, x), None, 36.0) == pytest.approx(2 * estimated, rel=0.05)


@pytest.mark.parametrize("mean", [0.05, 2.0])  # where Var U falls as 1 / R², and where as 1 / R
def test_the_repeats_that_are_foretold_have_that_half_width(mean):
    first = drawn(mean, 5, 1000, 0)
    repeats = round(repeats_for(first, half_width(inner(first, first)), 0.3 if mean > 1 else 0.1))
    widths = [half_width(inner(x, x)) for x in (drawn(mean, 5, repeats, seed) for seed in range(1, 41))]
    assert sum(widths) / 40 == pytest.approx(0.3 if mean > 1 else 0.1, rel=0.35)
