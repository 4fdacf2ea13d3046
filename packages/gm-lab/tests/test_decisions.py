"""Comparisons have three outcomes, and a claim a wrong one in at most 5%, whatever was looked at and how often."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from gm_lab.analysis import Interval, Metric, above, alike, at_least, at_most, comparisons, decisions, more_often, near
from gm_lab.analysis.decisions import judge, looks, next_look, simultaneous

DELTA = 0.05
METRIC = Metric("accuracy", DELTA, 0.0)
ZERO = pd.Series([0.0, 0.0])


@pytest.mark.parametrize(
    ("low", "high", "above_zero", "like", "beyond"),
    [
        (0.01, 0.2, "supported", "undecided", "supported"),
        (0.01, 0.04, "supported", "supported", "supported"),
        (0.06, 0.2, "supported", "contradicted", "supported"),
        (-0.01, 0.2, "undecided", "undecided", "undecided"),
        (-0.01, 0.04, "contradicted", "supported", "undecided"),
        (-0.2, 0.04, "undecided", "undecided", "undecided"),
        (-0.2, -0.01, "contradicted", "undecided", "contradicted"),
        (-0.2, -0.06, "contradicted", "contradicted", "contradicted"),
        (-math.inf, math.inf, "undecided", "undecided", "undecided"),
        (math.nan, 0.2, "not measured", "not measured", "not measured"),
    ],
)
def test_where_the_interval_lies_decides(low, high, above_zero, like, beyond):
    interval = Interval(0.0, low, high, 10)
    assert above("", ZERO, ZERO, METRIC).outcome(interval) == above_zero
    assert alike("", ZERO, ZERO, METRIC).outcome(interval) == like
    assert at_least("", ZERO, 0.0, METRIC).outcome(interval) == beyond


def test_bounds_and_targets_are_shown_as_they_were_asked_for():
    values = pd.Series([0.7, 0.8, 0.9])
    for found, bound in ((at_least("", values, 0.5, METRIC), 0.5), (at_most("", values, 0.5, METRIC), 0.5)):
        (interval,) = simultaneous([found], [0, 1, 2], 0.05)
        assert found.shown(interval).mean == pytest.approx(0.8)
        assert found.shown(interval).low == pytest.approx(0.8 - t.ppf(0.975, 2) * 0.1 / math.sqrt(3))
        assert found.region() is None
        assert found.offset == bound
    assert near("", values, 0.8, METRIC).region() == pytest.approx((0.75, 0.85))
    assert judge([at_most("", values, 0.5, METRIC)])[0].comparison.values.mean() == pytest.approx(-0.3)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6), st.integers(0, 5),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)  # fmt: skip
def test_what_is_missing_or_not_finite_is_not_measured_and_decides_nothing(values, place, odd):
    known = pd.Series(values)
    spoilt = known.copy()
    spoilt[place % len(values)] = odd
    gap = known.drop(0)
    found = [
        above("", known, spoilt, METRIC), alike("", spoilt, spoilt, METRIC), at_least("", spoilt, 0.0, METRIC),
        at_most("", spoilt, 0.0, METRIC), above("", gap, known, METRIC), above("", known.iloc[:0], known, METRIC),
    ]  # fmt: skip
    assert [item.outcome for item in judge(found)] == ["not measured"] * len(found)
    fine = above("", known + 1, known, METRIC)
    assert judge([*found, fine])[-1].outcome == judge([fine])[0].outcome


def test_a_unit_that_one_comparison_lacks_leaves_that_comparison_out():
    whole = pd.Series(np.linspace(0.9, 1.1, 20))
    found = judge([at_least("", whole, 0.0, METRIC), at_least("", whole.drop(3), 0.0, METRIC)])
    assert [item.outcome for item in found] == ["supported", "not measured"]


def test_fewer_of_the_first_units_are_enough():
    """What goes on being drawn for one claim is there for another up to where its own units end."""
    values = pd.Series(np.random.default_rng(0).normal(0.1, 0.3, 40))
    some, all_of_them = (
        judge([above("", values, values.iloc[:20] * 0, METRIC)]),
        judge([at_least("", values, 0, METRIC)]),
    )
    assert (some[0].interval.count, all_of_them[0].interval.count) == (20, 40)


def test_looks_are_at_doubled_numbers_of_units():
    assert looks(10) == [10]
    assert looks(7) == []
    assert looks(80) == [10, 20, 40, 80]
    assert looks(100) == [10, 20, 40, 80]
    assert [next_look(n) for n in (3, 10, 15, 160)] == [10, 20, 20, 320]


def test_units_between_two_looks_wait_and_too_few_decide_nothing():
    """However often a run is extended, each look is taken once."""
    values = pd.Series(np.linspace(0.9, 1.1, 19))
    (all_of_them,), (ten,) = (judge([at_least("", some, 0.0, METRIC)]) for some in (values, values.iloc[:10]))
    assert (all_of_them.outcome, all_of_them.interval) == (ten.outcome, ten.interval)
    for count in (1, 2, 9):
        (few,) = judge([at_least("", values.iloc[:count], 0.0, METRIC)])
        assert (few.outcome, few.interval.count) == ("undecided", count)
    assert judge([at_least("", values.iloc[:1], 0.0, METRIC)])[0].interval.high == math.inf


def test_the_error_is_spent_once():
    assert sum(decisions.spent(look) for look in range(1, 2000)) < 0.025
    assert sum(decisions.UNSEEN**n for n in (1, 2, 4, 8, 16, 32)) < 0.025
    assert (1 - decisions.unseen(10)) ** 10 == pytest.approx(decisions.UNSEEN)


def test_one_comparison_alone_has_students_interval():
    values = pd.Series(np.random.default_rng(0).normal(size=12))
    (found,) = simultaneous([at_least("", values, 0.0, METRIC)], list(range(12)), 0.02)
    half = t.ppf(0.99, 11) * values.std() / math.sqrt(12)
    assert found.high - found.mean == pytest.approx(half, rel=1e-9)


def critical(values, error):
    _, errors, found = decisions.max_t([pd.Series(column) for column in values.T], error)
    assert len(errors) == values.shape[1]
    return found


def test_the_critical_value_knows_how_comparisons_depend_on_each_other():
    rng = np.random.default_rng(0)
    apart, same = rng.normal(size=(40, 12)), np.repeat(rng.normal(size=(40, 1)), 12, axis=1)
    alone, bonferroni = t.ppf(0.975, 39), t.ppf(1 - 0.025 / 12, 39)
    assert alone - 0.06 < critical(same, 0.05) < alone + 0.06  # twelve times the same is one comparison
    assert bonferroni - 0.15 < critical(apart, 0.05) <= bonferroni


def test_simultaneous_intervals_cover_all_means_at_once_and_pointwise_ones_do_not():
    """600 samples of 20 units and 8 comparisons; the standard error of a coverage of 90% is 1.2%."""
    rng = np.random.default_rng(0)
    hits = pointwise = 0
    for _ in range(600):
        values = rng.normal(size=(20, 1)) + rng.normal(size=(20, 8))
        some = [at_least("", pd.Series(column), 0.0, METRIC) for column in values.T]
        hits += all(x.low <= 0 <= x.high for x in simultaneous(some, list(range(20)), 0.1))
        pointwise += all(x.low <= 0 <= x.high for y in some for x in simultaneous([y], list(range(20)), 0.1))
    assert abs(hits / 600 - 0.9) < 4 * 0.0122
    assert pointwise / 600 < 0.9 - 4 * 0.0122


def test_units_and_tasks_both_count_as_drawn():
    """A crossed table of 8 rules and 30 tasks: both of their errors are in the interval, whichever is larger."""
    rng = np.random.default_rng(0)
    for of_units, of_tasks in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5)):
        misses = 0
        for _ in range(300):
            table = of_units * rng.normal(size=(8, 1)) + of_tasks * rng.normal(size=(1, 30)) + rng.normal(size=(8, 30))
            (found,) = simultaneous([at_least("", pd.DataFrame(table), 0.0, METRIC)], list(range(8)), 0.05)
            misses += not found.low <= 0 <= found.high
        assert misses / 300 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    narrow = pd.Series(table.mean(1))
    assert simultaneous([at_least("", narrow, 0.0, METRIC)], list(range(8)), 0.05)[0].high < found.high


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (10, 10), (57, 320)])
def test_shares_have_the_exact_interval_of_clopper_and_pearson(successes, count):
    found = decisions.clopper_pearson(successes, count, 0.03)
    expected = binomtest(successes, count).proportion_ci(0.97, "exact")
    assert found == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_shares_are_compared_by_the_pairs_that_differ():
    first, second = pd.Series([1.0] * 30 + [0.0] * 10), pd.Series([0.0] * 28 + [1.0] * 4 + [0.0] * 8)
    (found,) = judge([more_often("", first, second, Metric("share", 0.1, 0.0))])
    assert found.outcome == "supported"
    assert found.interval.mean == pytest.approx((first - second).iloc[: found.interval.count].mean())


def test_a_difference_of_shares_is_as_far_as_the_two_kinds_of_pairs_allow():
    differences = np.array([1.0] * 30 + [-1.0] * 5 + [0.0] * 15)
    found = decisions.share_interval(differences, 0.05)
    first, second = (binomtest(count, 50).proportion_ci(0.975, "exact") for count in (30, 5))
    assert (found.low, found.high) == pytest.approx((first.low - second.high, first.high - second.low))
    assert found.mean == 0.5


def test_a_decision_stays_while_other_comparisons_are_open():
    """The first ten units speak for one, all later ones against it, and another needs more than ten."""
    first = pd.Series([1.0, 1.1] * 5 + [-5.0] * 70)
    slow = pd.Series(np.resize([0.4, -0.1], 80))
    one, other = judge([at_least("", first, 0.0, METRIC), at_least("", slow, 0.0, METRIC)])
    assert (one.outcome, one.interval.count) == ("supported", 10)
    assert other.outcome == "supported"
    assert other.interval.count > 10


def test_a_claim_that_is_contradicted_is_not_looked_at_again():
    slow = pd.Series(np.resize([0.5, -0.3], 80))
    one, other = judge([at_least("", slow * 0 - 1, 0.0, METRIC), at_least("", slow, 0.0, METRIC)])
    assert (one.outcome, other.outcome, other.interval.count) == ("contradicted", "undecided", 10)


def test_a_decision_stays_and_ends_the_claim():
    """Twenty units speak for it and all later ones against it: it was decided at the first look."""
    values = pd.Series([1.0, 1.1] * 10 + [-5.0] * 140)
    (found,) = judge([at_least("", values, 0.0, METRIC)])
    assert (found.outcome, found.look, found.interval.count) == ("supported", 1, 10)
    assert judge([at_least("", values.iloc[::-1].reset_index(drop=True), 0.0, METRIC)])[0].outcome == "contradicted"


def test_what_is_needed_is_enough_if_the_means_stay():
    rng = np.random.default_rng(0)
    values = pd.Series(rng.normal(0.05, 0.2, 20))
    metric = Metric("accuracy", DELTA, 0.3)
    (found,) = judge([at_least("", values, 0.0, metric)])
    assert found.outcome == "undecided"
    again = pd.concat([values] * int(found.needed / 20), ignore_index=True)
    assert judge([at_least("", again, 0.0, metric)])[0].outcome == "supported"
    fewer = again.iloc[: int(found.needed / 2)]
    assert judge([at_least("", fewer, 0.0, metric)])[0].outcome == "undecided"


# ---- at most 5% wrong decisions in a claim, with all looks and all comparisons


def normal(rng, units, count):
    return 0.3 * (rng.normal(size=(units, 1)) + rng.normal(size=(units, count)))


def one_in_five(rng, units, count):
    """Units of two kinds one apart, which all comparisons share."""
    rare = (rng.random((units, 1)) < 0.2) - 0.2
    return rare + 0.02 * rng.normal(size=(units, count))


def wrong_claims(drawn, reach, times=200, units=160, count=4):
    """How many claims have a wrong decision: all means are at a bound, so that any decision is one."""
    rng, metric, wrong = np.random.default_rng(1), Metric("accuracy", DELTA, reach), 0
    for _ in range(times):
        some = [at_least("", pd.Series(x), 0.0, metric) for x in drawn(rng, units, count).T]
        wrong += any(item.outcome != "undecided" for item in judge(some))
    return wrong


AT_MOST = 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


@pytest.fixture
def quicker(monkeypatch):
    """Fewer draws of the bootstrap."""
    monkeypatch.setattr(decisions, "DRAWS", 4000)
    decisions._draws.cache_clear()
    yield
    decisions._draws.cache_clear()


@pytest.mark.usefixtures("quicker")
@pytest.mark.parametrize(("drawn", "reach"), [(normal, 0.0), (one_in_five, 1.0)])
def test_at_most_one_claim_in_twenty_is_decided_wrongly(drawn, reach):
    assert wrong_claims(drawn, reach) <= AT_MOST


@pytest.mark.usefixtures("quicker")
def test_looking_often_without_spending_the_error_is_rejected(monkeypatch):
    monkeypatch.setattr(decisions, "spent", lambda _look: 0.05)
    assert wrong_claims(normal, 0.0) > AT_MOST


@pytest.mark.usefixtures("quicker")
def test_units_of_a_kind_that_was_not_seen_are_reckoned_with():
    assert wrong_claims(one_in_five, 0.0) > AT_MOST


def test_every_comparison_is_made_of_numbers_by_unit():
    assert comparisons.paired(pd.Series([1.0, 2.0], index=[1, 0]), pd.Series([0.0, 0.5])).to_dict() == {0: 2.0, 1: 0.5}
    assert comparisons.known(pd.Series([], dtype=float)) is None
    ratio = comparisons.log_ratio(pd.Series([math.e, 1.0]), pd.Series([1.0, 0.0]))
    assert ratio.to_list() == [1.0, math.inf]
