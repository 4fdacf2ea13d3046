"""What several estimates of one meta-gradient are like, all made from the same draws."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.diagnose.jackknife import Estimate, jackknife
from gm_estimators.metrics import accuracy, bias_sq, variance


@dataclass(frozen=True)
class Quality:
    """What estimates x of a meta-gradient are like beside a reference y on the same draws.

    Attributes:
        accuracy: mean cosine of one x with the mean of y over the other draws (paper, Eq. 63).
        bias_sq: ‖E[x] − E[y]‖², unbiased, so it can be negative.
        variance: trace of the covariance over draws.
        change: ‖E[x] − E[z]‖ / ‖E[y]‖ with z the base: the root of an unbiased square, 0 where that is negative; NaN
            without a base.
        mean: of x over draws.
    """

    accuracy: Estimate
    bias_sq: Estimate
    variance: Estimate
    change: Estimate
    mean: tuple[float, ...]


def qualities(
    estimates: Mapping[str, Float[Tensor, "draw size"]], *, reference: str, base: str | None = None
) -> dict[str, Quality]:
    """Estimates by name have these qualities, where the draws of one row are the same for all, or as good as these.

    The reference's own sampling error is part of every interval: differences are paired by draws, and a draw is never
    compared with a mean that it is part of.

    Args:
        estimates: at least two draws of each.
        reference: the name of the estimates whose mean is taken for the truth.
        base: what `change` is measured from, if that is among the estimates.

    Raises:
        ValueError: if there is no such reference, or a shape differs from its.

    Examples:
        >>> import torch
        >>> from gm_estimators.diagnose import qualities
        >>> truth = torch.tensor([[3.0, 0.0], [3.5, 0.1], [2.5, -0.1]])
        >>> found = qualities({"truth": truth, "long": truth + torch.tensor([1.0, 0.0])}, reference="truth")
        >>> print(f"{found['long'].bias_sq.value:.2f} {found['truth'].bias_sq.value:.2f}")
        1.00 0.00
    """
    if reference not in estimates:
        raise ValueError(f"reference: expected one of {', '.join(estimates)}, got {reference!r}")
    y = estimates[reference].double()
    for name, x in estimates.items():
        if x.shape != y.shape or y.dim() != 2 or len(y) < 2:
            expected = f"one shape [draw, size] with at least 2 draws, {tuple(y.shape)} as {reference!r} has"
            raise ValueError(f"estimates[{name!r}]: expected {expected}, got {tuple(x.shape)}")
    z = torch.full_like(y, torch.nan) if base is None or base not in estimates else estimates[base].double()
    return {name: _quality(x.double(), y, z) for name, x in estimates.items()}


def _quality(x: Tensor, y: Tensor, z: Tensor) -> Quality:
    return Quality(
        _within(jackknife(_mean_accuracy, torch.stack([x, y], 1)), -1.0, 1.0), jackknife(_square, x - y),
        jackknife(variance, x), _root(jackknife(_relative_square, torch.stack([x - z, y], 1))),
        tuple(x.mean(0).tolist()),
    )  # fmt: skip


def _mean_accuracy(pairs: Float[Tensor, "draw 2 size"]) -> Float[Tensor, ""]:
    """Of each draw's first with the mean of the second over the other draws."""
    x, y = pairs.unbind(1)
    return accuracy(x, (y.sum(0) - y) / (len(x) - 1)).mean()


def _square(x: Float[Tensor, "draw size"]) -> Float[Tensor, ""]:
    """‖E[x]‖², unbiased."""
    return bias_sq(x, torch.zeros_like(x[0]))


def _relative_square(pairs: Float[Tensor, "draw 2 size"]) -> Float[Tensor, ""]:
    """‖E[x]‖² / ‖E[y]‖², x the first and y the second."""
    x, y = pairs.unbind(1)
    return _square(x) / y.mean(0).square().sum()


def _within(estimate: Estimate, least: float, most: float) -> Estimate:
    """The interval ends where no value can lie."""
    return Estimate(estimate.value, max(estimate.low, least), min(estimate.high, most))


def _root(square: Estimate) -> Estimate:
    return Estimate(*(max(x, 0.0) ** 0.5 for x in square))
