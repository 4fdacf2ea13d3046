"""The claims of the paper about LIRPG, as docs/claims.toml says they are decided."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise, product
from typing import TYPE_CHECKING

from gm_experiments.common.claims import ACCURACY, BIAS, VARIANCE, Claim, Evidence
from gm_experiments.common.labels import ESTIMATORS
from gm_experiments.lirpg.own_claims import OWN
from gm_experiments.lirpg.settings import GRID, Settings
from gm_lab import analysis
from gm_lab.analysis import Comparison, above, at_least, at_most, check, log_ratio, ratio_above, within
from gm_lab.analysis.comparisons import paired

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 1e-12
"""Largest relative difference of what is equal by algebra."""
LEAST, MIDDLE, MOST = GRID.sample_sizes[0], GRID.sample_sizes[2], GRID.sample_sizes[-1]


class Measured:
    """What Figures 1(c,d) and 7 measure, by estimator, size and K, at the paper's α and permutation."""

    def __init__(self, frame: "pd.DataFrame") -> None:
        self._at = Evidence(frame, ("fig1", "fig7"), ("sample_size", "inner_steps", "inner_lr"))
        self.asked = self._at.asked

    def __call__(self, name: str, size: int, step: int, metric: str = "accuracy") -> "pd.Series[float]":
        """A metric by MDP, empty if it was not measured."""
        return self._at(name, GRID.permutations[0], size, step, GRID.inner_lrs[0], metric=metric)

    def bias(self, name: str, size: int, step: int) -> "pd.Series[float]":
        """Squared bias / ‖∇φJ‖² by MDP."""
        return self(name, size, step, "bias_sq") / self(name, size, step, "truth_sq")


def equal_at_one_step(at: Measured) -> Iterator[Comparison]:
    """AD and LVC have the same numbers up to rounding."""
    import numpy as np

    for size, metric in product(GRID.sample_sizes, ("accuracy", "variance")):
        label = f"{metric} at {size}"
        first, second = (at(name, size, 1, metric) for name in ("lvc", "ad"))
        # of the MDPs that both have, since one may have been drawn further; none if one is missing or NaN
        difference = paired(first, second)
        if difference is None:
            yield check(label, None, "no data")
            continue
        gap = float(np.abs(np.asarray(difference)).max() / first.abs().max())
        yield within(label, gap, ROUNDING, f"largest relative difference {gap:.1e}")


def accurate_with_samples_and_few_steps(at: Measured) -> Iterator[Comparison]:
    """More samples raise the accuracy at every K, and with most of them every further step lowers it."""
    for name in ("lvc", "ad"):
        for step in GRID.inner_steps:
            label = f"accuracy of {ESTIMATORS[name]} at K = {step}: {MOST} > {LEAST} trajectories"
            yield above(label, at(name, MOST, step), at(name, LEAST, step), ACCURACY)
        for fewer, more in pairwise(GRID.inner_steps):
            label = f"accuracy of {ESTIMATORS[name]} at {MOST} trajectories: K = {fewer} > {more}"
            yield above(label, at(name, MOST, fewer), at(name, MOST, more), ACCURACY)


def lvc_stays_accurate(at: Measured) -> Iterator[Comparison]:
    """After five steps LVC is above 0.9 and AD below 0.7."""
    yield at_least(f"accuracy of LVC at K = 5, {MOST} > 0.9", at("lvc", MOST, 5), 0.9, ACCURACY)
    yield at_most(f"accuracy of AD at K = 5, {MOST} < 0.7", at("ad", MOST, 5), 0.7, ACCURACY)


def ad_varies_more(at: Measured) -> Iterator[Comparison]:
    """The logarithm of AD's variance over LVC's, MDP by MDP, is positive and grows with K."""

    def variances(size: int, step: int) -> "list[pd.Series[float]]":
        return [at(name, size, step, "variance") for name in ("ad", "lvc")]

    for size in (LEAST, MIDDLE, MOST):
        early, late = (variances(size, step) for step in (2, 5))
        for step, (ad, lvc) in ((2, early), (5, late)):
            yield ratio_above(f"variance of AD > LVC at K = {step}, {size}", ad, lvc, VARIANCE)
        label = f"ratio of variances of AD and LVC at {size}: K = 5 > 2"
        yield above(label, log_ratio(*late), log_ratio(*early), VARIANCE)


def ad_is_biased_more(at: Measured) -> Iterator[Comparison]:
    """The second step biases AD, and more than LVC; further ones cost it accuracy.

    Where a path ends in a policy that no longer explores, ‖∇φJ‖ is tiny, and no bias in its units has a mean.
    """
    bias = partial(at.bias, size=MOST)
    yield above(f"squared bias of AD at {MOST}: K = 2 > 1", bias("ad", step=2), bias("ad", step=1), BIAS)
    yield above(f"squared bias of AD > LVC at K = 2, {MOST}", bias("ad", step=2), bias("lvc", step=2), BIAS)
    yield above(f"accuracy of AD at {MOST}: K = 2 > 5", at("ad", MOST, 2), at("ad", MOST, 5), ACCURACY)


CLAIMS: tuple[Claim[Measured], ...] = (
    Claim("LIRPG-1", "K = 1: AD and LVC perform alike (they are equal by algebra)", (equal_at_one_step,)),
    Claim("LIRPG-2", "more samples and fewer steps raise accuracy for both", (accurate_with_samples_and_few_steps,)),
    Claim("LIRPG-3", "K = 5: LVC keeps high accuracy, AD falls low", (lvc_stays_accurate,)),
    Claim("LIRPG-4", "AD's variance is the higher, more so as K grows", (ad_varies_more,)),
    Claim("LIRPG-5", "AD's Hessian biases the meta-gradient, the more the more steps there are", (ad_is_biased_more,)),
)


def claims(settings: Settings, frame: "pd.DataFrame") -> list[analysis.Verdict]:
    """The verdicts on what the chosen figures are about: LIRPG-1 to LIRPG-5, and what we say about entropy."""
    paper = [] if settings.figure == ("entropy",) else CLAIMS
    verdicts = [claim.verdict(Measured(frame)) for claim in paper]
    own = OWN if "entropy" in settings.figure else ()
    entropy = Evidence(frame, ("entropy",), ("sample_size", "inner_steps"))
    return verdicts + [claim.verdict(entropy) for claim in own]
