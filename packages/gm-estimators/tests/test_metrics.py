import math

import pytest
import torch
from torch.testing import assert_close

from gm_estimators.metrics import (
    accuracy,
    bias_sq,
    bias_sq_interval,
    correlation,
    mean_interval,
    mse,
    paired_difference,
    relative_bias,
    std_sum,
    student_t_quantile,
    summary,
    variance,
)

F64 = torch.float64
X = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=F64)  # two repeats of two entries
Y = torch.tensor([2.0, 1.0], dtype=F64)
REPEATS, BIAS, SPREAD = 10, torch.tensor([0.3, -0.4, 0.0], dtype=F64), torch.tensor([1.0, 2.0, 0.5], dtype=F64)


@pytest.fixture(scope="module")
def experiments():
    """4000 experiments of 10 repeats around a truth of zero, with a squared bias of 0.25."""
    draw = torch.Generator().manual_seed(0)
    return BIAS + SPREAD * torch.randn(4000, REPEATS, 3, generator=draw, dtype=F64)


def z_score(values, mean):
    return abs(values.mean().item() - mean) / (values.std().item() / len(values) ** 0.5)


def test_accuracy_by_hand():
    # (1·2 + 2·1) / (√5 √5) = 0.8;  (6 + 6) / (√45 √5) = 0.8
    assert_close(accuracy(X, Y), torch.tensor([0.8, 0.8], dtype=F64))
    assert_close(accuracy(-3 * Y, Y), torch.tensor(-1.0, dtype=F64))
    assert accuracy(0 * Y, Y).isnan()


def test_correlation_by_hand():
    # centred: (−1, 0, 1) and (−1, −1, 2):  3 / (√2 √6)
    x, y = torch.tensor([5.0, 6.0, 7.0], dtype=F64), torch.tensor([1.0, 1.0, 4.0], dtype=F64)
    assert correlation(x, y).item() == pytest.approx(3 / math.sqrt(12))


def test_variance_and_bias_by_hand():
    # entries differ by 2 and 4: variances 2 and 8;  mean (2, 4), bias (0, 3): 9 − 10 / 2 = 4
    assert variance(X).item() == 10
    assert std_sum(X).item() == pytest.approx(math.sqrt(2) + math.sqrt(8))
    assert bias_sq(X, Y).item() == 4
    # squared distances from (2, 1): 1 + 1 and 1 + 25
    assert mse(X, Y).item() == 14


def test_the_summary_is_the_metrics_by_name():
    found = summary(X, Y)
    expected = {
        "accuracy": 0.8,
        "correlation": -1.0,
        "variance": 10.0,
        "std_sum": math.sqrt(2) + math.sqrt(8),
        "bias_sq": 4.0,
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("metric", [bias_sq, mse, lambda x, y: variance(x), lambda x, y: std_sum(x)])
def test_batch_axes_go_through(metric, experiments):
    x, truth = experiments[:6], torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    expected = torch.stack([metric(a, b) for a, b in zip(x, truth, strict=True)])
    assert_close(metric(x.unflatten(0, (2, 3)), truth.unflatten(0, (2, 3))), expected.unflatten(0, (2, 3)))


def test_squared_bias_and_variance_are_unbiased(experiments):
    # within 4 standard errors; the naive squared bias carries variance / 10 = 0.525 and is rejected
    truth = torch.zeros(len(experiments), 3, dtype=F64)
    assert z_score(bias_sq(experiments, truth), 0.25) < 4
    assert z_score((experiments.mean(-2) - truth).square().sum(-1), 0.25) > 4
    assert z_score(variance(experiments), 5.25) < 4
    assert z_score(experiments.var(-2, correction=0).sum(-1), 5.25) > 4
    assert z_score(mse(experiments, truth), 5.5) < 4


def test_the_interval_of_the_squared_bias_holds_it_as_often_as_it_says():
    # 30 repeats, far from zero where the jackknife is asymptotically right: 95 % within 4 standard errors + 1 %
    draw = torch.Generator().manual_seed(2)
    x = 2 + torch.randn(4000, 30, 3, generator=draw, dtype=F64)
    found = bias_sq_interval(x, torch.zeros(4000, 3, dtype=F64))
    share = ((found.low <= 12) & (found.high >= 12)).double().mean().item()
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000) + 0.01
    half = bias_sq_interval(x, torch.zeros(4000, 3, dtype=F64), confidence=0.5)
    assert abs(((half.low <= 12) & (half.high >= 12)).double().mean().item() - 0.5) < 4 * math.sqrt(0.25 / 4000) + 0.01


