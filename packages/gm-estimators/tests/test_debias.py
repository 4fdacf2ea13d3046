"""Weights, errors and costs of the jackknife and of multilevel Monte Carlo."""

from math import comb

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import EstimatorError, load
from gm_estimators.debias import Jackknife, Levels, combine, jackknife, multilevel, trajectories_drawn
from gm_estimators.estimator import CATALOGUE

F64 = torch.float64
SAMPLE = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=F64)


def mean_power(power: int):
    """A smooth function of a mean, of one part of the sample or of several."""
    return lambda numbers: SAMPLE[numbers].mean(-1) ** power


@pytest.mark.parametrize(("blocks", "order"), [(2, 1), (3, 1), (3, 2), (4, 3), (6, 2), (12, 1), (12, 3)])
def test_the_weights_cancel_the_powers_of_one_over_n(blocks, order):
    terms = Jackknife(blocks, order).terms(12)
    sizes = torch.tensor([term.parts.shape[-1] for term in terms], dtype=F64)
    weights = torch.tensor([term.weight for term in terms], dtype=F64)
    powers = torch.stack([(weights * (12 / sizes) ** k).sum() for k in range(order + 1)])
    assert_close(powers, torch.eye(order + 1, dtype=F64)[0], rtol=0, atol=1e-9)
    assert [len(term.parts) for term in terms] == [comb(blocks, out) for out in range(order + 1)]
    for term in terms:  # every trajectory in equally many parts, in none twice
        assert term.parts.flatten().bincount().unique().numel() == 1
        assert all(part.unique().numel() == part.numel() for part in term.parts)
        assert (term.parts // (12 // blocks)).flatten(1).unique(dim=0).shape[0] == len(term.parts)


def test_two_halves_and_all_but_one_are_what_they_are_called():
    whole, halves = Jackknife().terms(4)
    assert (whole.weight, whole.parts.tolist()) == (2, [[0, 1, 2, 3]])
    assert (halves.weight, halves.parts.tolist()) == (-1, [[0, 1], [2, 3]])
    assert [term.weight for term in Jackknife(12).terms(12)] == [12, -11]


@pytest.mark.parametrize(("blocks", "order"), [(2, 1), (4, 2), (12, 3)])
def test_what_is_linear_in_the_sample_stays(blocks, order):
    assert_close(jackknife(mean_power(1), 12, blocks=blocks, order=order), SAMPLE.mean(), rtol=0, atol=1e-10)


def test_the_square_of_a_mean_loses_its_bias_in_closed_form():
    """All but one: x̄² − s²/n, whose expectation is μ²."""
    expected = SAMPLE.mean() ** 2 - SAMPLE.var() / 12
    assert_close(jackknife(mean_power(2), 12, blocks=12), expected, rtol=0, atol=1e-12)
    assert (SAMPLE.mean() ** 2 - expected).abs() > 1e-2


def test_the_cube_of_a_mean_takes_a_second_order():
    """Both orders of 1/n of E x̄³ are cancelled: what is left is the U-statistic, the mean of x_i x_j x_k."""
    i, j, k = torch.combinations(torch.arange(12), 3).unbind(-1)
    expected = (SAMPLE[i] * SAMPLE[j] * SAMPLE[k]).mean()
    assert_close(jackknife(mean_power(3), 12, blocks=12, order=2), expected, rtol=0, atol=1e-10)
    assert (jackknife(mean_power(3), 12, blocks=12) - expected).abs() > 1e-4


def test_parts_may_be_asked_for_together_or_one_by_one():
    for settings in ({"blocks": 3, "order": 2}, {"blocks": 4}):
        found = jackknife(mean_power(3), 12, batched=True, **settings)
        assert_close(found, jackknife(mean_power(3), 12, **settings), rtol=0, atol=1e-12)
    levels = Levels(base=3)
    assert_close(multilevel(mean_power(2), levels, 2, batched=True), multilevel(mean_power(2), levels, 2))
    with pytest.raises(ValueError, match="terms: expected at least one, got none"):
        combine(mean_power(1), [])


def test_a_level_is_the_start_and_a_weighted_difference():
    levels, power = Levels(base=3), mean_power(2)
    first, second = SAMPLE[:6].mean() ** 2, SAMPLE[6:].mean() ** 2
    start = SAMPLE.reshape(4, 3).mean(-1).square().mean()
    expected = start + (SAMPLE.mean() ** 2 - (first + second) / 2) / levels.probability(2)
    assert_close(multilevel(power, levels, 2), expected, rtol=0, atol=1e-12)
    assert_close(multilevel(power, levels, 0), SAMPLE[:3].mean() ** 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("highest", [None, 0, 3])
def test_levels_are_drawn_with_their_probabilities(highest):
    levels = Levels(base=2, rate=1.4, highest=highest)
    last = 200 if highest is None else highest
    probability = torch.tensor([levels.probability(level) for level in range(last + 1)], dtype=F64)
    assert_close(probability.sum(), torch.ones((), dtype=F64), rtol=0, atol=1e-12)
    assert_close(probability[1:] / probability[:-1], torch.full((last,), 2**-1.4, dtype=F64))
    size = sum(p * levels.size(level) for level, p in enumerate(probability.tolist()))
    assert levels.expected_size == pytest.approx(size, rel=1e-9)
    assert levels.probability(-1) == levels.probability(last + 1) * (highest is not None) == 0
    drawn = levels.draw(torch.Generator().manual_seed(0), 1000, 100)
    assert drawn.shape == (1000, 100)
    share = drawn.flatten().bincount(minlength=last + 1)[: last + 1] / drawn.numel()
    error = (probability * (1 - probability) / drawn.numel()).sqrt()
    assert ((share - probability).abs() <= 4 * error + 1e-12).all()
    off = torch.tensor([1.02 * p if level == 0 else p for level, p in enumerate(probability.tolist())], dtype=F64)
    assert highest == 0 or not ((share - off).abs() <= 4 * error).all()  # the control


def test_what_a_sample_costs():
    assert trajectories_drawn(None, 16) == (16, 16)
    assert trajectories_drawn(Jackknife(), 16) == (16, 32)
    assert trajectories_drawn(Jackknife(4), 16) == (16, 64)
    assert trajectories_drawn(Levels(base=4).at(2), 16) == (16, 48)


def test_a_name_may_ask_for_the_jackknife():
    assert load("lvc+jackknife").debias == load("lvc+jackknife2").debias == Jackknife(2, 1)
    found = load("dice+jackknife4.3")
    assert (found.name, found.debias) == ("dice+jackknife4.3", Jackknife(4, 3))
    assert found.surrogate is CATALOGUE["dice"].surrogate
    assert load("dice").debias is None
    for name, message in {
        "lvc+jack": r"expected one of \+learnt, \+jackknife\[B\[.p\]\], .* at the end, got 'lvc\+jack'",
        "lvc+jackknife1": r"estimator lvc\+jackknife1: blocks: expected at least 2, got 1",
        "nothing+jackknife": "expected one of ad, .* got 'nothing'",
    }.items():
        with pytest.raises(EstimatorError, match=message):
            load(name)
    assert load("lvc", suffixes=False) is CATALOGUE["lvc"]
    with pytest.raises(EstimatorError, match=r"expected an estimator without \+jackknife, which only the tabular"):
        load("lvc+jackknife", suffixes=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Jackknife(1), "blocks: expected at least 2, got 1"),
        (lambda: Jackknife(3, 3), "order: expected 1 to 2, less than the blocks, got 3"),
        (lambda: Jackknife(3).terms(4), "sample size: expected a multiple of the jackknife's 3 blocks, got 4"),
        (
            lambda: Jackknife(24, 12),
            "blocks, order: expected at most 100000 parts, got more with 24 blocks and order 12",
        ),
        (lambda: Jackknife(10**9), "blocks, order: expected at most 100000 parts, got more with 1000000000 blocks"),
        (lambda: Levels(base=0), "base: expected at least 1 trajectory, got 0"),
        (lambda: Levels(rate=2.0), "rate: expected a number between 1 and 2, got 2.0"),
        (lambda: Levels(highest=-1), "highest: expected a level of at least 0, got -1"),
        (lambda: Levels(highest=2).at(3), "level: expected 0 to 2, got 3"),
        (lambda: Levels().at(1).terms(4), "sample size: expected 2 trajectories at level 1, got 4"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
