"""Intervals of squared lengths from vectors whose distribution is known: x ~ N(μ, 1) in one dimension or more."""

import pytest
import torch

from gm_estimators.diagnose.pairs import half_width, inner, ratio, repeats_for, squared

DRAWS, REPEATS, MEAN = 400, 32, 0.15


def drawn(mean, dimensions, repeats, seed):
    draw = torch.Generator().manual_seed(seed)
    return mean / dimensions**0.5 + torch.randn(repeats, dimensions, generator=draw, dtype=torch.float64)


def held(interval):
    """How often an interval of μ² holds it."""
    unit = torch.full((REPEATS,), REPEATS - 1.0, dtype=torch.float64)  # the kernel 1
    found = [interval(drawn(MEAN, 1, REPEATS, seed), unit) for seed in range(DRAWS)]
    return sum(low <= MEAN**2 <= high for _, low, high in found) / DRAWS


def test_a_squared_length_near_zero_has_an_interval_that_holds_it():
    """95% are meant, standard error 1.1%; the jackknife is the control, too short where the estimate is low."""
    assert held(squared) >= 0.917
    assert held(lambda x, unit: ratio(inner(x, x), unit)) < 0.88


@pytest.mark.parametrize("mean", [0.05, 2.0])  # where Var U falls as 1 / R², and where as 1 / R
def test_the_repeats_that_are_foretold_have_that_half_width(mean):
    first = drawn(mean, 5, 1000, 0)
    repeats = round(repeats_for(first, half_width(inner(first, first)), 0.3 if mean > 1 else 0.1))
    widths = [half_width(inner(x, x)) for x in (drawn(mean, 5, repeats, seed) for seed in range(1, 41))]
    assert sum(widths) / 40 == pytest.approx(0.3 if mean > 1 else 0.1, rel=0.35)
