"""How much of a meta-gradient's error each of its sources has.

A source is something that can be had as in practice or ideally: the inner gradient sampled or exact, a critic learnt or
exact, gradients clipped or not. With v(S) the squared bias or the variance where only the sources S are as in practice,
v(∅) = 0, the share of a source is its Shapley value (Shapley 1953, "A value for n-person games"),

    share_i = Σ_{S ∌ i} |S|! (k − |S| − 1)! / k! · (v(S ∪ {i}) − v(S)),

the mean over all orders in which the k sources can be made imperfect one after the other. No order is better founded
than another, since squared biases and variances do not add up; a single one would give what two sources only do
together (the covariance of a shared batch, a biased Hessian times a biased inner step) to whichever comes last. Shares
sum to v of all sources. One can be negative: a source may hide another's error.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, combinations
from math import factorial
from typing import Any, overload

import torch
from torch import Tensor

from gm_estimators.decomposition import PERMUTATIONS, Problem, Sizes, decompose, exact_meta_gradient
from gm_estimators.decomposition.problem import SampleT
from gm_estimators.estimator import Estimator
from gm_estimators.metrics import Interval, SampledTruth, bias_sq, student_t_quantile, variance

__all__ = [
    "ESTIMATED", "MEASURES", "SHARED_BATCH", "AdamDistortion", "Measure", "attribute", "attribution", "clipped",
    "permutation_of", "permutations_of", "shapley", "subsets",
]  # fmt: skip

Measure = Callable[[Tensor, Any], Tensor]
"""(estimates, truth) ↦ a number that says how wrong they are; the truth is a tensor or a `SampledTruth`."""
ESTIMATED = ("composition", "hessian", "outer")
"""Sources that every `Problem` has: the estimators I, II and III."""
SHARED_BATCH = "shared_batch"
"""The source that inner gradient and Hessian read the same trajectories."""
_DECAYS = (0.9, 0.999)
MEASURES: dict[str, Measure] = {"bias_sq": bias_sq, "variance": lambda estimates, _truth: variance(estimates)}
"""What is attributed if nothing else is asked for."""


def shapley(value: Mapping[frozenset[str], Tensor], sources: Sequence[str]) -> dict[str, Tensor]:
    """Shares by source, given v of every set of sources, the empty one included; they sum to v(all) − v(∅).

    Raises:
        ValueError: if v is missing for a set.

    Examples:
        >>> import torch
        >>> from gm_estimators.attribution import shapley, subsets
        >>> value = {subset: torch.tensor(float(len(subset)) ** 2) for subset in subsets(["adam", "clipping"])}
        >>> shapley(value, ["adam", "clipping"])
        {'adam': tensor(2.), 'clipping': tensor(2.)}
    """
    missing = [sorted(some) for some in subsets(sources) if some not in value]
    if missing:
        raise ValueError(f"value: expected one for every set of sources, got none for {missing[0]}")
    shares = {}
    for source in sources:
        others = [other for other in sources if other != source]
        terms = []
        for some in subsets(others):
            weight = factorial(len(some)) * factorial(len(others) - len(some)) / factorial(len(sources))
            terms.append(weight * (value[some | {source}] - value[some]))
        shares[source] = torch.stack(terms).sum(0)
    return shares


@overload
def attribute(
    estimate: Callable[[frozenset[str]], Tensor], sources: Sequence[str], truth: Tensor | SampledTruth,
    measures: Mapping[str, Measure] | None = None, *, confidence: None = None,
) -> dict[str, dict[str, Tensor]]: ...  # fmt: skip


@overload
def attribute(
    estimate: Callable[[frozenset[str]], Tensor], sources: Sequence[str], truth: Tensor | SampledTruth,
    measures: Mapping[str, Measure] | None = None, *, confidence: float,
) -> dict[str, dict[str, Interval]]: ...  # fmt: skip


def attribute(
    estimate: Callable[[frozenset[str]], Tensor],
    sources: Sequence[str],
    truth: Tensor | SampledTruth,
    measures: Mapping[str, Measure] | None = None,
    *,
    confidence: float | None = None,
) -> dict[str, dict[str, Tensor]] | dict[str, dict[str, Interval]]:
    """Any sources have shares, by measure and source, in the error of a user's own 2ᵏ − 1 estimates.

    Args:
        estimate: S ↦ estimates `[*batch, repeat, size]` in which the sources S are as in practice, all others ideal;
            best on common random numbers.
        sources: k names.
        truth: what there is without any source, `[*batch, size]`, or a sample of it, whose variance is no bias.
        measures: name ↦ function of (estimates, truth); `metrics.bias_sq` and `metrics.variance` by default.
        confidence: of the shares' intervals, by the jackknife over repeats, of which all estimates then have the same
            number; shares come without any if `None`.

    Raises:
        ValueError: if a source is named twice, or numbers of repeats differ where intervals are asked for.

    Examples:
        >>> import torch
        >>> from gm_estimators.attribution import attribute
        >>> truth, noise = torch.tensor([3.0]), torch.tensor([[-1.0], [1.0]])
        >>> shares = attribute(lambda some: truth + noise * ("sampling" in some), ["sampling"], truth)
        >>> shares["variance"]
        {'sampling': tensor(2.)}
    """
    if len(set(sources)) < len(sources):
        raise ValueError(f"sources: expected different names, got {list(sources)}")
    chosen = MEASURES if measures is None else measures
    estimates = {some: estimate(some) for some in subsets(sources) if some}
    shares = _shares(estimates, sources, truth, chosen)
    return shares if confidence is None else _with_intervals(shares, estimates, sources, truth, chosen, confidence)


Estimates = Mapping[frozenset[str], Tensor]


def _shares(
    estimates: Estimates, sources: Sequence[str], truth: Tensor | SampledTruth, measures: Mapping[str, Measure]
) -> dict[str, dict[str, Tensor]]:
    center = truth.draws.mean(-2) if isinstance(truth, SampledTruth) else truth
    nothing = center.unsqueeze(-2).expand(*center.shape[:-1], 2, center.shape[-1])
    found = {}
    for name, measure in measures.items():
        values = {some: measure(x, truth) for some, x in estimates.items()}
        found[name] = shapley({frozenset(): measure(nothing, center), **values}, sources)
    return found


def _with_intervals(
    shares: dict[str, dict[str, Tensor]], estimates: Estimates, sources: Sequence[str], truth: Tensor | SampledTruth,
    measures: Mapping[str, Measure], confidence: float,
) -> dict[str, dict[str, Interval]]:  # fmt: skip
    """The shares with Student's intervals: what each repeat, left out, changes."""
    counts = sorted({x.shape[-2] for x in estimates.values()})
    if len(counts) > 1 or counts[0] < 3:
        raise ValueError(f"estimate: expected one number of repeats, at least 3, for intervals, got {counts}")
    least, paired = counts[0], isinstance(truth, SampledTruth) and truth.paired

    def without(i: int) -> dict[str, dict[str, Tensor]]:
        fewer = {some: _left_out(x, i) for some, x in estimates.items()}
        known = replace(truth, draws=_left_out(truth.draws, i)) if isinstance(truth, SampledTruth) and paired else truth
        return _shares(fewer, sources, known, measures)

    samples = [[without(i) for i in range(least)]]
    if isinstance(truth, SampledTruth) and not paired:
        draws = truth.draws
        fewer = [replace(truth, draws=_left_out(draws, i)) for i in range(draws.shape[-2])]
        samples.append([_shares(estimates, sources, known, measures) for known in fewer])
        least = min(least, len(fewer))
    quantile = student_t_quantile(0.5 + confidence / 2, least - 1)

    def interval(measure: str, source: str) -> Interval:
        value = shares[measure][source]
        spread = torch.stack([
            (len(sample) - 1) * torch.stack([each[measure][source] for each in sample]).var(0, correction=0)
            for sample in samples
        ])  # fmt: skip
        half = quantile * spread.sum(0).sqrt()
        return Interval(value, value - half, value + half)

    return {measure: {source: interval(measure, source) for source in found} for measure, found in shares.items()}


