"""What decides a claim: the bounds of an interval, not its mean."""

import numpy as np
import pandas as pd
import pytest

from gm_lab.analysis import Comparison, Units, above, decided, greater, mean_interval, paired_difference, similar

UNIT = np.array([-1.0, 0.0, 1.0])
HALF = 4.302652729911275 / np.sqrt(3)
"""Half the width of the interval of three numbers with standard deviation 1: t(0.975, 2) / √3."""


@pytest.mark.parametrize(("shift", "holds"), [(HALF + 1e-6, True), (HALF - 1e-6, False), (0.1, False), (-HALF, False)])
def test_greater_is_decided_by_the_lower_bound(shift, holds):
    noise = np.array([7.0, -50.0, 3.0])
    assert greater(noise + UNIT + shift, noise) is holds
    if holds:
        assert greater(noise, noise + UNIT + shift) is False
    first, second = pd.Series(noise + UNIT + shift), pd.Series(noise)
    assert above("a", first, second).holds is holds


@pytest.mark.parametrize(("apart", "holds"), [(2 * HALF - 1e-6, True), (2 * HALF + 1e-6, False)])
def test_similar_is_decided_by_the_ends_of_both_intervals(apart, holds):
    assert similar(UNIT, UNIT + apart) is holds
    assert similar(UNIT + apart, UNIT) is holds


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_the_confidence_is_that_which_is_asked_for(confidence):
    """With two degrees of freedom the quantile is closed: t = (2p − 1) √(2 / (1 − (2p − 1)²)), 2p − 1 = c."""
    half = confidence * np.sqrt(2 / (1 - confidence**2)) / np.sqrt(3)
    for found in (mean_interval(UNIT, confidence), paired_difference(UNIT + 5, np.full(3, 5.0), confidence)):
        assert found.high - found.mean == pytest.approx(half, rel=1e-12)
        assert found.mean - found.low == pytest.approx(half, rel=1e-12)


def test_one_number_alone_is_like_nothing():
    assert similar([1.0], UNIT) is None
    assert similar(UNIT, [1.0]) is None


def test_what_could_not_be_told_is_not_counted_as_fulfilled():
    some = [Comparison("a", True, "1"), Comparison("b", None, "no data"), Comparison("c", False, "2")]
    found = decided("X-1", "words", some)
    assert found.measured == "1 of 3 comparisons hold. c: no, 2; b: not measured, no data"
    assert found.holds is False


def test_units_are_in_ascending_order_each_with_the_mean_of_its_rows_and_nothing_else_counts():
    frame = pd.DataFrame({
        "mdp": [3.0, 1.0, np.nan, 2.0, 1.0, 3.0, 2.0, np.nan],
        "kind": ["a", "a", "a", "a", "a", "b", "b", "b"],
        "error": [30.0, 10.0, 99.0, 20.0, 12.0, 5.0, 7.0, 99.0],
    })  # fmt: skip
    found = Units(frame, "mdp")
    assert dict(found("error", kind="a")) == {1.0: 11.0, 2.0: 20.0, 3.0: 30.0}
    assert list(found("error", kind="a").index) == [1.0, 2.0, 3.0]
    assert list(found("error", kind="b").items()) == [(2.0, 7.0), (3.0, 5.0)]
    assert dict(found("error")) == pytest.approx({1.0: 11.0, 2.0: 13.5, 3.0: 17.5})
    assert len(found("error", kind="c")) == 0
