"""Ratios of squared lengths and inner products of expectations, from independent repeats of vectors.

With x_1 … x_R independent repeats of a vector, ‖E[x]‖² is estimated without bias by the mean of h_ij = ⟨x_i, x_j⟩ over
pairs i ≠ j: a U-statistic of degree two (Hoeffding 1948). Everything that a diagnosis says is a ratio of such means.

The interval of a ratio U(a) / U(b) holds every θ that a test of U(a − θ b) = 0 does not reject (Fieller 1954, "Some
problems in interval estimation"). U is quadratic in the mean of what is drawn, so that its variance moves with it: by
Student's test an estimate that came out small by chance would have too short an interval. As a score test does, this
one reads the variance where U is 0. With H the h_ij less the means of their row and column, r_i the means of rows less
that of all, and C the mean of H_ij² over pairs,

    s² = 4 A / R + 2 C / R²,   A = b₁ − U b₂ / b₁,   b₁ = r·r / (R − 1),   b₂ = r·H r / (R − 1)²

−U b₂ / b₁ is what b₁ changes by on the way to U = 0, to first order, in the direction in which U changes most: the
least favourable one, as in the ABC intervals of DiCiccio and Efron (1992, "More accurate confidence intervals in
exponential families"). In all others b₁ is as uncertain as the mean itself, which leaves fewer degrees of freedom to
Student's quantile (Satterthwaite 1946, "An approximate distribution of estimates of variance components"):

    ν = 2 s⁴ / Var s²,   Var s² = (4 / R)² (τ² + 2 A² / (R − 1)) + (2 C / R²)² 4 / (R − 1)
    τ² = 4 (b₃ − b₂² / b₁) / R,   b₃ = H r·H r / (R − 1)³

On average A is too large by C / R, which is taken off but for one standard deviation, τ: where U is a squared length in
many dimensions, s would else be too large by up to √3.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.attribution import shapley
from gm_estimators.diagnose.jackknife import Estimate

FEWEST = 4
"""Repeats without which there is no interval."""
MOST = 64
"""Repeats all of whose pairs are made, for what matters the less the more there are."""
NORMAL = 1.959964
"""The quantile of 97.5% of the normal distribution."""
AT_ESTIMATE = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
"""Weights of a test at the estimate."""


class Kernel(NamedTuple):
    """A symmetric function h of two repeats, as far as it is read; sums and multiples of kernels are those of each.

    Attributes:
        mean: U, over pairs of different repeats.
        rows: of each repeat with all, itself too, less the mean of all.
        pairs: h_ij of the first repeats, less the means of row and column, and 0 where i = j.
    """

    mean: Float[Tensor, "*kernel"]
    rows: Float[Tensor, "*kernel repeat"]
    pairs: Float[Tensor, "*kernel some some"]


def inner(x: Float[Tensor, "repeat size"], y: Float[Tensor, "repeat size"]) -> Kernel:
    """h_ij = ½ (⟨x_i, y_j⟩ + ⟨y_i, x_j⟩), whose mean estimates ⟨E[x], E[y]⟩."""
    x, y = x.double(), y.double()
    repeats, itself = len(x), (x * y).sum(-1)
    rows = (x @ y.mean(0) + y @ x.mean(0)) / 2
    some = x[:MOST] @ y[:MOST].mT
    some = (some + some.mT) / 2
    some = some - some.mean(0) - some.mean(1, keepdim=True) + some.mean()
    mean = (repeats * rows.mean() - itself.mean()) / (repeats - 1)
    return Kernel(mean, rows - rows.mean(), some.fill_diagonal_(0) * len(some) / max(len(some) - 1, 1))


def each(values: Float[Tensor, " repeat"]) -> Kernel:
    """h_ij = ½ (v_i + v_j), whose mean is that of v."""
    values, some = values.double(), min(len(values), MOST)
    return Kernel(values.mean(), (values - values.mean()) / 2, values.new_zeros(some, some))


def mean(kernel: Kernel) -> float:
    """The mean over pairs of different repeats; NaN if there is but one."""
    return float(kernel.mean)


def shares(value: Mapping[frozenset[str], Kernel], sources: Sequence[str]) -> dict[str, Kernel]:
    """Shapley values by source, kernels as well."""
    parts = [shapley({some: kernel[part] for some, kernel in value.items()}, sources) for part in range(3)]
    return {source: Kernel(*(part[source] for part in parts)) for source in sources}


def ratio(above: Kernel, below: Kernel | None = None) -> Estimate:
    """U(above) / U(below), or U alone, with its interval: unbounded where U(below) is not told apart from 0."""
    return ratios([above], each(torch.ones_like(above.rows)) if below is None else below)[0]


def ratios(above: Sequence[Kernel], below: Kernel) -> list[Estimate]:
    """`ratio` of each to the same.

    With e = a − U(a) / U(b) · b, whose U is 0, tests are of cos α · e / s(e) − sin α · b / U(b), from the estimate on,
    where α is 0, to U(b) = 0, where it is ± π / 2. The first that rejects is at an end of the interval, which is
    U(a) / U(b) + tan α s(e) / U(b).
    """
    values = [_quotient(mean(kernel), mean(below)) for kernel in above]
    if len(below.rows) < FEWEST:
        return [_unbounded(value) for value in values]
    test, unit = _Test.of(above, below, values), float(below.mean)
    width = test.deviation(AT_ESTIMATE.expand(len(values), 1, 2))[0].squeeze(-1)
    scale = torch.stack([torch.where(width > 0, width, 1.0), torch.full_like(width, unit)], -1).unsqueeze(-2)

    def accepted(angle: Float[Tensor, "kernel angle"]) -> Tensor:
        weights = torch.stack([angle.cos(), angle.sin()], -1) / scale
        deviation, quantile = test.deviation(weights)
        return ~(angle.sin().abs() > quantile * deviation)

    right = torch.full_like(width, math.pi / 2)
    told = ~accepted(right.unsqueeze(-1)).squeeze(-1)
    ends = [width / unit * _first_rejected(accepted, end).tan() for end in (-right, right)]
    return [
        Estimate(value, value + min(low, high), value + max(low, high)) if bounded else _unbounded(value)
        for value, bounded, low, high in zip(values, told.tolist(), *(end.tolist() for end in ends), strict=True)
    ]


def _first_rejected(accepted: Callable[[Tensor], Tensor], end: Float[Tensor, " kernel"]) -> Float[Tensor, " kernel"]:
    """The angle between 0, which is accepted, and an end that is not, at which that changes first."""
    inside, outside, parts = torch.zeros_like(end), end, torch.linspace(0, 1, 33, dtype=torch.float64)
    for _ in range(4):
        angles = torch.lerp(inside.unsqueeze(-1), outside.unsqueeze(-1), parts)
        first = (~accepted(angles)).int().argmax(-1, keepdim=True).clamp(min=1)
        inside, outside = (angles.gather(-1, index).squeeze(-1) for index in (first - 1, first))
    return (inside + outside) / 2


class _Test(NamedTuple):
    """Of U = 0 for kernels w₁ h₁ + w₂ h₂ with any weights, by products of what is read of h₁ and h₂.

    Attributes:
        repeats: R.
        slope: U(h₂); U(h₁) is 0.
        first: r_p·r_q / (R − 1); their sum with weights w_p w_q is b₁.
        second: r_p·H_q r_s / (R − 1)², of b₂ likewise.
        third: H_p r_q·H_s r_t / (R − 1)³, of b₃.
        square: means of (H_p)_ij (H_q)_ij, of C.
    """

    repeats: int
    slope: float
    first: Float[Tensor, "kernel 2 2"]
    second: Float[Tensor, "kernel 2 2 2"]
    third: Float[Tensor, "kernel 2 2 2 2"]
    square: Float[Tensor, "kernel 2 2"]

    @classmethod
    def of(cls, above: Sequence[Kernel], below: Kernel, values: Sequence[float]) -> "_Test":
        """Of h₁ = a − θ b, θ the value, and h₂ = −b."""
        lines = [(a.rows - x * below.rows, a.pairs - x * below.pairs) for a, x in zip(above, values, strict=True)]
        rows = torch.stack([torch.stack([row, -below.rows]) for row, _ in lines]).cpu()
        pairs = torch.stack([torch.stack([pair, -below.pairs]) for _, pair in lines]).cpu()
        repeats, some = rows.shape[-1], pairs.shape[-1]
        moved = torch.einsum("kpij,kqj->kpqi", pairs, rows[..., :some])
        return cls(
            repeats, -float(below.mean),
            torch.einsum("kpi,kqi->kpq", rows, rows) / (repeats - 1),
            torch.einsum("kpi,kqsi->kpqs", rows[..., :some], moved) / (some - 1) ** 2,
            torch.einsum("kpqi,ksti->kpqst", moved, moved) / (some - 1) ** 3,
            torch.einsum("kpij,kqij->kpq", pairs, pairs) / (some * (some - 1)),
        )  # fmt: skip

    def deviation(self, weights: Float[Tensor, "kernel angle 2"]) -> tuple[Tensor, Tensor]:
        """(s, Student's quantile) by kernel and weights."""
        free = self.repeats - 1
        mean = self.slope * weights[..., 1]
        first, second, third, square = (_form(x, weights) for x in (self.first, self.second, self.third, self.square))
        along = torch.where(first > 0, second / first, 0.0)
        other = 4 * (third - second * along).clamp(min=0) / self.repeats
        slope = (first - mean * along).clamp(min=0)
        slope = torch.minimum(slope, (slope - square / self.repeats).clamp(min=0) + other.sqrt())
        variance = 4 * slope / self.repeats + 2 * square / self.repeats**2
        doubt = (4 / self.repeats) ** 2 * (other + 2 * slope**2 / free)
        doubt = doubt + (2 * square / self.repeats**2) ** 2 * 4 / free
        degrees = torch.where(doubt > 0, 2 * variance**2 / doubt, free)
        return variance.sqrt(), _quantile(degrees.clamp(min=3, max=free))


def _form(coefficients: Float[Tensor, "kernel *weighted"], weights: Float[Tensor, "kernel angle 2"]) -> Tensor:
    """Their sum over all axes but the first, with a weight for each, `[kernel, angle]`."""
    found = torch.einsum("k...p,kap->ka...", coefficients, weights)
    while found.dim() > 2:
        found = torch.einsum("ka...p,kap->ka...", found, weights)
    return found


def _quantile(degrees: Tensor) -> Tensor:
    """Student's t of 97.5%, at three degrees of freedom or more, whole or not, within 1%.

    Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", 26.7.5.
    """
    z, nu = NORMAL, degrees
    second, third = 5 * z**5 + 16 * z**3 + 3 * z, 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    return z + (z**3 + z) / (4 * nu) + second / (96 * nu**2) + third / (384 * nu**3)


def _unbounded(value: float) -> Estimate:
    return Estimate(value, -math.inf, math.inf)


def _quotient(a: float, b: float) -> float:
    return a / b if b else math.nan


def half_width(above: Kernel, below: Kernel | None = None, true: float | None = None) -> float:
    """About half the interval of U(above) / U(below), by the delta method, which a small U(below) does not blow up.

    The variance is that where the ratio is as estimated, or as is said to be true.
    """
    below = each(torch.ones_like(above.rows)) if below is None else below
    if not mean(below) > 0:
        return math.inf
    value = mean(above) / mean(below)
    test = _Test.of([above], below, [value])
    deviation, quantile = test.deviation(torch.tensor([[[1.0, 0.0 if true is None else true - value]]]).double())
    return float(deviation * quantile) / mean(below)


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
    x = x[:ENOUGH].double()
    h, n = x @ x.mT, len(x)
    h.fill_diagonal_(0)
    total, rows, squares = float(h.sum()), float(h.sum(1).square().sum()), float(h.square().sum())
    pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
    both = squares / pairs  # E[h_12²]
    one = (rows - squares) / triples  # E[h_12 h_13]
    none = (total**2 - 4 * rows + 2 * squares) / (triples * (n - 3))  # E[h_12 h_34]
    return max(one - none, 0.0), max(both - none, 0.0)


ENOUGH = 512
"""Repeats that are enough for `zetas`, whose pairs are all made."""
