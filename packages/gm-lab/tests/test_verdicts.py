"""Verdicts on claims: their words, their counts, and the units that they are about."""

import json

import numpy as np
import pandas as pd
import pytest

from gm_lab.analysis import (
    Metric,
    Units,
    above,
    alike,
    check,
    decided,
    mean_interval,
    paired_difference,
    together,
    within,
)
from gm_lab.analysis.claims import as_json

UNIT = np.array([-1.0, 0.0, 1.0])
PLAIN = Metric("accuracy", 0.05, 0.0)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_the_confidence_is_that_which_is_asked_for(confidence):
    """With two degrees of freedom the quantile is closed: t = (2p − 1) √(2 / (1 − (2p − 1)²)), 2p − 1 = c."""
    half = confidence * np.sqrt(2 / (1 - confidence**2)) / np.sqrt(3)
    for found in (mean_interval(UNIT, confidence), paired_difference(UNIT + 5, np.full(3, 5.0), confidence)):
        assert found.high - found.mean == pytest.approx(half, rel=1e-12)
        assert found.mean - found.low == pytest.approx(half, rel=1e-12)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([], "not measured"),
        (["supported"], "supported"),
        (["supported", "undecided"], "undecided"),
        (["supported", "not measured"], "undecided"),
        (["supported", "undecided", "contradicted"], "contradicted"),
        (["not measured", "not measured"], "not measured"),
    ],
)
def test_a_claim_needs_all_of_its_comparisons_and_falls_with_one(outcomes, verdict):
    assert together(outcomes) == verdict


def numbers(mean, count=40, spread=0.1):
    noise = np.random.default_rng(0).normal(size=count)
    index = pd.Index(range(count), name="mdp")
    return pd.Series(mean + spread * (noise - noise.mean()) / noise.std(), index=index)


def test_a_verdict_in_words_and_in_numbers():
    zero = numbers(0.0) * 0
    some = [
        above("a > b", numbers(0.3), zero, PLAIN), alike("a ≈ c", numbers(0.3), zero, PLAIN),
        above("a > d", zero.iloc[:0], zero, PLAIN), check("equal", holds=True, detail="0 apart"),
    ]  # fmt: skip
    found = decided("X-1", "words", some)
    assert found.verdict == "contradicted"
    assert found.counts == {"supported": 2, "contradicted": 1, "not measured": 1}
    assert found.measured.startswith("2 supported, 1 contradicted, 0 undecided, 1 not measured; a ≈ c: contradicted, ")
    assert found.measured.endswith("a > d: not measured")
    (record,) = json.loads(as_json([found], "at the paper's budget"))
    assert record | {"measured": "", "comparisons": []} == {
        "id": "X-1", "claim": "words", "verdict": "contradicted", "measured": "", "budget": "at the paper's budget",
        "error": 0.05, "units": 10, "needed": None, "counts": found.counts, "comparisons": [],
    }  # fmt: skip
    first = record["comparisons"][0]
    assert set(first) == {
        "label", "relation", "outcome", "metric", "delta", "reach", "bound", "mean", "low", "high", "units", "look",
        "needed",
    }  # fmt: skip
    assert (first["outcome"], first["units"], first["look"], first["delta"]) == ("supported", 10, 1, 0.05)
    assert first["low"] < first["mean"] < first["high"]
    assert record["comparisons"][3] == {
        "label": "equal", "relation": "check", "outcome": "supported", "detail": "0 apart",
    }  # fmt: skip


def test_what_an_undecided_claim_would_need():
    found = decided("X-1", "words", [above("a > b", numbers(0.02), numbers(0.0) * 0, PLAIN)])
    assert found.verdict == "undecided"
    assert found.is_open
    assert found.units == 40
    assert f"about {found.needed:,.0f} MDPs would decide it" in found.measured
    assert not decided("X-2", "words", [check("a", holds=None, detail="no data")]).is_open


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (1.0, "supported"),
        (2.0, "supported"),
        (2.5, "contradicted"),
        (float("inf"), "contradicted"),
        (float("nan"), "not measured"),
    ],
)
def test_within(value, outcome):
    assert within("", value, 2.0, "").settled == outcome


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


def test_one_unit_is_not_several():
    one = numbers(0.3).iloc[:1]
    found = decided("X-1", "words", [above("a > b", one, one * 0, PLAIN)])
    several = decided("X-1", "words", [above("a > b", numbers(0.3, 9), numbers(0.0) * 0, PLAIN)])
    (name,) = {word for word in several.measured.split() if word in ("units", "MDPs", "seeds")}
    assert found.measured.endswith(f"with 1 {name.removesuffix('s')}")