def _left_out(x: Tensor, repeat: int) -> Tensor:
    return torch.cat([x[..., :repeat, :], x[..., repeat + 1 :, :]], -2)


def attribution(
    problem: Callable[[frozenset[str]], Problem[SampleT]],
    estimator: Estimator,
    *,
    estimated: Sequence[str] = ESTIMATED,
    extras: Sequence[str] = (),
    sample_size: int,
    inner_steps: int,
    inner_lr: float,
    measures: Mapping[str, Measure] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Shares, by measure and source, of composition, Hessian, outer gradient and what else a problem can have or not.

    `problem` maps S to the problem in which of the extra sources only S are as in practice, such as a noisy critic; its
    batch axes are units, which the shares keep, and repeats. Those of `ESTIMATED` that are not `estimated` are exact
    throughout. `extras` names the other sources; the problem is not asked about `SHARED_BATCH`. The rest is as in
    `decompose`, with |τ| = `sample_size`, and in `attribute`.

    Raises:
        ValueError: for an unknown source, or one that is named twice.
    """
    if unknown := [source for source in estimated if source not in ESTIMATED]:
        raise ValueError(f"estimated: expected some of {', '.join(ESTIMATED)}, got {unknown[0]!r}")
    permutations = permutations_of(estimated)
    truth = exact_meta_gradient(problem(frozenset()), inner_steps=inner_steps, inner_lr=inner_lr)[:, 0].flatten(1)

    @cache
    def decomposed(practice: frozenset[str]) -> dict[str, Tensor]:
        size = Sizes.each(sample_size, shared=SHARED_BATCH in practice)
        estimates = decompose(
            problem(practice - {SHARED_BATCH}),
            [estimator],
            permutations=permutations,
            sizes=[size],
            inner_steps=inner_steps,
            inner_lr=inner_lr,
        )
        return {permutation: estimate.flatten(2) for (_, permutation, _), estimate in estimates.items()}

    def estimate(some: frozenset[str]) -> Tensor:
        permutation = permutation_of(some)
        if permutation == "EEE":
            return truth.unsqueeze(-2).expand(-1, 2, -1)
        return decomposed(some & frozenset(extras))[permutation]

    return attribute(estimate, (*estimated, *extras), truth, measures)


def permutation_of(practice: Container[str]) -> str:
    """Returns the permutation in which of `ESTIMATED` only those are sampled, such as "SSE".

    Examples:
        >>> from gm_estimators.attribution import permutation_of
        >>> permutation_of({"composition", "outer"})
        'SES'
    """
    return "".join("S" if source in practice else "E" for source in ESTIMATED)


def permutations_of(sources: Container[str]) -> list[str]:
    """Returns the permutations in which nothing else is sampled than what is a source.

    Examples:
        >>> from gm_estimators.attribution import permutations_of
        >>> permutations_of({"composition", "hessian"})
        ['SSE', 'SEE', 'ESE']
    """
    return [p for p in PERMUTATIONS if all(p[i] == "E" or source in sources for i, source in enumerate(ESTIMATED))]


def clipped(x: Tensor, longest: Tensor) -> Tensor:
    """Clipping makes estimates no longer than c: x · min(1, c / ‖x‖) along the last axis (Pascanu et al. 2013).

    Examples:
        >>> import torch
        >>> from gm_estimators.attribution import clipped
        >>> clipped(torch.tensor([[6.0, 8.0], [0.3, 0.4]]), torch.tensor(5.0))
        tensor([[3.0000, 4.0000],
                [0.3000, 0.4000]])
    """
    short: Tensor = x * (longest / torch.linalg.vector_norm(x, dim=-1, keepdim=True)).clamp(max=1)
    return short


@dataclass(frozen=True)
class AdamDistortion:
    """What Adam makes of an error, its own step on the exact gradient y being the ideal (Kingma and Ba 2015).

        x ↦ y + (d(x) − d(y)) ‖y‖ / ‖d(y)‖,   d(x) = m̂ / (√v̂ + ε),   m = β₁ m + (1 − β₁) x,   v = β₂ v + (1 − β₂) x²

    Attributes:
        first: m before this update, `[*unit, size]`.
        second: v before this update, of the same shape.
        count: number of updates with this one.
        truth: y, the exact meta-gradient now, of the same shape.

    Raises:
        ValueError: if y is zero or not finite: its length is the unit of Adam's steps.
    """

    first: Tensor
    second: Tensor
    count: int
    truth: Tensor

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count: expected at least 1, this update, got {self.count}")
        length = torch.linalg.vector_norm(self.truth, dim=-1)
        if not bool((length.isfinite() & (length > 0)).all()):
            raise ValueError(f"truth: expected finite vectors other than zero, got lengths {length.tolist()}")

    @classmethod
    def after(cls, gradients: Sequence[Tensor], truth: Tensor) -> "AdamDistortion":
        """Adam is in this state when those gradients were followed."""
        first = second = torch.zeros_like(truth)
        for y in gradients:
            first, second = (
                b * old + (1 - b) * new for b, old, new in zip(_DECAYS, (first, second), (y, y**2), strict=True)
            )
        return cls(first, second, len(gradients) + 1, truth)

    def _direction(self, x: Tensor) -> Tensor:
        (b1, b2), first, second = _DECAYS, self.first.unsqueeze(-2), self.second.unsqueeze(-2)
        mean = (b1 * first + (1 - b1) * x) / (1 - b1**self.count)
        square = (b2 * second + (1 - b2) * x.square()) / (1 - b2**self.count)
        return mean / (square.sqrt() + 1e-8)

    def __call__(self, x: Tensor) -> Tensor:
        """Estimates `[*unit, repeat, size]` become as far from y as Adam's steps are, in the length of y."""
        y = self.truth.unsqueeze(-2)
        exact = self._direction(y)
        unit = torch.linalg.vector_norm(y, dim=-1, keepdim=True) / torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        moved: Tensor = y + (self._direction(x) - exact) * unit
        return moved


def subsets(sources: Sequence[str]) -> list[frozenset[str]]:
    """Sources form these sets, small ones first.

    Examples:
        >>> from gm_estimators.attribution import subsets
        >>> [sorted(subset) for subset in subsets(["adam", "clipping"])]
        [[], ['adam'], ['clipping'], ['adam', 'clipping']]
    """
    return [frozenset(some) for some in chain.from_iterable(combinations(sources, r) for r in range(len(sources) + 1))]
