"""How good an estimate of a gradient is: bias told apart from variance.

Estimates x_1 … x_R of the same truth y are stacked along the axis before the last; the last axis holds the
gradient's L entries. A truth has no axis of repeats; one that is itself known from a sample alone is a `SampledTruth`,
whose own variance is not taken for a bias. What is not of floating-point numbers is a TypeError,
what does not fit a ValueError; half precision is read as float32.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import power_of_two_below

__all__ = [
    "Interval", "SampledTruth", "accuracy", "bias_sq", "bias_sq_interval", "correlation", "mean_interval", "mse",
    "paired_difference", "relative_bias", "std_sum", "student_t_quantile", "summary", "variance",
]  # fmt: skip


class Interval(NamedTuple):
    """A value, the point estimate, with a confidence interval."""

    value: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class SampledTruth:
    """A truth that is only known from estimates without bias.

    Attributes:
        draws: R′ independent ones, `[*batch, repeat, size]`.
        paired: whether draw i is from the same random numbers as estimate i, so that differences are measured; if not,
            the draws are independent of the estimates.
    """

    draws: Float[Tensor, "*batch repeat size"]
    paired: bool = False


def accuracy(estimate: Float[Tensor, "*shape size"], truth: Float[Tensor, "*shape2 size"]) -> Tensor:
    """The accuracy is the cosine Acc(x, y) = xᵀy / (√xᵀx √yᵀy) (paper, Eq. 63), NaN if one of the two is zero.

    Both are scaled first, so that squares of very small or large entries neither vanish nor overflow; y broadcasts.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import accuracy
        >>> print(f"{accuracy(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])):.3f}")
        0.707
    """
    estimate, truth = _vectors("estimate", estimate), _vectors("truth", truth)
    _require_entries(estimate, truth)
    estimate, truth = estimate / power_of_two_below(estimate), truth / power_of_two_below(truth)
    return (estimate * truth).sum(-1) / (estimate.square().sum(-1).sqrt() * truth.square().sum(-1).sqrt())


def correlation(estimate: Float[Tensor, "*shape size"], truth: Float[Tensor, "*shape2 size"]) -> Tensor:
    """Pearson's correlation over the gradient's entries is the accuracy of the centred vectors.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import correlation
        >>> print(f"{correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 6.0, 7.0])):.3f}")
        1.000
    """
    estimate, truth = _vectors("estimate", estimate), _vectors("truth", truth)
    return accuracy(estimate - estimate.mean(-1, keepdim=True), truth - truth.mean(-1, keepdim=True))


def relative_bias(estimate: Float[Tensor, "*shape size"], truth: Float[Tensor, "*shape2 size"]) -> Tensor:
    """The relative bias (x − y)ᵀy / yᵀy says how much too long x is along y, in units of y's length; NaN if y is zero.

    Linear in x: its mean over estimates estimates the same of E[x] without bias, even from one estimate of each truth.
    −1 is an estimate without any share of the truth, −2 one of the same length in the opposite direction. y broadcasts.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import relative_bias
        >>> relative_bias(torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0]))  # half as long again
        tensor(0.5000)
    """
    estimate, truth = _vectors("estimate", estimate), _vectors("truth", truth)
    _require_entries(estimate, truth)
    scale = power_of_two_below(truth)
    truth, error = truth / scale, (estimate - truth) / scale
    return (error * truth).sum(-1) / truth.square().sum(-1)


def variance(estimates: Float[Tensor, "*batch repeat size"]) -> Float[Tensor, "*batch"]:
    """The variance is the trace of the covariance, Σ_l Var[x_l], estimated without bias from R ≥ 2 repeats.

    Raises:
        ValueError: if there is only one repeat.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import variance
        >>> variance(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        tensor(2.)
    """
    return _variances(estimates).sum(-1)


def std_sum(estimates: Float[Tensor, "*batch repeat size"]) -> Float[Tensor, "*batch"]:
    """The standard deviations have the sum Σ_l √Var[x_l], which the paper's figures call the variance.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import std_sum
        >>> print(f"{std_sum(torch.tensor([[1.0, 0.0], [3.0, 0.0]])):.3f}")
        1.414
    """
    return _variances(estimates).sqrt().sum(-1)


def bias_sq(
    estimates: Float[Tensor, "*batch repeat size"], truth: Float[Tensor, "*batch size"] | SampledTruth
) -> Float[Tensor, "*batch"]:
    """The squared bias ‖E[x] − y‖² is estimated without bias, so that it can be negative.

        ‖x̄ − y‖² − tr Cov[x] / R,   for draws y_1 … y_R′ of the truth also − tr Cov[y] / R′

    A mean of R carries that much variance. Of paired draws x − y takes the place of x, and 0 that of y.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import SampledTruth, bias_sq
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> bias_sq(x, torch.tensor([0.0]))  # 2² less the mean's own variance, 1
        tensor(3.)
        >>> bias_sq(x, SampledTruth(torch.tensor([[-1.0], [1.0]])))  # and less the truth's
        tensor(2.)
    """
    estimates, truth, drawn = _compared(estimates, truth)
    found = (estimates.mean(-2) - truth).square().sum(-1) - variance(estimates) / estimates.shape[-2]
    return found if drawn is None else found - variance(drawn) / drawn.shape[-2]


def mse(
    estimates: Float[Tensor, "*batch repeat size"], truth: Float[Tensor, "*batch size"] | SampledTruth
) -> Float[Tensor, "*batch"]:
    """The mean squared error E‖x − y‖² is the squared bias plus the variance.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import mse
        >>> mse(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0]))
        tensor(5.)
    """
    if isinstance(truth, SampledTruth):
        return bias_sq(estimates, truth) + variance(estimates)
    estimates, truth = _repeats_of(estimates, truth)
    return (estimates - truth.unsqueeze(-2)).square().sum(-1).mean(-1)


def summary(
    estimates: Float[Tensor, "*batch repeat size"], truth: Float[Tensor, "*batch size"]
) -> dict[str, Float[Tensor, "*batch"]]:
    """The summary has accuracy and correlation (means over repeats), variance, std_sum and bias_sq, by name.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import summary
        >>> found = summary(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([1.0, 0.0]))
        >>> {name: round(value.item(), 3) for name, value in found.items()}
        {'accuracy': 1.0, 'correlation': 1.0, 'variance': 2.0, 'std_sum': 1.414, 'bias_sq': 0.0}
    """
    each = truth.unsqueeze(-2)
    return {
        "accuracy": accuracy(estimates, each).mean(-1),
        "correlation": correlation(estimates, each).mean(-1),
        "variance": variance(estimates),
        "std_sum": std_sum(estimates),
        "bias_sq": bias_sq(estimates, truth),
    }


def bias_sq_interval(
    estimates: Float[Tensor, "*batch repeat size"],
    truth: Float[Tensor, "*batch size"] | SampledTruth,
    confidence: float = 0.95,
) -> Interval:
    """The squared bias has a Student-t interval from the jackknife over repeats (Efron and Stein 1981).

    Without repeat i, with b the mean error, e_i what x_i is off the mean, and S = Σ_j ‖e_j‖², it is

        ‖b − e_i / (R − 1)‖² − (S − R ‖e_i‖² / (R − 1)) / ((R − 1) (R − 2))

    of which only what differs between repeats is computed, in float64. Two repeats leave nothing to estimate the error
    from: their interval has no bounds. Draws of a truth are left out in turn as estimates are, and both errors add up.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import bias_sq_interval
        >>> found = bias_sq_interval(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0.0]))
        >>> print(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
        3.67 [-6.68, 14.01]
    """
    value = bias_sq(estimates, truth)
    estimates, truth, drawn = _compared(estimates, truth)
    bias = estimates.double().mean(-2, keepdim=True) - truth.double().unsqueeze(-2)
    error_sq = _jackknifed(estimates, bias)
    repeats = estimates.shape[-2]
    if drawn is not None:
        error_sq = error_sq + _jackknifed(drawn, -bias)
        repeats = min(repeats, drawn.shape[-2])
    half = (student_t_quantile(0.5 + confidence / 2, repeats - 1) * error_sq.sqrt()).to(value.dtype)
    return Interval(value, value - half, value + half)


def _jackknifed(x: Tensor, bias: Tensor) -> Tensor:
    """The jackknife's variance of ‖bias‖² less its own variance, over the repeats of x; infinite for two."""
    repeats = x.shape[-2]
    if repeats == 2:
        return torch.full(x.shape[:-2], torch.inf, dtype=torch.float64, device=x.device)
    x = x.double()
    off = (x - x.mean(-2, keepdim=True)) / (repeats - 1)
    replicates = off.square().sum(-1) * (1 + repeats / (repeats - 2)) - 2 * (bias * off).sum(-1)
    return (repeats - 1) * replicates.var(-1, correction=0)


def mean_interval(values: Float[Tensor, "*batch repeat"], confidence: float = 0.95) -> Interval:
    """The mean over the last axis has a Student-t interval.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import mean_interval
        >>> found = mean_interval(torch.tensor([1.0, 2.0, 3.0]))
        >>> print(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
        2.00 [-0.48, 4.48]
    """
    values = _vectors("values", values)
    count = values.shape[-1]
    _require_repeats(count)
    mean = values.mean(-1)
    half = student_t_quantile(0.5 + confidence / 2, count - 1) * values.std(-1) / count**0.5
    return Interval(mean, mean - half, mean + half)


def paired_difference(
    first: Float[Tensor, "*batch repeat"], second: Float[Tensor, "*batch repeat"], confidence: float = 0.95
) -> Interval:
    """The mean of first − second, paired along the last axis, has a Student-t interval.

    Examples:
        >>> import torch
        >>> from gm_estimators.metrics import paired_difference
        >>> found = paired_difference(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.5, 2.0]))
        >>> print(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
        0.83 [0.12, 1.55]
    """
    first, second = _vectors("first", first), _vectors("second", second)
    if first.shape[-1] != second.shape[-1]:
        came = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"first, second: expected pairs along the last axis, got shapes {came}")
    return mean_interval(first - second, confidence)


