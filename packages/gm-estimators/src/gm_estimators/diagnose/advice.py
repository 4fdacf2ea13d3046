"""Which choices have the smallest error for so many trajectories: ranked by measured mean squared error."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.checks import integer
from gm_estimators.decomposition.sizes import Sizes
from gm_estimators.diagnose.checked import checked, limit
from gm_estimators.diagnose.first_order import FirstOrder
from gm_estimators.diagnose.jackknife import Estimate, jackknife
from gm_estimators.diagnose.loop import Loop, kept, seed_of
from gm_estimators.diagnose.pairs import inner, mean, ratio
from gm_estimators.diagnose.plan import Plan
from gm_estimators.diagnose.repeat import Repeat
from gm_estimators.diagnose.sources import IDEAL, along, config_of, extrapolated, outcome, sources_of
from gm_estimators.diagnose.table import fitted
from gm_estimators.estimator import Estimator
from gm_estimators.metrics import student_t_quantile

SPLITS = (0.25, 0.5, 0.75)
"""Parts of all trajectories that the inner steps have, the outer gradient having the rest."""
LAMBDAS = (0.8, 0.95, 1.0)
"""Which λ are tried beside the loop's."""
LEAST, REFERENCES = 16, 8
"""Repeats of every choice, and of the truth of each K where several are tried."""
LONGEST = 17
"""Characters of a name that a line of 80 has room for."""
CLEARLY = 1.5
"""Half widths of an interval by which a choice must be worse than the best to be left out of further repeats."""


@dataclass(frozen=True)
class Choice:
    """One way to spend the trajectories; the mean squared error of one estimate is in units of ‖g‖².

    Attributes:
        estimator: its name.
        gae_lambda: λ of the advantages; `None` if the loop has none to choose.
        sizes: of the roles at each step.
        mse: E‖d − g‖² / ‖g‖².
        beyond: how much that is above the best choice's, paired.
        inner_steps: K, in whose own ‖g‖² both are.
        first_order: whether Jacobians are left out, so that no trajectories are for these.
    """

    estimator: str
    gae_lambda: float | None
    sizes: Sizes
    mse: float
    beyond: Estimate
    inner_steps: int
    first_order: bool = False


@dataclass(frozen=True)
class Advice:
    """Choices from the best to the worst; `print` shows the first of them.

    Attributes:
        trajectories: of all roles and steps together, for each task.
        choices: by mean squared error.
        repeats: independent ones, of the choices that were not left out.
        env_steps: what finding out took.
        returns: by K, where several are tried, J_Out(θᴷ) after steps by infinitely many trajectories.
    """

    trajectories: int
    choices: tuple[Choice, ...]
    repeats: int
    env_steps: int
    returns: Mapping[int, Estimate] = field(default_factory=dict)

    def __str__(self) -> str:
        best, worst = self.choices[0].mse, max((choice.mse for choice in self.choices if choice.mse > 0), default=0.0)
        error, shown = "relative error" if self.returns else "mean squared error", self.choices[:12]
        width = min(max(len("estimator"), *(len(choice.estimator) for choice in shown)), LONGEST)
        lines = [
            f"{self.trajectories} trajectories a task: {len(self.choices)} choices, {self.repeats} repeats, "
            f"{self.env_steps:,} environment steps",
            *self._by_steps(),
            f"The worst has {worst / best:.1f} times the {error} of the best."
            if best > 0
            else "‖g‖² is not told apart from 0: errors are ranked, and have no unit.",
            "",
            f"{'estimator':{width}} {'K':>2} {'λ':>5} {'inner':>6} {'Jacobian':>9} {'outer':>6} {'error':>9}  "
            "above the best",
        ]
        return "\n".join([*lines, *(_line(choice, width) for choice in shown)])

    def _by_steps(self) -> list[str]:
        """What more steps are good for, beside what they cost."""
        if not self.returns:
            return []
        lines = [
            "Each K has a g of its own, and errors are in units of its ‖g‖².",
            "",
            f"{'K':>3} {'return after K steps':>28}   smallest error",
        ]
        for steps, earned in self.returns.items():
            errors = [choice.mse for choice in self.choices if choice.inner_steps == steps and choice.mse > 0]
            said = f"{earned.value:.4g} [{earned.low:.4g}, {earned.high:.4g}]"
            lines.append(f"{steps:>3} {said:>28}   {f'{min(errors):.3g}' if errors else 'not told':>14}")
        return [*lines, ""]


