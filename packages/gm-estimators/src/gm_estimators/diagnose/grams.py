"""Ratios of squared lengths and inner products of expectations, from independent repeats of vectors.

With x_1 … x_R independent repeats of a vector, ‖E[x]‖² is estimated without bias by the mean of ⟨x_i, x_j⟩ over i ≠ j:
a U-statistic of degree two (Hoeffding 1948). Everything that a diagnosis says is a ratio of such means.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.diagnose.jackknife import Estimate
from gm_estimators.metrics import student_t_quantile

Gram = Float[Tensor, "repeat repeat"]
"""A symmetric kernel h_ij of repeats i and j; its diagonal is never read."""


def inner(x: Float[Tensor, "repeat size"], y: Float[Tensor, "repeat size"]) -> Gram:
    """The kernel ½ (⟨x_i, y_j⟩ + ⟨y_i, x_j⟩), whose mean estimates ⟨E[x], E[y]⟩."""
    product = x.double() @ y.double().mT
    return (product + product.mT) / 2


def each(values: Float[Tensor, " repeat"]) -> Gram:
    """The kernel ½ (v_i + v_j), whose mean is that of v."""
    values = values.double()
    return (values.unsqueeze(0) + values.unsqueeze(1)) / 2


def mean(kernel: Gram) -> float:
    """The mean over pairs of different repeats; NaN if there is but one."""
    pairs = len(kernel) * (len(kernel) - 1)
    return float(_off_diagonal(kernel).sum()) / pairs if pairs else math.nan


def ratio(above: Gram, below: Gram | None = None) -> Estimate:
    """U(above) / U(below) with Fieller's interval, its covariances by the jackknife over repeats; or U(above) alone.

    The interval holds every θ that Student's test of U(above) = θ U(below) does not reject (Fieller 1954, "Some
    problems in interval estimation"). It has no bounds where U(below) is not told apart from 0. Where the expectation
    above is 0, U is degenerate and the interval too long rather than too short.
    """
    a, repeats = mean(above), len(above)
    b = 1.0 if below is None else mean(below)
    value = a / b if b else math.nan
    if repeats < 4:
        return Estimate(value, -math.inf, math.inf)
    without = [_leave_one_out(above), torch.zeros(repeats) if below is None else _leave_one_out(below)]
    spread = (repeats - 1) * torch.cov(torch.stack([x.double().cpu() for x in without]), correction=0)
    t_squared = student_t_quantile(0.975, repeats - 1) ** 2
    # (a − θ b)² = t² (s_aa − 2 θ s_ab + θ² s_bb), a quadratic in θ
    (s_aa, s_ab), (_, s_bb) = (t_squared * spread).tolist()
    square, linear, rest = b * b - s_bb, a * b - s_ab, a * a - s_aa
    root = linear * linear - square * rest
    if not (square > 0 and root >= 0):
        return Estimate(value, -math.inf, math.inf)
    return Estimate(value, (linear - math.sqrt(root)) / square, (linear + math.sqrt(root)) / square)


def _leave_one_out(kernel: Gram) -> Float[Tensor, " repeat"]:
    """The mean over pairs of different repeats, without each repeat in turn."""
    h, rest = _off_diagonal(kernel), len(kernel) - 1
    return (h.sum() - 2 * h.sum(1)) / (rest * (rest - 1))


def zetas(kernel: Gram) -> tuple[float, float]:
    """ζ₁ = Cov(h_12, h_13) and ζ₂ = Var(h_12), each from means over different repeats, and at least 0."""
    h, n = _off_diagonal(kernel), len(kernel)
    total, rows, squares = float(h.sum()), float(h.sum(1).square().sum()), float(h.square().sum())
    pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
    both = squares / pairs  # E[h_12²]
    one = (rows - squares) / triples  # E[h_12 h_13]
    none = (total**2 - 4 * rows + 2 * squares) / (triples * (n - 3))  # E[h_12 h_34]
    return max(one - none, 0.0), max(both - none, 0.0)


def repeats_for(above: Gram, half: float, below: Gram | None = None) -> float:
    """The number of repeats whose interval has about that half width: R with 1.96² Var U = half².

    Var U = 4 (R − 2) ζ₁ / (R (R − 1)) + 2 ζ₂ / (R (R − 1)) ≈ 4 ζ₁ / R + 2 ζ₂ / R²
    """
    scale = 1.0 if below is None else mean(below)
    kernel = above if below is None else above - mean(above) / scale * below
    first, second = (1.96**2 * z / scale**2 for z in zetas(kernel))
    # half² R² − 4 ζ₁ R − 2 ζ₂ = 0
    return (2 * first + math.sqrt(4 * first**2 + 2 * second * half**2)) / half**2


def _off_diagonal(kernel: Gram) -> Gram:
    return kernel - torch.diag(kernel.diagonal())