def student_t_quantile(probability: float, degrees: int) -> float:
    """Returns t with P(T ≤ t) = probability at ν whole degrees of freedom, by bisection of a finite series.

    Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4, with θ = atan(t / √ν):
    P(|T| ≤ t) = (2/π)(θ + sin θ (cos θ + 2/3 cos³θ + …)) for odd ν, sin θ (1 + 1/2 cos²θ + …) for even ν.

    Raises:
        ValueError: if the probability is not in [0.5, 1), or ν < 1.

    Examples:
        >>> from gm_estimators.metrics import student_t_quantile
        >>> print(f"{student_t_quantile(0.975, 9):.3f}")
        2.262
    """
    if not 0.5 <= probability < 1 or degrees < 1 or degrees % 1:
        raise ValueError(f"expected 0.5 ≤ probability < 1 and degrees ≥ 1, got {probability} and {degrees}")
    odd = degrees % 2
    powers = torch.arange(odd, max(degrees - 1, odd), 2, dtype=torch.float64)
    ratios = torch.where(powers == odd, 1.0, (powers - 1) / powers.clamp(min=1)).cumprod(0)

    def central(theta: float) -> float:  # P(|T| ≤ √ν tan θ)
        angle = torch.tensor(theta, dtype=torch.float64)
        series = float(angle.sin() * (ratios * angle.cos() ** powers).sum())
        return (theta + series) * 2 / torch.pi if odd else series

    low, high = 0.0, torch.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if central(middle) < 2 * probability - 1 else (low, middle)
    return float(degrees**0.5 * torch.tensor(low, dtype=torch.float64).tan())