def _line(choice: Choice, width: int) -> str:
    sizes, lam = choice.sizes, "" if choice.gae_lambda is None else f"{choice.gae_lambda:g}"
    jacobian = "none" if choice.first_order else "the same" if sizes.shared else str(sizes.hessian)
    _, low, high = choice.beyond
    told = "not told apart" if not low > 0 else f"{low:.3g} to {high:.3g}"
    label = f"{fitted(choice.estimator, width):{width}} {choice.inner_steps:>2} {lam:>5}"
    return f"{label} {sizes.inner:>6} {jacobian:>9} {sizes.outer:>6} {choice.mse:>9.3g}  {told}"


@dataclass
class Truth:
    """The meta-gradient of one K by what is drawn of its reference, and what the loop earns after so many steps."""

    plan: Plan
    reference: Float[Tensor, "repeat size"]
    seeds: tuple[object, ...]
    returns: list[Float[Tensor, " lane"]] = field(default_factory=list)
    drawn: int = 0

    @property
    def g(self) -> Float[Tensor, " size"]:
        """Its mean."""
        return self.reference.mean(0)

    @property
    def length(self) -> float:
        """‖g‖², without bias."""
        return mean(inner(self.reference, self.reference))

    def draw(self) -> int:
        """One more repeat in every lane, and its steps."""
        loop = self.plan.loop
        repeat, config = Repeat(loop, seed_of(*self.seeds, self.drawn)), config_of(loop, IDEAL, ())
        found = kept(extrapolated(repeat, config, tuple(range(self.plan.blocks))))
        earned = extrapolated(repeat, config, tuple(range(self.plan.blocks)), outcome)
        self.reference = torch.cat([self.reference, found])
        self.returns.append(earned.double().cpu().reshape(loop.lanes or 1, -1).mean(-1))
        self.drawn += 1
        return repeat.env_steps


def advise(
    plan: Plan, reference: Float[Tensor, "repeat size"], *, trajectories: int,
    lambdas: Iterable[float] = LAMBDAS, splits: Iterable[float] = SPLITS, inner_steps: Iterable[int] | None = None,
    budget: int | None = None, seconds: float | None = None,
) -> Advice:  # fmt: skip
    """Every choice of estimator, λ, split and sharing that spends the trajectories, ranked by mean squared error.

        E‖d − g‖² = E‖d‖² − 2 ⟨E[d], g⟩ + ‖g‖²

    g is the mean of the reference, whose own sampling error is part of every interval. After 16, 32, 64 … repeats what
    is clearly worse than the best is left out, and the reference is doubled where its error is what hides the rest.

    K is the loop's unless `inner_steps` says which are tried. With each K the meta-gradient is another: what is ranked
    then is E‖d − g_K‖² / ‖g_K‖², by a reference for each K, of at least 8 repeats. A small one is no reason to take
    that K: how much a loop earns after K steps is told beside it. `draw` and `see` may know K by their step alone.

    Raises:
        ValueError: if the trajectories do not suffice for one in each role and step, the estimand is "adapted", or the
            loop does not fit with another K.
    """
    if plan.loop.adapted:
        raise ValueError("advise: expected the estimand 'exact', since 'adapted' is another truth for every split")
    limit("budget", budget)
    limit("seconds", seconds)
    trajectories, own = integer("trajectories", trajectories), plan.loop.inner_steps
    tried = [own] if inner_steps is None else steps_of(inner_steps)
    if plan.loop.batch_of is not None and tried != [own]:
        raise ValueError(f"inner_steps: expected the loop's own {own} beside batch_of, which is for these, got {tried}")
    loops = _loops(plan.loop, trajectories, tried, list(splits), list(lambdas))
    labels = [
        (loop, estimator) for loop in loops for estimator in plan.estimators
        if loop.sizes.shared or not isinstance(estimator, FirstOrder)  # without a Jacobian it is one choice, not two
    ]  # fmt: skip
    truths = {k: _truth(plan, reference, k) for k in tried}
    seconds = 60.0 if budget is None and seconds is None else seconds
    begin, rounds, steps, look, drawn = time.monotonic(), 0, 0, LEAST, 0
    found: list[list[Tensor]] = [[] for _ in labels]
    active = list(range(len(labels)))

    def over(took: int) -> bool:
        """Whether what comes next would exceed what is given, if it takes as long as what was done on average."""
        if budget is not None and steps + took > budget:
            return True
        done = rounds + drawn
        return seconds is not None and (time.monotonic() - begin) * (done + 1) / done > seconds

    for truth in truths.values():
        while (len(tried) > 1 or truth.plan is not plan) and truth.drawn * (plan.loop.lanes or 1) < REFERENCES:
            steps, drawn = steps + truth.draw(), drawn + 1
    while True:
        took = _round(labels, active, seed_of(plan.seed, "advice", rounds), found)
        rounds, steps = rounds + 1, steps + took
        repeats = rounds * (plan.loop.lanes or 1)
        if repeats >= LEAST and over(took):
            choices = _ranked(labels, found, active, truths).choices
            earned = {
                k: jackknife(torch.mean, torch.cat(truth.returns)) for k, truth in truths.items() if len(tried) > 1
            }
            return Advice(trajectories, choices, repeats, steps, earned)
        if repeats >= look:
            ranking = _ranked(labels, found, active, truths)
            active, look = ranking.left, 2 * repeats
            for truth in ranking.hiding:
                enough = 2 * len(truth.reference)
                while len(truth.reference) < enough and not over(took):
                    took = truth.draw()
                    drawn, steps = drawn + 1, steps + took


