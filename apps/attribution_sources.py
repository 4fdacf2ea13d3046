"""What the attribution apps share: sources of an error, what clipping and Adam do to it, the rows of results.csv."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_lab
import tabular
from gm_estimators.attribution import MEASURES, ROLES

Source = Literal["composition", "hessian", "outer", "shared_batch", "critic", "clipping", "adam"]
SOURCES: tuple[Source, ...] = ("composition", "hessian", "outer", "shared_batch", "critic", "clipping", "adam")
OF_PROBLEM = frozenset({"shared_batch", "critic"})
"""Sources that say what is sampled; clipping and Adam come after it."""
DECAYS = (0.9, 0.999)
KEY = (*tabular.KEY[:-1], "updates", "source")
"""What tells a row of one unit, such as an MDP, from another."""
METRICS = ("bias_sq", "variance", "truth_sq")
ALL = "all"
"""The row with the error itself, to which the shares sum."""


def check(settings: Any) -> None:
    """The flags of where to measure, and what.

    Raises:
        BadInput: if one is out of range.
    """
    gm_lab.require(settings, "clip_norm", "a positive number", settings.clip_norm > 0)
    gm_lab.require(settings, "points", "integers of at least 0", min(settings.points) >= 0)
    for name in ("points", "sources"):
        values = getattr(settings, name)
        gm_lab.require(settings, name, "different values", len(set(values)) == len(values))


def curves(unit: str) -> gm_lab.Curves:
    """Each source's share over the updates, averaged over the units."""
    by = tuple(column for column in KEY if column != "updates")
    return gm_lab.Curves(by=by, x="updates", y=("bias_sq", "variance"), over=unit)


def clipped(x: Tensor, longest: Tensor) -> Tensor:
    """Estimates no longer than c: x · min(1, c / ‖x‖) (Pascanu, Mikolov and Bengio 2013), along the last axis."""
    short: Tensor = x * (longest / torch.linalg.vector_norm(x, dim=-1, keepdim=True)).clamp(max=1)
    return short


@dataclass(frozen=True)
class Adam:
    """What Adam makes of an error, its own step on the exact gradient y being the ideal (Kingma and Ba 2015).

        x ↦ y + (d(x) − d(y)) ‖y‖ / ‖d(y)‖,   d(x) = m̂ / (√v̂ + ε),   m = β₁ m + (1 − β₁) x,   v = β₂ v + (1 − β₂) x²

    Attributes:
        first: m before this update, `[*unit, size]`.
        second: v before this update, of the same shape.
        count: number of updates with this one.
        truth: y, the exact meta-gradient now, of the same shape.
    """

    first: Tensor
    second: Tensor
    count: int
    truth: Tensor

    @classmethod
    def after(cls, gradients: Sequence[Tensor], truth: Tensor) -> "Adam":
        """Its state when those gradients were followed."""
        first = second = torch.zeros_like(truth)
        for y in gradients:
            first, second = (
                b * old + (1 - b) * new for b, old, new in zip(DECAYS, (first, second), (y, y**2), strict=True)
            )
        return cls(first, second, len(gradients) + 1, truth)

    def _direction(self, x: Tensor) -> Tensor:
        (b1, b2), first, second = DECAYS, self.first.unsqueeze(-2), self.second.unsqueeze(-2)
        mean = (b1 * first + (1 - b1) * x) / (1 - b1**self.count)
        square = (b2 * second + (1 - b2) * x.square()) / (1 - b2**self.count)
        return mean / (square.sqrt() + 1e-8)

    def __call__(self, x: Tensor) -> Tensor:
        """The estimates `[*unit, repeat, size]` as far from y as Adam's steps are, in the length of y."""
        y = self.truth.unsqueeze(-2)
        exact = self._direction(y)
        unit = torch.linalg.vector_norm(y, dim=-1, keepdim=True) / torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        moved: Tensor = y + (self._direction(x) - exact) * unit
        return moved


def permutations(sources: Sequence[str]) -> list[str]:
    """Those that sample nothing but what is a source."""
    return [p for p in estimators.PERMUTATIONS if all(p[i] == "E" or r in sources for i, r in enumerate(ROLES))]


def in_practice(
    sampled: Callable[[frozenset[str]], Mapping[str, Tensor]], adam: Adam, clip_norm: float
) -> Callable[[frozenset[str]], Tensor]:
    """S ↦ estimates `[*unit, repeat, size]` in which the sources S are as in practice.

    Args:
        sampled: which of `OF_PROBLEM` ↦ the estimates of every permutation; asked once each.
        adam: the optimiser, with the exact meta-gradient.
        clip_norm: the longest that an estimate may be, in units of the exact meta-gradient's length.
    """
    sampled, truth = cache(sampled), adam.truth.unsqueeze(-2)

    def estimate(some: frozenset[str]) -> Tensor:
        permutation = "".join("S" if role in some else "E" for role in ROLES)
        x = torch.cat((truth, truth), -2) if permutation == "EEE" else sampled(some & OF_PROBLEM)[permutation]
        if "clipping" in some:
            x = clipped(x, clip_norm * torch.linalg.vector_norm(truth, dim=-1, keepdim=True))
        return adam(x) if "adam" in some else x

    return estimate


def rows(
    estimate: Callable[[frozenset[str]], Tensor],
    sources: Sequence[str],
    truth: Tensor,
    unit: str,
    numbers: Sequence[int],
    **place: str | float,
) -> list[gm_lab.Row]:
    """The rows of results.csv: every source's share, and the error itself.

    Args:
        estimate: as of `in_practice`.
        sources: what may be as in practice.
        truth: the exact meta-gradients, `[unit, *learner, size]`; what is measured is averaged over learners.
        unit: the column that names the independent units.
        numbers: the units.
        place: the other columns of `KEY`.
    """
    shares = estimators.attribute(estimate, sources, truth)
    whole = estimate(frozenset(sources))
    for measure, function in MEASURES.items():
        shares[measure] = {**shares[measure], ALL: function(whole, truth)}
    found: list[gm_lab.Row] = []
    for source in (*sources, ALL):
        measured = {"truth_sq": truth.square().sum(-1)} | {measure: shares[measure][source] for measure in MEASURES}
        of_units = {name: value.reshape(len(numbers), -1).mean(-1).tolist() for name, value in measured.items()}
        for i, number in enumerate(numbers):
            row: gm_lab.Row = {**place, "source": source, unit: number}
            found.append(row | {name: values[i] for name, values in of_units.items()})
    return found