def _variances(estimates: Tensor) -> Tensor:
    estimates = _vectors("estimates", estimates, 2)
    _require_repeats(estimates.shape[-2])
    return estimates.var(-2)


def _require_repeats(repeats: int) -> None:
    if repeats < 2:
        raise ValueError(f"expected at least 2 repeats to estimate a variance, got {repeats}")


def _vectors(name: str, x: Tensor, axes: int = 1) -> Tensor:
    """Half precision as float32, whose sums of squares do not overflow from entries of 256 on."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"{name}: expected a tensor of floating-point numbers, got {came}")
    if x.ndim < axes or 0 in x.shape[-axes:]:
        raise ValueError(f"{name}: expected {axes} or more axes, the last not empty, got shape {tuple(x.shape)}")
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _repeats_of(estimates: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    estimates, truth = _vectors("estimates", estimates, 2), _vectors("truth", truth)
    if truth.ndim >= estimates.ndim:
        came = f"shape {tuple(truth.shape)} beside estimates of {tuple(estimates.shape)}"
        raise ValueError(f"truth: expected no axis of repeats, got {came}")
    _require_entries(estimates, truth)
    return estimates, truth


def _compared(estimates: Tensor, truth: Tensor | SampledTruth) -> tuple[Tensor, Tensor, Tensor | None]:
    """(estimates, what their mean is compared with, the draws that this is the mean of, if they are of its own)."""
    if not isinstance(truth, SampledTruth):
        return *_repeats_of(estimates, truth), None
    estimates, drawn = _vectors("estimates", estimates, 2), _vectors("truth", truth.draws, 2)
    _require_entries(estimates, drawn)
    if not truth.paired:
        return estimates, drawn.mean(-2), drawn
    if estimates.shape[-2] != drawn.shape[-2]:
        raise ValueError(f"truth: expected {estimates.shape[-2]} paired draws, got {drawn.shape[-2]}")
    errors = estimates - drawn
    return errors, torch.zeros_like(errors[..., 0, :]), None


def _require_entries(estimate: Tensor, truth: Tensor) -> None:
    if estimate.shape[-1] != truth.shape[-1]:
        raise ValueError(f"truth: expected {estimate.shape[-1]} entries as the estimates have, got {truth.shape[-1]}")