def steps_of(given: Iterable[int]) -> list[int]:
    """Each K once, as integers of at least 1.

    Raises:
        TypeError: if they are no integers.
        ValueError: if there is none, or one below 1.
    """
    if not isinstance(given, Iterable):
        raise TypeError(f"inner_steps: expected one or more numbers such as (1, 2, 3), got {given!r}")
    found = list(dict.fromkeys(integer("inner_steps", k, 1) for k in given))
    if not found:
        raise ValueError("inner_steps: expected one or more numbers such as (1, 2, 3), got none")
    return found


def _truth(plan: Plan, reference: Float[Tensor, "repeat size"], steps: int) -> Truth:
    """That of the loop's own K has the report's repeats; that of another has none yet, and fits."""
    if steps == plan.loop.inner_steps:
        return Truth(plan, reference, (plan.seed, "advice", "reference"))
    loop = checked(replace(plan.loop, inner_steps=steps), plan.estimators, plan.seed)
    return Truth(replace(plan, loop=loop), reference[:0], (plan.seed, "advice", "reference", steps))


def _loops(
    loop: Loop, trajectories: int, tried: Sequence[int], splits: Sequence[float], lambdas: Sequence[float]
) -> list[Loop]:
    """The loop with every K, split, sharing and λ."""
    lam = [loop.gae_lambda] if loop.gae_lambda is None else dict.fromkeys([loop.gae_lambda, *lambdas])
    found = []
    for steps in tried:
        batches = replace(loop, inner_steps=steps).batches
        some = dict.fromkeys(_sizes(trajectories, batches, splits))
        if not some:
            raise ValueError(f"trajectories: expected at least {batches + 1}, got {trajectories}")
        found += [replace(loop, inner_steps=steps, sizes=sizes, gae_lambda=each) for sizes in some for each in lam]
    return found


