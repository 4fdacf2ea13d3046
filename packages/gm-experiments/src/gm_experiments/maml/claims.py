"""The claims of the paper about MAML, as docs/claims.toml says they are decided."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise, product
from typing import TYPE_CHECKING

from gm_experiments.common.claims import ACCURACY, VARIANCE, Claim, Evidence, Figures
from gm_experiments.common.labels import ESTIMATORS
from gm_experiments.maml.settings import POWERS, Settings
from gm_experiments.theory import claims as theory
from gm_lab import analysis
from gm_lab.analysis import Comparison, Metric, above, alike, at_least, at_most, ratio_above

if TYPE_CHECKING:
    import pandas as pd

FEW, SOME, MANY = (2, 4, 8, 16), (16, 32, 64), (64, 128, 256)
EXACT_OUTER, SAMPLED_OUTER = ("SSE", "SEE", "ESE"), ("SSS", "SES", "ESS")
ACTOR_CRITIC = ("lvc", "loaded_dice", "ad")
VARIED = {"fig6": ("inner_steps", "K"), "fig5": ("inner_lr", "α")}
"""The figures whose ends are compared, with what they vary."""

SOURCES = {
    "fig1": (("fig1", "fig4"), ("sample_size",)),
    "fig4": (("fig4",), ("sample_size",)),
    **{figure: ((figure,), (axis,)) for figure, (axis, _) in VARIED.items()},
}
"""What is measured over sample sizes in fig4, and with K = 1 in fig1, too; over K in fig6, over α in fig5."""
Relation = Callable[[str, "pd.Series[float]", "pd.Series[float]", Metric], Comparison]
SIGNS: dict[Relation, str] = {above: ">", alike: "≈", ratio_above: ">"}


def ordered(
    estimator: str, chain: Sequence[str], sizes: Sequence[int], figures: Figures, *,
    of: str = "fig4", metric: str = "accuracy", relation: Relation = above,
) -> Iterator[Comparison]:  # fmt: skip
    """Each permutation of a chain is above the next one, or like it, at every size."""
    for size in sizes:
        for pair in pairwise(chain):
            first, second = (figures[of](estimator, permutation, size, metric=metric) for permutation in pair)
            label = f"{ESTIMATORS[estimator]} {pair[0]} {SIGNS[relation]} {pair[1]} at {size}"
            yield relation(label, first, second, VARIANCE if relation is ratio_above else ACCURACY)


equal = partial(ordered, relation=alike)


def better(
    high: str, low: str, permutations: Sequence[str], sizes: Sequence[int], figures: Figures
) -> Iterator[Comparison]:
    """One estimator is above another in the same permutations, at every size."""
    for permutation, size in product(permutations, sizes):
        first, second = (figures["fig4"](name, permutation, size) for name in (high, low))
        yield above(f"{ESTIMATORS[high]} > {ESTIMATORS[low]} in {permutation} at {size}", first, second, ACCURACY)


def gaps_shrink(figures: Figures) -> Iterator[Comparison]:
    """The difference of SSE and another permutation of LVC is larger at the smallest size than at the largest."""
    for high in ("SEE", "ESE"):
        small, large = (figures["fig1"]("lvc", high, size) - figures["fig1"]("lvc", "SSE", size) for size in (4, 256))
        yield above(f"gap {high} − SSE at 4 > at 256", small, large, ACCURACY)


def only_an_exact_hessian_gets_there(figures: Figures) -> Iterator[Comparison]:
    """The accuracy of AD approaches 1 with an exact Hessian, and stays below .85 with a sampled one."""
    yield at_least("AD SEE at 256 > .97", figures["fig1"]("ad", "SEE", 256), 0.97, ACCURACY)
    yield at_most("AD ESE at 256 < .85", figures["fig1"]("ad", "ESE", 256), 0.85, ACCURACY)


def less_variance_alone(figures: Figures) -> Iterator[Comparison]:
    """With everything sampled LVC is as accurate as Loaded-DiCE and varies less."""
    for size in (16, 32, *MANY):
        lvc, loaded = (partial(figures["fig4"], name, "SSS", size) for name in ("lvc", "loaded_dice"))
        yield alike(f"accuracy at {size}", lvc(), loaded(), ACCURACY)
        of_loaded, of_lvc = (some(metric="variance") for some in (loaded, lvc))
        yield ratio_above(f"variance of Loaded-DiCE > LVC at {size}", of_loaded, of_lvc, VARIANCE)


def _ends(figures: Figures) -> Iterator[tuple[Evidence, str, float, float]]:
    """For fig6 and fig5: what is measured, what varies, its smallest and its largest value."""
    for figure, (axis, unit) in VARIED.items():
        points = figures[figure].points(axis) or [0.0]
        yield figures[figure], unit, points[0], points[-1]


def loses_accuracy(figures: Figures) -> Iterator[Comparison]:
    """SSE is less accurate at the largest K or α than at the smallest, in every estimator."""
    for evidence, unit, small, large in _ends(figures):
        for name, label in ESTIMATORS.items():
            first, second = (evidence(name, "SSE", point) for point in (small, large))
            yield above(f"{label} SSE at {unit} = {small:g} > at {large:g}", first, second, ACCURACY)


def only_ad_suffers_from_its_hessian(figures: Figures) -> Iterator[Comparison]:
    """At the largest K or α a sampled Hessian costs AD more than a sampled inner gradient, and the others as much."""
    for evidence, unit, _, large in _ends(figures):
        for (first, second), name in product((("SEE", "ESE"), ("SES", "ESS")), ("lvc", "loaded_dice", "ad")):
            relation = above if name == "ad" else alike
            label = f"{ESTIMATORS[name]} {first} {SIGNS[relation]} {second} at {unit} = {large:g}"
            yield relation(label, evidence(name, first, large), evidence(name, second, large), ACCURACY)


CLAIMS: tuple[Claim[Figures], ...] = (
    Claim("MAML-1", "LVC, K = 1, few samples: SEE ≈ ESE > SSE",
        (partial(equal, "lvc", ("SEE", "ESE"), FEW, of="fig1"),
         *(partial(ordered, "lvc", (high, "SSE"), FEW, of="fig1") for high in ("SEE", "ESE")))),
    Claim("MAML-2", "the gap between those three shrinks as the sample size grows", (gaps_shrink,)),
    Claim("MAML-3", "AD, K = 1: SEE > ESE at every size", (partial(ordered, "ad", ("SEE", "ESE"), POWERS, of="fig1"),)),
    Claim("MAML-4", "AD: only SEE approaches accuracy 1; a sampled Hessian stays biased",
        (only_an_exact_hessian_gets_there,)),
    Claim("MAML-5", "the outer gradient matters most: SSE, SEE, ESE > SSS, SES, ESS",
        tuple(partial(ordered, *at, POWERS) for at in product(ACTOR_CRITIC, product(EXACT_OUTER, SAMPLED_OUTER)))),
    Claim("MAML-6", "LVC with a sampled outer gradient: EES > SES > ESS > SSS",
        (partial(ordered, "lvc", ("EES", "SES", "ESS", "SSS"), POWERS),)),
    Claim("MAML-7", "DiCE is worst in every case",
        tuple(partial(better, name, "dice", (*SAMPLED_OUTER, "EES", *EXACT_OUTER), POWERS) for name in ACTOR_CRITIC)),
    Claim("MAML-8", "SSS: LVC and Loaded-DiCE comparable in accuracy, LVC's variance smaller", (less_variance_alone,)),
    Claim("MAML-9", "AD below LVC and Loaded-DiCE wherever the Hessian is sampled",
        tuple(partial(better, name, "ad", ("SSE", "ESE", "SSS", "ESS"), MANY) for name in ("lvc", "loaded_dice"))),
    Claim("MAML-10", "exact outer: LVC ESE ≈ SEE > SSE; Loaded-DiCE SEE > ESE > SSE",
        (partial(equal, "lvc", ("ESE", "SEE"), SOME),
         *(partial(ordered, "lvc", (high, "SSE"), SOME) for high in ("SEE", "ESE")),
         partial(ordered, "loaded_dice", ("SEE", "ESE", "SSE"), SOME))),
    Claim("MAML-11", "more steps or a larger α: SSE loses much accuracy in every estimator", (loses_accuracy,)),
    Claim("MAML-12", "large K or α: LVC and Loaded-DiCE SEE ≈ ESE, SES ≈ ESS; AD: the Hessian error dominates",
        (only_ad_suffers_from_its_hessian,)),
    Claim("MAML-13",
        "correcting the composition raises variance; only for LVC and AD with an exact outer gradient it lowers it",
        tuple(partial(ordered, name, pair, POWERS, metric="variance", relation=ratio_above) for name, pair in (
            *product(ESTIMATORS, (("EES", "SES"), ("ESS", "SSS"))),
            *product(("dice", "loaded_dice"), (("ESE", "SSE"),)), *product(("lvc", "ad"), (("SSE", "ESE"),))))),
)  # fmt: skip


def claims(settings: Settings, frame: "pd.DataFrame") -> list[analysis.Verdict]:
    """The verdicts on what the chosen figures are about: MAML-1 to MAML-13, and those of theory."""
    figures = Figures(frame, SOURCES)
    verdicts = [] if settings.figure == ("theory",) else [claim.verdict(figures) for claim in CLAIMS]
    return verdicts + (theory.claims(frame) if "theory" in settings.figure else [])
