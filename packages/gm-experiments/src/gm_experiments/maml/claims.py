"""The claims of the paper about MAML, as docs/claims.toml says they are decided."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise, product
from typing import TYPE_CHECKING, NamedTuple

from gm_experiments.common.claims import ACCURACY, BIAS, VARIANCE, Claim, Figures
from gm_experiments.common.labels import ESTIMATORS
from gm_experiments.maml.settings import FIGURES, POWERS, Settings
from gm_experiments.theory import claims as theory
from gm_lab import analysis
from gm_lab.analysis import Comparison, above, alike, at_least, at_most, near, ratio_above

if TYPE_CHECKING:
    import pandas as pd

AXES = ("sample_size", "inner_steps", "inner_lr")
SOURCES = {figure: ((figure,), AXES) for figure in FIGURES} | {"fig1": (("fig1", "fig4"), AXES)}
"""What is looked up where: fig4 has all that fig1 has."""
METRICS = {"accuracy": ACCURACY, "variance": VARIANCE, "squared bias": BIAS}
"""What is compared: variances as logarithms, squared biases in units of ‖∇φJ‖²."""
RELATIONS = {"accuracy": above, "variance": ratio_above, "squared bias": above}

Side = tuple[str, str]
"""Estimator and permutation."""
Part = Callable[[Figures], Iterator[Comparison]]


class Point(NamedTuple):
    """Where estimators are compared: a figure, the name of the point in words, and (size, K, α)."""

    figure: str
    name: str
    at: tuple[int, int, float]


def sizes(figure: str, *chosen: int) -> tuple[Point, ...]:
    """The points at some numbers of trajectories of Figures 1 and 4, K = 1 and α = 10."""
    grid = FIGURES[figure]
    return tuple(Point(figure, str(size), (size, grid.inner_steps[0], grid.inner_lrs[0])) for size in chosen)


def end(last: int) -> tuple[Point, Point]:
    """The first or last points of Figures 6 and 5: 32 trajectories, and the smallest or largest K and α."""
    steps, rates = FIGURES["fig6"], FIGURES["fig5"]
    k, a = steps.inner_steps[last], rates.inner_lrs[last]
    return (
        Point("fig6", f"K = {k}", (steps.sample_sizes[0], k, steps.inner_lrs[0])),
        Point("fig5", f"α = {a:g}", (rates.sample_sizes[0], rates.inner_steps[0], a)),
    )


EVERY, ENDS = sizes("fig4", *POWERS), sizes("fig4", 4, 32, 256)
"""Where the paper names sizes, these are taken; where it does not: few, some and many."""
FEW, SOME, MANY = sizes("fig1", 2, 4, 8, 16), sizes("fig4", 16, 32, 64), sizes("fig4", 64, 128, 256)
SMALL, LARGE = end(0), end(-1)
EXACT_HESSIAN, SAMPLED_HESSIAN = ("SES", "EES", "SEE"), ("SSS", "ESS", "SSE", "ESE")
ACTOR_CRITIC, FAMILIES = ("lvc", "loaded_dice", "ad"), ("lvc", "dice")
"""With an exact Hessian AD, Loaded-DiCE and LVC are one estimator: one of them stands for all."""


def of(estimator: str, *permutations: str) -> tuple[Side, ...]:
    """Permutations of one estimator."""
    return tuple((estimator, permutation) for permutation in permutations)


def ordered(sides: Sequence[Side], points: Sequence[Point], quantity: str = "accuracy") -> Part:
    """Each side has more of a quantity than the next one, at every point."""
    return partial(_compared, sides, points, quantity, ">")


def equal(sides: Sequence[Side], points: Sequence[Point]) -> Part:
    """Each side is as accurate as the next one, at every point."""
    return partial(_compared, sides, points, "accuracy", "≈")


def better(high: str, low: str, permutations: Sequence[str], points: Sequence[Point]) -> tuple[Part, ...]:
    """One estimator is more accurate than another in the same permutations."""
    return tuple(ordered(((high, permutation), (low, permutation)), points) for permutation in permutations)


def falls(side: Side) -> Part:
    """The accuracy at the smallest K and α is above that at the largest."""
    return partial(_changed, side, "accuracy", SMALL, LARGE)


def grows(side: Side) -> Part:
    """The variance at the largest K and α is above that at the smallest."""
    return partial(_changed, side, "variance", LARGE, SMALL)


def _compared(
    sides: Sequence[Side], points: Sequence[Point], quantity: str, sign: str, figures: Figures
) -> Iterator[Comparison]:
    relation = alike if sign == "≈" else RELATIONS[quantity]
    for point, (high, low) in product(points, pairwise(sides)):
        label = f"{quantity} of {_name(high)} {sign} {_name(low, high)} at {point.name}"
        first, second = (_values(side, point, quantity, figures) for side in (high, low))
        yield relation(label, first, second, METRICS[quantity])


def _changed(
    side: Side, quantity: str, highs: Sequence[Point], lows: Sequence[Point], figures: Figures
) -> Iterator[Comparison]:
    for high, low in zip(highs, lows, strict=True):
        label = f"{quantity} of {_name(side)}: {high.name} > {low.name}"
        first, second = (_values(side, point, quantity, figures) for point in (high, low))
        yield RELATIONS[quantity](label, first, second, METRICS[quantity])


def _values(side: Side, point: Point, quantity: str, figures: Figures) -> "pd.Series[float]":
    measured = partial(figures[point.figure], *side, *point.at)
    if quantity == "squared bias":
        return measured(metric="bias_sq") / measured(metric="truth_sq")
    return measured(metric=quantity)


def _name(side: Side, after: Side = ("", "")) -> str:
    """A side in words, shorter after one with the same estimator or permutation."""
    words = [ESTIMATORS[side[0]]] * (side[0] != after[0]) + [side[1]] * (side[1] != after[1])
    return " ".join(words)


def gaps_shrink(figures: Figures) -> Iterator[Comparison]:
    """The difference of SSE and another permutation of LVC is larger at a small sample than at a large one."""
    few, many = sizes("fig1", 4, 256)
    for high in ("SEE", "ESE"):
        small, large = (_gap(high, point, figures) for point in (few, many))
        yield above(f"accuracy of LVC {high} − SSE: at 4 > at 256", small, large, ACCURACY)


def _gap(permutation: str, point: Point, figures: Figures) -> "pd.Series[float]":
    first, second = (_values(("lvc", p), point, "accuracy", figures) for p in (permutation, "SSE"))
    both = first.index.intersection(second.index)  # one may have been drawn further, for another claim
    return first.loc[both] - second.loc[both]


def only_an_exact_hessian_gets_there(figures: Figures) -> Iterator[Comparison]:
    """The accuracy of AD approaches 1 with an exact Hessian, and stays below 0.85 with a sampled one."""
    (many,) = sizes("fig1", 256)
    exact, *sampled = (_values(("ad", p), many, "accuracy", figures) for p in ("SEE", "ESE", "SSE"))
    yield at_least("accuracy of AD SEE at 256 > 0.97", exact, 0.97, ACCURACY)
    for permutation, values in zip(("ESE", "SSE"), sampled, strict=True):
        yield at_most(f"accuracy of AD {permutation} at 256 < 0.85", values, 0.85, ACCURACY)


def lvc_has_no_bias_that_matters(figures: Figures) -> Iterator[Comparison]:
    """What LVC's Hessian alone adds to the squared bias is below the smallest difference that matters."""
    (many,) = sizes("fig4", 256)
    values = _values(("lvc", "ESE"), many, "squared bias", figures)
    yield near("squared bias of LVC ESE at 256 ≈ 0", values, 0.0, BIAS)


