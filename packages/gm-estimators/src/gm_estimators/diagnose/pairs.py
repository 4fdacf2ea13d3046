"""Ratios of squared lengths and inner products of expectations, from independent repeats of vectors.

With x_1 … x_R independent repeats of a vector, ‖E[x]‖² is estimated without bias by the mean of h_ij = ⟨x_i, x_j⟩ over
pairs i ≠ j: a U-statistic of degree two (Hoeffding 1948). Everything that a diagnosis says is a ratio of such means. A
symmetric kernel h is known here by its rows, Σ_{j ≠ i} h_ij for each i, which is all that means and jackknife read.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.diagnose.jackknife import Estimate
from gm_estimators.metrics import student_t_quantile

Rows = Float[Tensor, " repeat"]
FEWEST = 4
"""Repeats without which there is no interval."""


def inner(x: Float[Tensor, "repeat size"], y: Float[Tensor, "repeat size"]) -> Rows:
    """Of h_ij = ½ (⟨x_i, y_j⟩ + ⟨y_i, x_j⟩), whose mean estimates ⟨E[x], E[y]⟩."""
    x, y = x.double(), y.double()
    return ((x * (y.sum(0) - y)).sum(-1) + (y * (x.sum(0) - x)).sum(-1)) / 2


def each(values: Float[Tensor, " repeat"]) -> Rows:
    """Of h_ij = ½ (v_i + v_j), whose mean is that of v."""
    values = values.double()
    return ((len(values) - 2) * values + values.sum()) / 2


def mean(rows: Rows) -> float:
    """The mean over pairs of different repeats; NaN if there is but one."""
    pairs = len(rows) * (len(rows) - 1)
    return float(rows.sum()) / pairs if pairs else math.nan


def ratio(above: Rows, below: Rows | None = None) -> Estimate:
    """U(above) / U(below) with Fieller's interval, its covariances by the jackknife over repeats; or U(above) alone.

    The interval holds every θ that Student's test of U(above) = θ U(below) does not reject (Fieller 1954, "Some
    problems in interval estimation"). It has no bounds where U(below) is not told apart from 0. Where the expectation
    above is 0, U is degenerate and the interval too long rather than too short.
    """
    if len(above) < FEWEST:
        return _unbounded(_quotient(mean(above), 1.0 if below is None else mean(below)))
    if below is None:
        return _fieller(mean(above), 1.0, _leave_one_out(above), torch.ones(len(above), dtype=torch.float64))
    return _fieller(mean(above), mean(below), _leave_one_out(above), _leave_one_out(below))


def squared(x: Float[Tensor, "repeat size"], below: Rows) -> Estimate:
    """‖E[x]‖² / U(below) by a score test, whose variance is that of the squared length that it tests.

        (U(x) − θ U(below))² = t² (4 θ U(below) s / R + 2 tr Σ² / (R (R − 1)) − 2 θ s_ab + θ² s_bb),   s = x̄ᵀΣx̄ / ‖x̄‖²

    An estimate that came out near 0 by chance would have an interval that is far too short by the jackknife, since the
    variance of a squared length falls with it.
    """
    rows = inner(x, x)
    if len(x) < FEWEST:
        return ratio(rows, below)
    x, repeats = x.double(), len(x)
    center = x.mean(0)
    length = center @ center
    first, second = zetas(x)
    along = float(((x - center) @ center).square().sum() / (repeats - 1) / length) if length > 0 else 0.0
    spread = max(second - 2 * first, along**2)  # tr Σ², which no direction's variance squared exceeds
    a, b = mean(rows), mean(below)
    above, under = _leave_one_out(rows), _leave_one_out(below)
    (_, s_ab), (_, s_bb) = ((repeats - 1) * torch.cov(torch.stack([above, under]), correction=0)).tolist()
    t_squared = student_t_quantile(0.975, repeats - 1) ** 2
    slope, level = 4 * b * along / repeats - 2 * s_ab, 2 * spread / (repeats * (repeats - 1))
    return _between(a, b, b * b - t_squared * s_bb, a * b + t_squared * slope / 2, a * a - t_squared * level)


def projected(above: Rows, below: Rows) -> Estimate:
    """U(above) / U(below) for inner products ⟨E[x], g⟩ above a squared length ‖g‖², as the ratio of two lengths.

        (⟨E[x], g⟩ / ‖g‖) / ‖g‖

    Both are linear in what is drawn, to first order, so that their errors do not depend on their size, as those of
    products and squares do: Fieller's interval then fails as often on either side.
    """
    value = _quotient(mean(above), mean(below))
    if len(above) < FEWEST or mean(below) <= 0 or bool((_leave_one_out(below) <= 0).any()):
        return _unbounded(value)
    lengths = _leave_one_out(below).sqrt()
    return _fieller(mean(above) / mean(below) ** 0.5, mean(below) ** 0.5, _leave_one_out(above) / lengths, lengths)


def _fieller(a: float, b: float, above: Rows, below: Rows) -> Estimate:
    """The interval of a / b, given both without each repeat in turn."""
    repeats = len(above)
    spread = (repeats - 1) * torch.cov(torch.stack([above, below]).double().cpu(), correction=0)
    t_squared = student_t_quantile(0.975, repeats - 1) ** 2
    # (a − θ b)² = t² (s_aa − 2 θ s_ab + θ² s_bb), a quadratic in θ
    (s_aa, s_ab), (_, s_bb) = (t_squared * spread).tolist()
    return _between(a, b, b * b - s_bb, a * b - s_ab, a * a - s_aa)


def _between(a: float, b: float, square: float, linear: float, rest: float) -> Estimate:
    """A / b between the roots of square θ² − 2 linear θ + rest, if it is negative between two of them."""
    value, root = _quotient(a, b), linear * linear - square * rest
    if not (square > 0 and root >= 0):
        return _unbounded(value)
    return Estimate(value, (linear - math.sqrt(root)) / square, (linear + math.sqrt(root)) / square)


def _unbounded(value: float) -> Estimate:
    return Estimate(value, -math.inf, math.inf)


def _quotient(a: float, b: float) -> float:
    return a / b if b else math.nan


def half_width(above: Rows, below: Rows | None = None) -> float:
    """About half the interval of U(above) / U(below), by the delta method, which a small U(below) does not blow up."""
    if below is None:
        below = torch.full_like(above, len(above) - 1)
    a, b = mean(above), mean(below)
    if not b > 0:
        return math.inf
    apart = _leave_one_out(above - a / b * below)
    variance = (len(apart) - 1) * float(apart.var(correction=0))
    return student_t_quantile(0.975, len(apart) - 1) * math.sqrt(variance) / b


def repeats_for(x: Float[Tensor, "repeat size"], now: float, half: float) -> float:
    """The number of repeats whose interval of ‖E[x]‖², or of its ratio to another, has that half width.

    That of R repeats, h, is `now`; it falls as Var U ≈ 4 ζ₁ / R + 2 tr Σ² / R² does, of which the first part is p:

        h² (p R / R′ + (1 − p) R² / R′²) = half²
    """
    first, second = zetas(x)
    repeats, length = len(x), now
    linear, square = 4 * first / repeats, 2 * max(second - 2 * first, 0.0) / repeats**2
    if not (math.isfinite(length) and half > 0):
        return math.inf
    part = linear / (linear + square) if linear + square > 0 else 1.0
    by_square, by_line = (1 - part) * length**2, part * length**2
    # by_square y² + by_line y = half², y = R / R′
    y = 2 * half**2 / (by_line + math.sqrt(by_line**2 + 4 * by_square * half**2)) if length > 0 else math.inf
    return repeats / y


def zetas(x: Float[Tensor, "repeat size"]) -> tuple[float, float]:
    """ζ₁ = Cov(h_12, h_13) and ζ₂ = Var(h_12) of h_ij = ⟨x_i, x_j⟩, from means over different repeats; at least 0."""
    x = x[:MOST].double()
    h, n = x @ x.mT, len(x)
    h.fill_diagonal_(0)
    total, rows, squares = float(h.sum()), float(h.sum(1).square().sum()), float(h.square().sum())
    pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
    both = squares / pairs  # E[h_12²]
    one = (rows - squares) / triples  # E[h_12 h_13]
    none = (total**2 - 4 * rows + 2 * squares) / (triples * (n - 3))  # E[h_12 h_34]
    return max(one - none, 0.0), max(both - none, 0.0)


MOST = 512
"""Repeats that are enough for `zetas`, whose pairs are all made."""


def _leave_one_out(rows: Rows) -> Rows:
    """The mean over pairs of different repeats, without each repeat in turn."""
    rest = len(rows) - 1
    return (rows.sum() - 2 * rows) / (rest * (rest - 1))
