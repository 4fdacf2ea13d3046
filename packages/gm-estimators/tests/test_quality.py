import math

import numpy as np
import pytest
import torch

from gm_estimators.diagnose import jackknife, qualities
from gm_estimators.metrics import bias_sq


def test_the_interval_covers_the_truth():
    """Squared means of 8 draws in 4 dimensions: of 400 intervals 95% hold the truth; half of each would hold 68%."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.tensor([2.0, -1.0, 0.0, 0.5], dtype=torch.float64)
    square = float(truth.square().sum())
    found = [
        jackknife(lambda x: bias_sq(x, torch.zeros_like(x[0])), truth + torch.randn(8, 4, generator=draw))
        for _ in range(400)
    ]
    inside = sum(e.low <= square <= e.high for e in found)
    assert 365 <= inside <= 395  # 380 and four standard errors below
    halves = sum(abs(e.value - square) <= (e.high - e.low) / 4 for e in found)
    assert halves < 330


def test_qualities_are_what_the_formulas_say():
    draw = torch.Generator().manual_seed(1)
    y = torch.tensor([1.0, 2.0, -1.0]) + torch.randn(6, 3, generator=draw)
    estimates = {"y": y, "z": 2 * y, "x": 0.5 * y + torch.randn(6, 3, generator=draw)}
    found = qualities(estimates, reference="y", base="z")["x"]
    x, y, z = (estimates[name].double().numpy() for name in ("x", "y", "z"))

    def square(d):
        return (d.mean(0) ** 2).sum() - d.var(0, ddof=1).sum() / len(d)

    assert found.bias_sq.value == pytest.approx(square(x - y))
    assert found.variance.value == pytest.approx(x.var(0, ddof=1).sum())
    assert found.change.value == pytest.approx(math.sqrt(square(x - z) / (y.mean(0) ** 2).sum()))
    others = [np.delete(y, i, axis=0).mean(0) for i in range(6)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(x, others, strict=True)]
    assert found.accuracy.value == pytest.approx(np.mean(cosines))
    assert found.mean == pytest.approx(tuple(x.mean(0)))
    assert math.isnan(qualities(estimates, reference="y")["x"].change.value)


def test_two_draws_have_no_bounds_and_one_is_refused():
    pair = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    assert qualities({"y": pair}, reference="y")["y"].variance == (0.5, -math.inf, math.inf)
    with pytest.raises(ValueError, match=r"estimates\['y'\]: expected one shape \[draw, size\] with at least 2 draws"):
        qualities({"y": pair[:1]}, reference="y")
    with pytest.raises(ValueError, match=r"estimates\['x'\]: .* \(2, 2\) as 'y' has, got \(3, 2\)"):
        qualities({"y": pair, "x": torch.ones(3, 2)}, reference="y")
    with pytest.raises(ValueError, match="reference: expected one of y, got 'x'"):
        qualities({"y": pair}, reference="x")
