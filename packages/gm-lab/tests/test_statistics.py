"""Intervals by hand and their coverage."""

import math

import numpy as np
import pandas as pd
import pytest

from gm_lab import Interval, mean_interval, paired_difference, per_unit


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
    assert paired_difference(first, second).mean == pytest.approx(0.1)
    assert paired_difference(first, second).low > 0
    assert mean_interval(second).high > mean_interval(first).mean


def test_pairing_refuses_other_units():
    first = pd.Series([1.0, 2.0], index=[0, 1])
    with pytest.raises(ValueError, match="same units") as error:
        paired_difference(first, pd.Series([1.0, 2.0], index=[1, 2]))
    assert str(error.value) == "expected two samples of the same units, got [0, 1] and [1, 2]"
    with pytest.raises(ValueError, match="same units") as error:
        paired_difference(first, [1.0])
    assert str(error.value) == "expected two samples of the same units, got shapes (2,) and (1,)"


FRAME = pd.DataFrame({"name": ["a", "a", "a", "b"], "mdp": [1, 0, 0, 0], "accuracy": [3.0, 1.0, 2.0, 9.0]})


def test_one_number_per_unit():
    assert per_unit(FRAME, "accuracy", "mdp", name="a").to_dict() == {0: 1.5, 1: 3.0}
    assert per_unit(FRAME, "accuracy", "mdp", name="c").empty
    with pytest.raises(ValueError, match="column") as error:
        per_unit(FRAME, "acuracy", "mdp")
    assert str(error.value) == "expected a column among name, mdp, accuracy; got acuracy"
