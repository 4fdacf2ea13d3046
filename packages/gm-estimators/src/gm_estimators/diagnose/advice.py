"""Which choices have the smallest error for so many trajectories: ranked by measured mean squared error."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.checks import integer
from gm_estimators.decomposition.sizes import Sizes
from gm_estimators.diagnose.checked import limit
from gm_estimators.diagnose.jackknife import Estimate
from gm_estimators.diagnose.loop import Loop, kept, seed_of
from gm_estimators.diagnose.pairs import inner, mean
from gm_estimators.diagnose.plan import Plan
from gm_estimators.diagnose.repeat import Repeat
from gm_estimators.diagnose.sources import IDEAL, along, config_of, extrapolated, sources_of
from gm_estimators.estimator import Estimator
from gm_estimators.metrics import student_t_quantile

SPLITS = (0.25, 0.5, 0.75)
"""Parts of all trajectories that the inner steps have, the outer gradient having the rest."""
LAMBDAS = (0.8, 0.95, 1.0)
"""Which λ are tried beside the loop's."""
LEAST = 16
"""Repeats of every choice."""
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
    """

    estimator: str
    gae_lambda: float | None
    sizes: Sizes
    mse: float
    beyond: Estimate


@dataclass(frozen=True)
class Advice:
    """Choices from the best to the worst; `print` shows the first of them.

    Attributes:
        trajectories: of all roles and steps together, for each task.
        choices: by mean squared error.
        repeats: independent ones, of the choices that were not left out.
        env_steps: what finding out took.
    """

    trajectories: int
    choices: tuple[Choice, ...]
    repeats: int
    env_steps: int

    def __str__(self) -> str:
        best, worst = self.choices[0], self.choices[-1]
        lines = [
            f"{self.trajectories} trajectories a task: {len(self.choices)} choices, {self.repeats} repeats, "
            f"{self.env_steps:,} environment steps",
            f"The worst has {worst.mse / best.mse:.1f} times the mean squared error of the best."
            if best.mse > 0
            else "‖g‖² is not told apart from 0: errors are ranked, and have no unit.",
            "",
            f"{'estimator':12} {'λ':>5} {'inner':>6} {'Jacobian':>9} {'outer':>6} {'error':>9}  above the best",
        ]
        return "\n".join([*lines, *(_line(choice) for choice in self.choices[:12])])


def _line(choice: Choice) -> str:
    sizes, lam = choice.sizes, "" if choice.gae_lambda is None else f"{choice.gae_lambda:g}"
    jacobian = "the same" if sizes.shared else str(sizes.hessian)
    _, low, high = choice.beyond
    told = "not told apart" if not low > 0 else f"{low:.3g} to {high:.3g}"
    return f"{choice.estimator:12} {lam:>5} {sizes.inner:>6} {jacobian:>9} {sizes.outer:>6} {choice.mse:>9.3g}  {told}"


def advise(
    plan: Plan, reference: Float[Tensor, "repeat size"], *, trajectories: int,
    lambdas: Iterable[float] = LAMBDAS, splits: Iterable[float] = SPLITS,
    budget: int | None = None, seconds: float | None = None,
) -> Advice:  # fmt: skip
    """Every choice of estimator, λ, split and sharing that spends the trajectories, ranked by mean squared error.

        E‖d − g‖² = E‖d‖² − 2 ⟨E[d], g⟩ + ‖g‖²

    g is the mean of the reference, whose own sampling error is part of every interval. After 16, 32, 64 … repeats what
    is clearly worse than the best is left out, and the reference is doubled where its error is what hides the rest. K
    is the loop's: with another one the meta-gradient itself is another.

    Raises:
        ValueError: if the trajectories do not suffice for one in each role and step, or the estimand is "adapted".
    """
    if plan.loop.adapted:
        raise ValueError("advise: expected the estimand 'exact', since 'adapted' is another truth for every split")
    limit("budget", budget)
    limit("seconds", seconds)
    trajectories = integer("trajectories", trajectories)
    loops = list(dict.fromkeys(_sizes(trajectories, plan.loop.inner_steps, splits)))
    if not loops:
        raise ValueError(f"trajectories: expected at least {plan.loop.inner_steps + 1}, got {trajectories}")
    lam = [plan.loop.gae_lambda] if plan.loop.gae_lambda is None else [plan.loop.gae_lambda, *lambdas]
    tried = [replace(plan.loop, sizes=sizes, gae_lambda=each) for sizes in loops for each in dict.fromkeys(lam)]
    labels = [(loop, estimator) for loop in tried for estimator in plan.estimators]
    seconds = 60.0 if budget is None and seconds is None else seconds
    begin, rounds, steps, look = time.monotonic(), 0, 0, LEAST
    found: list[list[Tensor]] = [[] for _ in labels]
    active = list(range(len(labels)))
    drawn = 0

    def over(took: int, done: int) -> bool:
        """Whether what comes next would exceed what is given, if it takes as long as what was done on average."""
        if budget is not None and steps + took > budget:
            return True
        return seconds is not None and (time.monotonic() - begin) * (done + 1) / done > seconds

    while True:
        took = _round(labels, active, seed_of(plan.seed, "advice", rounds), found)
        rounds, steps = rounds + 1, steps + took
        repeats = rounds * (plan.loop.lanes or 1)
        if repeats >= LEAST and over(took, rounds + drawn):
            return Advice(trajectories, _ranked(labels, found, active, reference).choices, repeats, steps)
        if repeats >= look:
            ranking = _ranked(labels, found, active, reference)
            active, look, enough = ranking.left, 2 * repeats, 2 * len(reference)
            while ranking.by_reference and len(reference) < enough and not over(took, rounds + drawn):
                more, took = _reference(plan, seed_of(plan.seed, "advice", "reference", drawn))
                reference, drawn, steps = torch.cat([reference, more]), drawn + 1, steps + took


def _reference(plan: Plan, seed: int) -> tuple[Tensor, int]:
    """One more repeat of the truth in every lane, and its steps."""
    repeat = Repeat(plan.loop, seed)
    return kept(extrapolated(repeat, config_of(plan.loop, IDEAL, ()), tuple(range(plan.blocks)))), repeat.env_steps


def _sizes(trajectories: int, steps: int, splits: Iterable[float]) -> Iterator[Sizes]:
    """Every split, with one batch for inner gradient and Jacobian, or with two."""
    for split in splits:
        each = round(split * trajectories / steps)
        outer = trajectories - steps * each
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


class _Ranking(NamedTuple):
    """Active choices that are not clearly worse than the best, all by their error, and what keeps the former together.

    That is the reference's error, or their own.
    """

    left: list[int]
    choices: tuple[Choice, ...]
    by_reference: bool


def _ranked(
    labels: Sequence[tuple[Loop, Estimator]], found: Sequence[Sequence[Tensor]], active: Sequence[int],
    reference: Float[Tensor, "other size"],
) -> _Ranking:  # fmt: skip
    """A choice that is not active any more has fewer repeats; it is compared with the best on these."""
    g, length = reference.mean(0), mean(inner(reference, reference))
    unit = length if length > 0 else math.nan  # errors are ranked without it
    drawn = [torch.cat(list(vectors)) for vectors in found]
    errors = [x.square().sum(-1) - 2 * x @ g for x in drawn]
    best = min(active, key=lambda i: float(errors[i].mean()))
    left, choices, parts = [], [], [0.0, 0.0]
    for i, (loop, estimator) in enumerate(labels):
        repeats = len(errors[i])
        apart = errors[i] - errors[best][:repeats]
        aside = (drawn[i] - drawn[best][:repeats]).mean(0)
        beyond = float(apart.mean())
        own, of_reference = float(apart.var()) / repeats, 4 * float((reference @ aside).var()) / len(reference)
        quantile = student_t_quantile(0.975, min(repeats, len(reference)) - 1)
        half = quantile * math.sqrt(own + of_reference)
        above = Estimate(*(x / unit for x in (beyond, beyond - half, beyond + half)))
        error = (float(errors[best].mean()) + beyond + length) / unit
        choices.append((beyond, Choice(estimator.name, loop.gae_lambda, loop.sizes, error, above)))
        if i in active and beyond <= CLEARLY * half:
            left.append(i)
            parts = [parts[0] + own, parts[1] + of_reference]
    ordered = tuple(choice for _, choice in sorted(choices, key=lambda pair: pair[0]))
    return _Ranking(left, ordered, parts[1] > parts[0])
