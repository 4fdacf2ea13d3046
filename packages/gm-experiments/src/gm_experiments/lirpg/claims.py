"""The claims of the paper about LIRPG, as docs/claims.toml says they are decided."""

from collections.abc import Iterator
from itertools import pairwise, product
from typing import TYPE_CHECKING

from gm_experiments.common.claims import ACCURACY, VARIANCE, Claim, Evidence
from gm_experiments.common.labels import ESTIMATORS
from gm_experiments.lirpg.own_claims import OWN
from gm_experiments.lirpg.settings import GRID, Settings
from gm_lab import analysis
from gm_lab.analysis import Comparison, above, at_least, at_most, check, log_ratio, ratio_above, within

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 1e-12
"""Largest relative difference of what is equal by algebra."""


def equal_at_one_step(at: Evidence) -> Iterator[Comparison]:
    """AD and LVC have the same numbers up to rounding."""
    for size, metric in product(GRID.sample_sizes, ("accuracy", "variance")):
        label = f"{metric} at {size}"
        first, second = (at(name, "ESE", size, 1, metric=metric) for name in ("lvc", "ad"))
        if len(first) == 0 or len(second) == 0:
            yield check(label, None, "no data")
            continue
        # an MDP that one of them lacks, or where one is NaN, makes it NaN
        gap = float((first - second).abs().max(skipna=False) / first.abs().max())
        yield within(label, gap, ROUNDING, f"largest relative difference {gap:.1e}")


def accurate_with_samples_and_few_steps(at: Evidence) -> Iterator[Comparison]:
    """More samples raise the accuracy at every K, and with most of them every further step lowers it."""
    least, most = GRID.sample_sizes[0], GRID.sample_sizes[-1]
    for name in ("lvc", "ad"):
        for step in GRID.inner_steps:
            label = f"{ESTIMATORS[name]} at K = {step}: {most} > {least} trajectories"
            yield above(label, at(name, "ESE", most, step), at(name, "ESE", least, step), ACCURACY)
        for fewer, more in pairwise(GRID.inner_steps):
            label = f"{ESTIMATORS[name]} at {most} trajectories: K = {fewer} > {more}"
            yield above(label, at(name, "ESE", most, fewer), at(name, "ESE", most, more), ACCURACY)


def lvc_stays_accurate(at: Evidence) -> Iterator[Comparison]:
    """After five steps LVC is above .9 and AD below .7."""
    yield at_least("LVC at 256 > .9", at("lvc", "ESE", 256, 5), 0.9, ACCURACY)
    yield at_most("AD at 256 < .7", at("ad", "ESE", 256, 5), 0.7, ACCURACY)


def ad_varies_more(at: Evidence) -> Iterator[Comparison]:
    """The logarithm of AD's variance over LVC's, MDP by MDP, is positive and grows with K."""

    def variances(size: int, step: int) -> "list[pd.Series[float]]":
        return [at(name, "ESE", size, step, metric="variance") for name in ("ad", "lvc")]

    for k, n in product(GRID.inner_steps[1:], GRID.sample_sizes):
        ad, lvc = variances(n, k)
        yield ratio_above(f"variance of AD > LVC at K = {k}, {n}", ad, lvc, VARIANCE)
    for n in GRID.sample_sizes:
        (late_ad, late_lvc), (early_ad, early_lvc) = (variances(n, k) for k in (5, 2))
        late, early = log_ratio(late_ad, late_lvc), log_ratio(early_ad, early_lvc)
        yield above(f"log ratio of variances, AD / LVC, at {n}: K = 5 > 2", late, early, VARIANCE)


CLAIMS: tuple[Claim[Evidence], ...] = (
    Claim("LIRPG-1", "K = 1: AD and LVC perform alike (they are equal by algebra)", (equal_at_one_step,)),
    Claim("LIRPG-2", "more samples and fewer steps raise accuracy for both", (accurate_with_samples_and_few_steps,)),
    Claim("LIRPG-3", "K = 5: LVC keeps high accuracy, AD falls low", (lvc_stays_accurate,)),
    Claim("LIRPG-4", "AD's variance is the higher, more so as K grows", (ad_varies_more,)),
)


def claims(settings: Settings, frame: "pd.DataFrame") -> list[analysis.Verdict]:
    """The verdicts on what the chosen figures are about: LIRPG-1 to LIRPG-4, and what we say about entropy."""
    axes = ("sample_size", "inner_steps")
    paper = [] if settings.figure == ("entropy",) else CLAIMS
    verdicts = [claim.verdict(Evidence(frame, ("fig1", "fig7"), axes)) for claim in paper]
    own = OWN if "entropy" in settings.figure else ()
    return verdicts + [claim.verdict(Evidence(frame, ("entropy",), axes)) for claim in own]