def both_biases_exist(figures: Figures) -> Iterator[Comparison]:
    """Composition with few samples, AD's Hessian with many, and both: more bias than what is too small to matter."""
    for side, point in zip((("lvc", "SEE"), ("ad", "SSS"), ("ad", "ESE")), ENDS, strict=True):
        values = _values(side, point, "squared bias", figures)
        yield at_least(f"squared bias of {_name(side)} at {point.name} > {BIAS.delta:g}", values, BIAS.delta, BIAS)


def _worst() -> Iterator[Part]:
    for permutation in EXACT_HESSIAN:
        yield from better("lvc", "dice", (permutation,), ENDS)
    for name in ACTOR_CRITIC:
        yield from better(name, "dice", SAMPLED_HESSIAN, ENDS)


OUTER = (("SSE", "SSS"), ("SEE", "SES"), ("ESE", "ESS"), ("SSE", "SES"), ("SSE", "ESS"))
"""The outer gradient corrected alone, and instead of the Hessian or the inner gradient."""
CHAIN = ("EES", "SES", "ESS", "SSS")
COMPOSED = {
    "sampled outer": (*(of(x, "ESS", "SSS") for x in ESTIMATORS), *(of(x, "EES", "SES") for x in FAMILIES)),
    "exact outer, noisy Hessian": tuple(of(x, "ESE", "SSE") for x in ("dice", "loaded_dice")),
    "exact outer, quiet Hessian": tuple(of(x, "SSE", "ESE") for x in ("lvc", "ad")),
}
"""What an exact composition is said to do to the variance: pairs of more and less."""


