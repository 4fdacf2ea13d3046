"""Intervals by hand, their coverage, and what the comparisons of claims say."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gm_lab import (
    Comparison,
    Interval,
    above,
    alike,
    at_least,
    at_most,
    decided,
    every,
    greater,
    judged,
    mean_interval,
    paired_difference,
    per_unit,
    similar,
    within,
)


def test_interval_by_hand():
    # mean 2, s = 1, n = 3; with two degrees of freedom t(p) = (2p − 1) / √(2p(1 − p)), here p = 0.975
    interval = mean_interval([1.0, 2.0, 3.0])
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    assert interval.count == 3
    assert [interval.mean, interval.low, interval.high] == pytest.approx([2, 2 - half, 2 + half], rel=1e-12)
    assert str(interval) == "2 [-0.484, 4.48]"


def coverage(confidence):
    # 4000 samples of 5 normal values around 0; the standard error of the coverage is √(0.95·0.05/4000) = 0.0034
    samples = np.random.default_rng(0).normal(size=(4000, 5))
    intervals = [mean_interval(sample, confidence) for sample in samples]
    return np.mean([interval.low <= 0 <= interval.high for interval in intervals])


def test_coverage_within_four_standard_errors_and_a_narrower_interval_is_rejected():
    bound = 4 * math.sqrt(0.95 * 0.05 / 4000)
    assert abs(coverage(0.95) - 0.95) < bound
    assert abs(coverage(0.93) - 0.95) > bound


def test_one_value_leaves_the_interval_unbounded():
    assert mean_interval([3.0]) == Interval(3.0, -math.inf, math.inf, 1)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], 1.0])
def test_interval_refuses_other_shapes(values):
    shape = np.shape(values)
    with pytest.raises(ValueError, match="expected shape") as error:
        mean_interval(values)
    assert str(error.value) == f"values: expected shape (n,) with n of at least 1, got {shape}"


def test_pairing_finds_what_overlapping_intervals_hide():
    first = np.array([1.0, 5.0, 9.0])
    second = first - [0.1, 0.11, 0.09]
    assert greater(first, second) is True
    assert greater(second, first) is False
    assert similar(first, second) is True
    assert similar(first, first + 100) is False
    assert paired_difference(first, second).mean == pytest.approx(0.1)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_too_little_data_decides_nothing(values):
    assert greater(values, values) is None
    assert similar(values, values) is None


def test_pairing_refuses_other_units():
    first = pd.Series([1.0, 2.0], index=[0, 1])
    with pytest.raises(ValueError, match="same units") as error:
        greater(first, pd.Series([1.0, 2.0], index=[1, 2]))
    assert str(error.value) == "expected two samples of the same units, got [0, 1] and [1, 2]"
    with pytest.raises(ValueError, match="same units") as error:
        greater(first, [1.0])
    assert str(error.value) == "expected two samples of the same units, got shapes (2,) and (1,)"


FRAME = pd.DataFrame({"name": ["a", "a", "a", "b"], "mdp": [1, 0, 0, 0], "accuracy": [3.0, 1.0, 2.0, 9.0]})


def test_one_number_per_unit():
    assert per_unit(FRAME, "accuracy", "mdp", name="a").to_dict() == {0: 1.5, 1: 3.0}
    assert per_unit(FRAME, "accuracy", "mdp", name="c").empty
    with pytest.raises(ValueError, match="column") as error:
        per_unit(FRAME, "acuracy", "mdp")
    assert str(error.value) == "expected a column among name, mdp, accuracy; got acuracy"


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [([], None), ([True], True), ([True, None], None), ([True, None, False], False), ([True, True], True)],
)
def test_every(outcomes, verdict):
    assert every(outcomes) is verdict


def test_comparisons_and_their_verdict():
    low, high = pd.Series([1.0, 2.0, 3.0]), pd.Series([11.0, 12.0, 13.5])
    none = pd.Series([], dtype=float)
    assert above("high > low", high, low).holds is True
    assert above("low > high", low, high).holds is False
    assert above("high > none", high, none).holds is None
    assert alike("low ≈ low", low, low).holds is True
    assert alike("low ≈ high", low, high).holds is False
    assert alike("low ≈ none", low, none).holds is None
    assert [at_least("", low, 1.9).holds, at_least("", low, 2.1).holds, at_least("", none, 0).holds] == [
        True,
        False,
        None,
    ]
    assert [at_most("", low, 1.9).holds, at_most("", low, 2.1).holds, at_most("", none, 0).holds] == [
        False,
        True,
        None,
    ]
    verdict = decided("X-1", "high wins", [above("high > low", high, low), above("low > high", low, high)], examples=1)
    assert (verdict.id, verdict.claim, verdict.holds, verdict.verdict) == ("X-1", "high wins", False, "does not hold")
    assert verdict.measured.startswith("1 of 2 comparisons hold. low > high: no, difference -10.2 [")
    assert decided("X-2", "", []).verdict == "not enough data"


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6), st.integers(0, 5), st.sampled_from([math.nan, math.inf]))
def test_a_comparison_with_nan_holds_nowhere(values, place, odd):
    """Neither does it fail: NaN is not above, below or alike anything; infinity leaves no interval."""
    known = pd.Series(values)
    spoilt = known.copy()
    spoilt[place % len(values)] = odd
    comparisons = [
        above("", known, spoilt),
        above("", spoilt, known),
        alike("", known, spoilt),
        alike("", spoilt, spoilt),
    ]
    comparisons += [at_least("", spoilt, 0.0), at_most("", spoilt, 0.0)] if odd != odd else []
    assert [comparison.holds for comparison in comparisons] == [None] * len(comparisons)
    verdict = decided("X-1", "", comparisons)
    assert verdict.verdict == "not enough data"
    assert "none of it was measured" not in verdict.measured
    assert decided("X-1", "", [*comparisons, Comparison("", False, "")]).holds is False


@pytest.mark.parametrize(
    ("value", "holds"), [(1.0, True), (2.0, True), (2.5, False), (math.inf, False), (math.nan, None)]
)
def test_within(value, holds):
    assert within("", value, 2.0, "").holds is holds


@pytest.mark.parametrize("ends", [(math.nan, 0.0, 0.0), (0.0, math.nan, 0.0), (0.0, 0.0, math.nan)])
def test_an_interval_with_a_nan_decides_nothing(ends):
    assert judged("", Interval(*ends, 2), True).holds is None
    assert judged("", Interval(0.0, -math.inf, math.inf, 1), True).holds is True