def _sizes(trajectories: int, batches: int, splits: Iterable[float]) -> Iterator[Sizes]:
    """Every split between inner batches and the outer one, with one for inner gradient and Jacobian, or with two."""
    for split in splits:
        each = round(split * trajectories / batches)
        outer = trajectories - batches * each
        if each >= 1 and outer >= 1:
            yield Sizes(each, each, outer, shared=True)
        if each >= 2 and outer >= 1:
            yield Sizes(each - each // 2, each // 2, outer)


def _round(
    labels: Sequence[tuple[Loop, Estimator]], active: Sequence[int], seed: int, found: list[list[Tensor]]
) -> int:  # fmt: skip
    """Adds an estimate by every active choice, `[lane, size]`, on common random numbers; the steps that it takes."""
    repeats: dict[int, Repeat] = {}
    for i in active:
        loop, estimator = labels[i]
        repeat = repeats.setdefault(id(loop), Repeat(loop, seed))
        found[i].append(kept(along(repeat, config_of(loop, estimator, sources_of(loop, estimator)), (0,))))
    return sum(repeat.env_steps for repeat in repeats.values())


@dataclass(frozen=True)
class Tried:
    """What was drawn by one choice, and the truth that it is for."""

    drawn: Float[Tensor, "repeat size"]
    truth: Truth
    unit: float

    @cached_property
    def errors(self) -> Float[Tensor, " repeat"]:
        """‖d − g‖² − ‖g‖²."""
        return self.drawn.square().sum(-1) - 2 * self.drawn @ self.truth.g

    @cached_property
    def mean(self) -> float:
        """Of these."""
        return float(self.errors.mean())


class _Ranking(NamedTuple):
    """All choices by their error, active ones that are not clearly worse than the best of their K, and what hides more.

    That is truths whose reference keeps choices together, not these choices' own errors.
    """

    left: list[int]
    choices: tuple[Choice, ...]
    hiding: list[Truth]


def _ranked(
    labels: Sequence[tuple[Loop, Estimator]], found: Sequence[Sequence[Tensor]], active: Sequence[int],
    truths: Mapping[int, Truth],
) -> _Ranking:  # fmt: skip
    """A choice that is not active any more has fewer repeats; it is compared with the best on these."""
    units = {k: unit_of(truth, len(truths) > 1) for k, truth in truths.items()}
    tried = [
        Tried(torch.cat(list(vectors)), truths[loop.inner_steps], units[loop.inner_steps])
        for (loop, _), vectors in zip(labels, found, strict=True)
    ]
    own = {id(t): min((tried[i] for i in active if tried[i].truth is t), key=lambda x: x.mean) for t in truths.values()}
    best = min(own.values(), key=lambda x: math.inf if math.isnan(x.unit) else x.mean / x.unit)
    left, choices, hiding = [], [], []
    for truth in truths.values():
        parts = [0.0, 0.0]
        for i, (loop, estimator) in enumerate(labels):
            if tried[i].truth is not truth:
                continue
            beyond, half, of_draws, of_reference = _apart(tried[i], own[id(truth)])
            error = (own[id(truth)].mean + beyond + truth.length) / tried[i].unit
            if best.truth is truth:
                above = Estimate(*(x / tried[i].unit for x in (beyond, beyond - half, beyond + half)))
            else:
                above = relative(tried[i], best)
            left_out = isinstance(estimator, FirstOrder)
            choice = Choice(estimator.name, loop.gae_lambda, loop.sizes, error, above, loop.inner_steps, left_out)
            choices.append(
                ((math.isnan(error) and len(truths) > 1, 0.0 if math.isnan(error) else error, beyond), choice)
            )
            if i in active and beyond <= CLEARLY * half:
                left.append(i)
                parts = [parts[0] + of_draws, parts[1] + of_reference]
        if parts[1] > parts[0]:
            hiding.append(truth)
    ordered = tuple(choice for _, choice in sorted(choices, key=lambda pair: pair[0]))
    return _Ranking(left, ordered, hiding)


def unit_of(truth: Truth, several: bool) -> float:
    """‖g‖²; NaN where it may be 0. Choices for one truth are ranked without it."""
    told = truth.length > 0 and (not several or ratio(inner(truth.reference, truth.reference)).low > 0)
    return truth.length if told else math.nan


def _apart(one: Tried, best: Tried) -> tuple[float, float, float, float]:
    """By how much one's error for the same g is larger, half its interval, and the variances of draws and of g."""
    repeats, reference = len(one.errors), one.truth.reference
    apart = one.errors - best.errors[:repeats]
    aside = (one.drawn - best.drawn[:repeats]).mean(0)
    of_draws, of_reference = float(apart.var()) / repeats, 4 * float((reference @ aside).var()) / len(reference)
    quantile = student_t_quantile(0.975, min(repeats, len(reference)) - 1)
    return float(apart.mean()), quantile * math.sqrt(of_draws + of_reference), of_draws, of_reference


def relative(one: Tried, best: Tried) -> Estimate:
    """By how much one's error in units of its own ‖g‖² is larger than that of a choice for another g in units of its.

    Either reference's sampling error counts twice, in error and unit: (E‖d‖² − 2 ⟨E[d], g⟩) / ‖g‖² + 1 moves by
    −2 ⟨E[d] / ‖g‖² + (E‖d‖² − 2 ⟨E[d], g⟩) g / ‖g‖⁴, δg⟩.
    """
    repeats = min(len(one.errors), len(best.errors))
    apart = one.errors[:repeats] / one.unit - best.errors[:repeats] / best.unit
    variance, fewest = float(apart.var()) / repeats, repeats
    for x in (one, best):
        slope = 2 * (x.drawn.mean(0) + x.mean / x.unit * x.truth.g) / x.unit
        variance += float((x.truth.reference @ slope).var()) / len(x.truth.reference)
        fewest = min(fewest, len(x.truth.reference))
    value, half = float(apart.mean()), student_t_quantile(0.975, fewest - 1) * math.sqrt(variance)
    return Estimate(value, value - half, value + half) if math.isfinite(half) else Estimate(value, -math.inf, math.inf)
