"""Intervals of any statistic of independent draws."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gm_estimators.metrics import student_t_quantile


class Estimate(NamedTuple):
    """A number with its 95% interval; too few draws leave it unbounded."""

    value: float
    low: float
    high: float


def jackknife(statistic: Callable[[Tensor], Tensor], draws: Tensor) -> Estimate:
    """A statistic of n independent draws has Student's interval (Efron and Stein 1981, "The Jackknife Estimate …").

        s² = (n − 1)/n Σ_i (f_i − f̄)²,   f_i = statistic without draw i

    Args:
        statistic: draws `[n, …]` or some of them ↦ one number.
        draws: independent ones, of the same distribution, along the first axis; two or fewer leave no bounds.

    Examples:
        >>> import torch
        >>> from gm_estimators.diagnose import jackknife
        >>> found = jackknife(torch.mean, torch.tensor([1.0, 2.0, 3.0]))
        >>> print(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
        2.00 [-0.48, 4.48]
    """
    value, count = float(statistic(draws)), len(draws)
    if count < 3:
        return Estimate(value, -math.inf, math.inf)
    every = torch.arange(count, device=draws.device)
    without = torch.stack([statistic(draws[every != i]) for i in range(count)])
    half = student_t_quantile(0.975, count - 1) * float(((count - 1) * without.var(correction=0)).sqrt())
    return Estimate(value, value - half, value + half)