def test_the_interval_is_the_jackknife_written_out(experiments):
    x, truth = experiments[0], torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    without = torch.stack([bias_sq(torch.cat([x[:i], x[i + 1 :]]), truth) for i in range(REPEATS)])
    error = ((REPEATS - 1) / REPEATS * (without - without.mean()).square().sum()).sqrt()
    found = bias_sq_interval(x, truth)
    assert_close(found.value, bias_sq(x, truth))
    assert_close(found.high - found.value, 2.2621571628 * error, rtol=1e-9, atol=0)
    assert_close(found.value - found.low, 2.2621571628 * error, rtol=1e-9, atol=0)


def test_mean_and_paired_intervals_by_hand():
    # mean 2, s = 1, t(0.975, 2) = 4.302652730: half width 4.302652730 / √3
    values = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    found = mean_interval(values)
    assert found.value.item() == 2
    assert (found.high - 2).item() == pytest.approx(4.302652730 / math.sqrt(3), rel=1e-9)
    assert (2 - found.low).item() == pytest.approx(4.302652730 / math.sqrt(3), rel=1e-9)
    noisy = torch.tensor([100.0, -50.0, 7.0], dtype=F64)
    assert_close(torch.stack(paired_difference(noisy + values, noisy)), torch.stack(found))


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [
        (0.975, 1, 12.706204736),
        (0.975, 2, 4.302652730),
        (0.95, 3, 2.353363435),
        (0.975, 9, 2.262157163),
        (0.975, 10, 2.228138852),
        (0.995, 19, 2.860934606),
        (0.9, 30, 1.310415025),
        (0.975, 199, 1.971956544),
        (0.75, 1, 1.0),
        (0.5, 7, 0.0),
    ],
)
def test_student_quantiles_are_those_of_the_tables(probability, degrees, quantile):
    assert student_t_quantile(probability, degrees) == pytest.approx(quantile, rel=1e-8, abs=1e-12)


def test_what_makes_no_sense_is_refused():
    for metric in (variance, std_sum, mean_interval, lambda x: bias_sq(x, Y), lambda x: bias_sq_interval(x, Y)):
        with pytest.raises(ValueError, match="expected at least 2 repeats to estimate a variance, got 1"):
            metric(X[:1] if metric is not mean_interval else X[0, :1])
    with pytest.raises(ValueError, match=r"expected 0.5 ≤ probability < 1 and degrees ≥ 1, got 0.4 and 3"):
        student_t_quantile(0.4, 3)
    with pytest.raises(ValueError, match=r"got 0.9 and 0"):
        student_t_quantile(0.9, 0)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-160, 1e160, 1e300])
def test_very_small_and_large_vectors_have_the_same_direction(scale):
    expected = torch.tensor([0.8, 0.8], dtype=F64)
    assert_close(accuracy(scale * X, Y), expected)
    assert_close(accuracy(X, scale * Y), expected)
    assert_close(accuracy(scale * X, scale * Y), expected)
    assert_close(correlation(scale * X, scale * Y), torch.tensor([-1.0, -1.0], dtype=F64))
    # (1·2 + 2·1) / 5 − 1 and (3·2 + 6·1) / 5 − 1
    assert_close(relative_bias(scale * X, scale * Y), torch.tensor([-0.2, 1.4], dtype=F64))


def test_ordinary_vectors_have_the_accuracy_of_the_formula_to_the_last_bit():
    x, y = torch.randn(2, 1000, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert torch.equal(accuracy(x, y), (x * y).sum(-1) / (x.square().sum(-1).sqrt() * y.square().sum(-1).sqrt()))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_smallest_numbers_have_a_direction_and_zero_has_none(dtype):
    least = torch.finfo(dtype).smallest_normal
    x = torch.tensor([least, -least], dtype=dtype)
    assert_close(accuracy(x, x), torch.tensor(1.0, dtype=dtype))
    for metric in (accuracy, correlation, relative_bias):
        assert metric(x, 0 * x).isnan()
    assert accuracy(0 * x, x).isnan()
    assert relative_bias(0 * x, x).item() == -1


def test_the_relative_bias_of_noisy_estimates_is_that_of_their_mean():
    """Within four standard errors of one estimate each of 20,000 truths; the length's bias is not."""
    draw = torch.Generator().manual_seed(3)
    truth = 1 + torch.rand(20_000, 3, generator=draw, dtype=F64)
    x = 0.7 * truth + torch.randn(20_000, 3, generator=draw, dtype=F64)
    assert z_score(relative_bias(x, truth), -0.3) < 4
    assert z_score(x.norm(dim=-1) / truth.norm(dim=-1) - 1, -0.3) > 4
