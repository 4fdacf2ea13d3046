"""A truth that is itself a sample: its variance is no bias, and its error is part of every interval."""

import numpy as np
import pytest
import torch

from gm_estimators.attribution import attribute
from gm_estimators.metrics import SampledTruth, bias_sq, bias_sq_interval, mse, variance

F64 = torch.float64
BIAS = torch.tensor([0.5, -0.3, 0.0], dtype=F64)


def sets(count, repeats, draws, seed, common=0.0):
    """`count` sets of estimates and of draws of their truth, which share a part of their noise if `common`."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor([2.0, 0.0, 1.0], dtype=F64) + torch.randn(count, draws, 3, generator=generator, dtype=F64)
    noise = torch.randn(count, repeats, 3, generator=generator, dtype=F64)
    x = torch.tensor([2.0, 0.0, 1.0], dtype=F64) + BIAS
    return (x + noise if not common else BIAS + y + 0.5 * noise), y


@pytest.mark.parametrize("paired", [False, True])
def test_the_mean_of_squared_biases_is_right(paired):
    """Of 20,000 sets, within four standard errors; that of an exact truth taken from the sample is not."""
    x, y = sets(20_000, 6, 6, 0, common=float(paired))
    expected = float(BIAS.square().sum())
    for found, right in ((bias_sq(x, SampledTruth(y, paired)), True), (bias_sq(x, y.mean(-2)), False)):
        off = abs(float(found.mean()) - expected) / (float(found.std()) / 20_000**0.5)
        assert (off < 4) == right


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_cover(paired):
    """Of 2,000, 92 to 99% hold the squared bias; those that take the sample for exact do not."""
    x, y = sets(2000, 16, 16 if paired else 8, 1, common=float(paired))
    expected = BIAS.square().sum()

    def share(truth):
        found = bias_sq_interval(x, truth)
        return float(((found.low <= expected) & (expected <= found.high)).double().mean())

    assert 0.92 < share(SampledTruth(y, paired)) < 0.99
    if not paired:  # paired ones are too long, which is no fault that this test looks for
        assert share(y.mean(-2)) < 0.9


def test_two_samples_by_hand():
    """The jackknife leaves out one estimate, or one draw of the truth, at a time."""
    x, y = (z[0].numpy() for z in sets(1, 5, 4, 2))

    def square(a, b):
        return ((a.mean(0) - b.mean(0)) ** 2).sum() - a.var(0, ddof=1).sum() / len(a) - b.var(0, ddof=1).sum() / len(b)

    without_x = [square(np.delete(x, i, 0), y) for i in range(5)]
    without_y = [square(x, np.delete(y, i, 0)) for i in range(4)]
    error_sq = 4 * np.var(without_x) + 3 * np.var(without_y)
    found = bias_sq_interval(torch.tensor(x), SampledTruth(torch.tensor(y)))
    assert float(found.value) == pytest.approx(square(x, y))
    assert float(found.high - found.value) == pytest.approx(3.1824 * error_sq**0.5, rel=1e-4)  # 3 degrees of freedom


def test_the_mean_squared_error_is_bias_and_variance():
    x, y = (z[0] for z in sets(1, 5, 4, 3))
    truth = SampledTruth(y)
    assert float(mse(x, truth)) == pytest.approx(float(bias_sq(x, truth) + variance(x)))


def test_what_does_not_fit_is_refused():
    x, y = (z[0] for z in sets(1, 5, 4, 4))
    with pytest.raises(ValueError, match="truth: expected 5 paired draws, got 4"):
        bias_sq(x, SampledTruth(y, paired=True))
    with pytest.raises(ValueError, match="truth: expected 3 entries as the estimates have, got 2"):
        bias_sq(x, SampledTruth(y[:, :2]))


def noise(repeats, generator):
    return torch.randn(repeats, 3, generator=generator, dtype=F64)


def test_shares_have_intervals_that_cover():
    """Two sources whose biases add up have shares b₁² + b₁·b₂ and b₂² + b₁·b₂: of 300 intervals 92 to 99% hold them."""
    generator = torch.Generator().manual_seed(5)
    truth = torch.tensor([2.0, 0.0, 1.0], dtype=F64)
    biases = {"one": BIAS, "two": torch.tensor([0.4, 0.4, 0.4], dtype=F64)}
    cross = float(biases["one"] @ biases["two"])
    expected = {name: float(b @ b) + cross for name, b in biases.items()}
    inside = dict.fromkeys(biases, 0)
    for _ in range(300):
        common, own = noise(20, generator), {name: noise(20, generator) for name in biases}
        draws = truth + noise(20, generator)

        def estimate(some, common=common, own=own):
            return truth + common + sum(biases[name] + 0.3 * own[name] for name in some)

        found = attribute(estimate, ["one", "two"], SampledTruth(draws), confidence=0.95)["bias_sq"]
        for name, (_, low, high) in found.items():
            inside[name] += bool(low <= expected[name] <= high)
    assert all(276 <= count <= 297 for count in inside.values()), inside
