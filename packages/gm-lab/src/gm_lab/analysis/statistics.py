"""Student-t intervals of means and of paired differences, each with an error of its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Interval:
    """A mean of `count` independent values with its confidence interval; one value alone leaves it unbounded."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def unknown(self) -> bool:
        """Whether its mean or an end is NaN, with which no comparison holds."""
        return any(np.isnan((self.mean, self.low, self.high)))

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Gives Student's interval (1908) for a mean, x̄ ± t₍₁₊c₎⸝₂,ₙ₋₁ · s / √n; raises ValueError unless n > 0.

    Examples:
        >>> from gm_lab.analysis import mean_interval
        >>> found = mean_interval([1.0, 2.0, 3.0])
        >>> print(f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}] of {found.count}")
        2.00 [-0.48, 4.48] of 3
    """
    from scipy.special import stdtrit

    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"values: expected shape (n,) with n of at least 1, got {sample.shape}")
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, -np.inf, np.inf, 1)
    quantile = stdtrit(sample.size - 1, (1 + confidence) / 2)
    with np.errstate(invalid="ignore"):  # infinities have no spread
        half = float(quantile * sample.std(ddof=1) / np.sqrt(sample.size))
    return Interval(mean, mean - half, mean + half, sample.size)


def paired_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """Gives Student's interval for the mean of first − second; raises ValueError unless the units are the same.

    Examples:
        >>> from gm_lab.analysis import paired_difference
        >>> found = paired_difference([2.0, 3.1, 3.9], [1.0, 2.0, 3.0])
        >>> print(f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]")
        1.00 [0.75, 1.25]
    """
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"expected two samples of the same units, got shapes {left.shape} and {right.shape}")
    units, others = _units(first), _units(second)
    if units is not None and others is not None and units != others:
        raise ValueError(f"expected two samples of the same units, got {units} and {others}")
    return mean_interval(left - right, confidence)


def _units(values: ArrayLike) -> list[Any] | None:
    index = getattr(values, "index", None)
    return None if index is None or callable(index) else list(index)
