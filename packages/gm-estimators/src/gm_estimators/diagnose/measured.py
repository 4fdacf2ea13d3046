"""What a diagnosis has measured: vectors by repeat, and the numbers made of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.attribution import subsets
from gm_estimators.diagnose.jackknife import Estimate
from gm_estimators.diagnose.loop import Loop
from gm_estimators.diagnose.pairs import Kernel, each, half_width, inner, ratio, ratios, repeats_for, shares
from gm_estimators.diagnose.sources import Config, config_of, sources_of
from gm_estimators.estimator import Estimator


@dataclass(frozen=True)
class Sampled:
    """Vectors of independent repeats.

    Attributes:
        reference: the ideal meta-gradient, extrapolated from B blocks.
        coarser: the same from B/2 blocks.
        estimates: by config, the mean over blocks.
        variances: by the config of a whole loop, the variance over the blocks of a repeat.
    """

    reference: Float[Tensor, "repeat size"]
    coarser: Float[Tensor, "repeat size"]
    estimates: Mapping[Config, Float[Tensor, "repeat size"]]
    variances: Mapping[Config, Float[Tensor, " repeat"]]

    def joined(self, other: "Sampled") -> "Sampled":
        """Both, these repeats first."""
        return Sampled(
            torch.cat([self.reference, other.reference]), torch.cat([self.coarser, other.coarser]),
            {config: torch.cat([x, other.estimates[config]]) for config, x in self.estimates.items()},
            {config: torch.cat([x, other.variances[config]]) for config, x in self.variances.items()},
        )  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How wrong an estimator is in the loop, in units of ‖g‖², g the ideal meta-gradient.

    Attributes:
        bias_sq: ‖E[d] − g‖² / ‖g‖².
        along: ⟨E[d] − g, g⟩ / ‖g‖², how much too long the estimates are along g.
        variance: tr Cov[d] / ‖g‖², of one estimate.
        mse: E‖d − g‖² / ‖g‖².
        shares: of bias_sq by source: Shapley values, which sum to it.
        along_shares: of along by source.
    """

    bias_sq: Estimate
    along: Estimate
    variance: Estimate
    mse: Estimate
    shares: dict[str, Estimate]
    along_shares: dict[str, Estimate]


def verdict(sampled: Sampled, loop: Loop, estimator: Estimator) -> Verdict:
    """What the vectors say of one estimator."""
    sources = sources_of(loop, estimator)
    squares, lengths = kernels(sampled, loop, estimator)
    whole, unit = frozenset(sources), inner(sampled.reference, sampled.reference)
    bias_sq, spread = squares[whole], each(sampled.variances[config_of(loop, estimator, sources)])
    mse = Kernel(*(x + y for x, y in zip(bias_sq, spread, strict=True)))
    found = iter(ratios([
        bias_sq, lengths[whole], spread, mse, *shares(squares, sources).values(), *shares(lengths, sources).values(),
    ], unit))  # fmt: skip
    return Verdict(
        next(found), next(found), next(found), next(found), {name: next(found) for name in sources},
        {name: next(found) for name in sources},
    )  # fmt: skip


def kernels(
    sampled: Sampled, loop: Loop, estimator: Estimator
) -> tuple[dict[frozenset[str], Kernel], dict[frozenset[str], Kernel]]:
    """The kernels of ‖E[d] − g‖² and of ⟨E[d] − g, g⟩ for every set of sources."""
    squares, lengths = {}, {}
    for some in subsets(sources_of(loop, estimator)):
        error = torch.zeros_like(sampled.reference)
        if some:
            error = sampled.estimates[config_of(loop, estimator, some)] - sampled.reference
        squares[some], lengths[some] = inner(error, error), inner(error, sampled.reference)
    return squares, lengths


def remaining(sampled: Sampled) -> Estimate:
    """What the reference itself is still off by, about, as a share of ‖g‖²: ‖d(B) − d(B/2)‖² / 9.

    Extrapolated, d(m) is off by c / m² and more, so that half the blocks are off by four times as much.
    """
    off = (sampled.coarser - sampled.reference) / 3
    return ratio(inner(off, off), inner(sampled.reference, sampled.reference))


def length(sampled: Sampled) -> Estimate:
    """‖g‖²."""
    return ratio(inner(sampled.reference, sampled.reference))


def repeats_to_tell(
    sampled: Sampled, loop: Loop, estimator: Estimator, half: float
) -> tuple[float, float, float]:  # fmt: skip
    """How many repeats would have the interval of bias_sq about that half width, and at least and at most.

    The variance depends on bias_sq, and its unit is ‖g‖². Both are as estimated, or at those ends of their intervals
    that need fewest or most. No answer is less than what there is, and the last one is infinite without an interval.
    """
    error = sampled.estimates[config_of(loop, estimator, sources_of(loop, estimator))] - sampled.reference
    above, unit, scale = inner(error, error), inner(sampled.reference, sampled.reference), length(sampled)
    found = ratio(above, unit)

    def needed(bias_sq: float, square: float) -> float:
        width = half_width(above, unit, bias_sq) * scale.value / square
        return max(repeats_for(error, width, half), len(error))

    about = needed(found.value, scale.value)
    if not (scale.low > 0 and math.isfinite(found.high)):
        return about, len(error), math.inf
    return about, min(about, needed(found.low, scale.high)), max(about, needed(found.high, scale.low))


def repeats_to_see(sampled: Sampled) -> tuple[float, float]:
    """How many repeats would tell ‖g‖² apart from 0, if it is as large as estimated, and as its interval allows."""
    found, now = length(sampled), half_width(inner(sampled.reference, sampled.reference))
    about = repeats_for(sampled.reference, now, found.value) if found.value > 0 else math.inf
    return about, repeats_for(sampled.reference, now, found.high)