def vary(pairs: Sequence[Sequence[Side]], points: Sequence[Point]) -> tuple[Part, ...]:
    """The first of each pair has the higher variance."""
    return tuple(ordered(pair, points, "variance") for pair in pairs)


CLAIMS: tuple[Claim[Figures], ...] = (
    Claim("MAML-1", "LVC, K = 1, few samples: SEE ≈ ESE > SSE",
        (equal(of("lvc", "SEE", "ESE"), FEW), *(ordered(of("lvc", high, "SSE"), FEW) for high in ("SEE", "ESE")))),
    Claim("MAML-2", "the gap between those three shrinks as the sample size grows", (gaps_shrink,)),
    Claim("MAML-3", "AD, K = 1: SEE > ESE at every size", (ordered(of("ad", "SEE", "ESE"), sizes("fig1", *POWERS)),)),
    Claim("MAML-4", "AD: only SEE approaches accuracy 1; a sampled Hessian stays biased",
        (only_an_exact_hessian_gets_there,)),
    Claim("MAML-5", "the outer gradient matters most: SSE, SEE, ESE > SSS, SES, ESS",
        tuple(ordered(of(name, *pair), ENDS) for name, pair in product(ESTIMATORS, OUTER))),
    Claim("MAML-6", "LVC with a sampled outer gradient: EES > SES > ESS > SSS", (ordered(of("lvc", *CHAIN), ENDS),)),
    Claim("MAML-7", "DiCE is worst in every case", tuple(_worst())),
    Claim("MAML-8", "sampled outer gradient: LVC and Loaded-DiCE comparable in accuracy, LVC's variance smaller",
        tuple(part for permutation in ("SSS", "ESS") for part in (
            equal((("lvc", permutation), ("loaded_dice", permutation)), ENDS),
            *vary([(("loaded_dice", permutation), ("lvc", permutation))], ENDS)))),
    Claim("MAML-9", "AD below LVC and Loaded-DiCE wherever the Hessian is sampled",
        tuple(part for name in ("lvc", "loaded_dice") for part in better(name, "ad", SAMPLED_HESSIAN, MANY))),
    Claim("MAML-10", "exact outer: LVC ESE ≈ SEE > SSE; Loaded-DiCE SEE > ESE > SSE",
        (equal(of("lvc", "ESE", "SEE"), SOME), *(ordered(of("lvc", high, "SSE"), SOME) for high in ("SEE", "ESE")),
         ordered(of("loaded_dice", "SEE", "ESE", "SSE"), SOME))),
    Claim("MAML-11", "more steps or a larger α: SSE loses much accuracy in every estimator",
        tuple(falls((name, "SSE")) for name in ESTIMATORS)),
    Claim("MAML-12", "large K or α: LVC and Loaded-DiCE SEE ≈ ESE, SES ≈ ESS; AD: the Hessian error dominates",
        tuple((ordered if name == "ad" else equal)(of(name, *pair), LARGE)
            for name, pair in product(ACTOR_CRITIC, (("SEE", "ESE"), ("SES", "ESS"))))),
    Claim("MAML-13",
        "correcting the composition raises variance; only for LVC and AD with an exact outer gradient it lowers it",
        tuple(part for pairs in COMPOSED.values() for part in vary(pairs, ENDS))),
    Claim("MAML-14", "AD, DiCE and Loaded-DiCE with a sampled outer gradient: EES > SES > ESS > SSS",
        # with an exact Hessian AD and Loaded-DiCE are LVC
        (ordered(of("dice", *CHAIN), ENDS), *(ordered(of(x, *CHAIN[1:]), ENDS) for x in ("ad", "loaded_dice")))),
    Claim("MAML-15", "correcting the composition raises accuracy in every estimator",
        (*(ordered(of(name, *pair), ENDS) for name, pair in product(ESTIMATORS, (("ESS", "SSS"), ("ESE", "SSE")))),
         *(ordered(of(name, "EES", "SES"), ENDS) for name in FAMILIES))),
    Claim("MAML-16", "AD below LVC and Loaded-DiCE at every size where the Hessian is sampled",
        tuple(part for name in ("lvc", "loaded_dice") for part in better(name, "ad", SAMPLED_HESSIAN, EVERY))),
    Claim("MAML-17", "AD's Hessian has a large bias and a low variance, LVC's a low bias and a low variance",
        (ordered((("ad", "ESE"), ("lvc", "ESE")), sizes("fig4", 256), "squared bias"), lvc_has_no_bias_that_matters,
         *vary([((x, "ESE"), (y, "ESE")) for x, y in product(("dice", "loaded_dice"), ("lvc", "ad"))], ENDS))),
    Claim("MAML-18", "DiCE's gradient and Hessian have the highest variance",
        vary([(("dice", p), (x, p)) for p, x in (("EES", "lvc"), *product(("ESE",), ACTOR_CRITIC))], ENDS)),
    Claim("MAML-19", "large K or α: what the inner loop samples matters more than the outer gradient",
        tuple(ordered(of(name, "EES", "SSE"), LARGE) for name in ESTIMATORS)),
    Claim("MAML-20", "more steps or a larger α: AD loses accuracy by its Hessian alone", (falls(("ad", "ESE")),)),
    Claim("MAML-21", "more steps or a larger α: composition alone costs more accuracy",
        tuple(falls((name, "SEE")) for name in FAMILIES)),
    Claim("MAML-22", "more steps or a larger α: the variance grows in every estimator",
        tuple(grows((name, "SSE")) for name in ESTIMATORS)),
    Claim("MAML-23", "large K or α: correcting the composition raises variance with a sampled outer gradient",
        vary(COMPOSED["sampled outer"], LARGE)),
    Claim("MAML-24", "large K or α: with an exact outer gradient it raises that of DiCE and Loaded-DiCE",
        vary(COMPOSED["exact outer, noisy Hessian"], LARGE)),
    Claim("MAML-25", "large K or α: with an exact outer gradient it lowers that of LVC and AD",
        vary(COMPOSED["exact outer, quiet Hessian"], LARGE)),
    Claim("MAML-26", "composition and AD's Hessian each bias the meta-gradient, and so do both", (both_biases_exist,)),
)  # fmt: skip


def claims(settings: Settings, frame: "pd.DataFrame") -> list[analysis.Verdict]:
    """The verdicts on what the chosen figures are about: MAML-1 to MAML-26, and those of theory."""
    figures = Figures(frame, SOURCES)
    verdicts = [] if settings.figure == ("theory",) else [claim.verdict(figures) for claim in CLAIMS]
    return verdicts + (theory.claims(frame) if "theory" in settings.figure else [])
