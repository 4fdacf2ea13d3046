"""The sources of an error: which there are, what clipping and Adam do to it, and the rows of results.csv."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import gm_lab
from gm_experiments.common import settings as common
from gm_experiments.common.checks import require_finite, require_points

if TYPE_CHECKING:
    from torch import Tensor

    from gm_estimators.attribution import AdamDistortion

Source = Literal["composition", "hessian", "outer", "shared_batch", "critic", "clipping", "adam"]
SOURCES: tuple[Source, ...] = ("composition", "hessian", "outer", "shared_batch", "critic", "clipping", "adam")
OF_PROBLEM = frozenset({"shared_batch", "critic"})
"""Sources that say what is sampled; clipping and Adam come after it."""
KEY = (*common.KEY[:-1], "updates", "source")
METRICS = ("bias_sq", "variance", "truth_sq")
ALL = "all"
"""The row with the error itself, to which the shares sum."""


def check(settings: Any) -> None:
    """Refuses flags of where to measure, and what, that are out of range."""
    gm_lab.require(settings, "clip_norm", "a positive number", settings.clip_norm > 0)
    require_points(settings)
    for name in ("points", "sources"):
        values = getattr(settings, name)
        gm_lab.require(settings, name, "different values", len(set(values)) == len(values))


def curves(unit: str) -> gm_lab.Curves:
    """Each source's share over the updates, averaged over the units."""
    by = tuple(column for column in KEY if column != "updates")
    return gm_lab.Curves(by=by, x="updates", y=("bias_sq", "variance"), over=unit)


def in_practice(
    sampled: "Callable[[frozenset[str]], Mapping[str, Tensor]]", adam: "AdamDistortion", clip_norm: float
) -> "Callable[[frozenset[str]], Tensor]":
    """S ↦ estimates `[*unit, repeat, size]` with S as in practice; `sampled` is asked once for each of `OF_PROBLEM`."""
    import torch

    from gm_estimators.attribution import clipped, permutation_of

    sampled, truth = cache(sampled), adam.truth.unsqueeze(-2)

    def estimate(some: frozenset[str]) -> "Tensor":
        permutation = permutation_of(some)
        x = torch.cat((truth, truth), -2) if permutation == "EEE" else sampled(some & OF_PROBLEM)[permutation]
        if "clipping" in some:
            x = clipped(x, clip_norm * torch.linalg.vector_norm(truth, dim=-1, keepdim=True))
        return adam(x) if "adam" in some else x

    return estimate


def rows(
    estimate: "Callable[[frozenset[str]], Tensor]", sources: Sequence[str], truth: "Tensor", unit: str,
    numbers: Sequence[int], **place: str | float,
) -> list[gm_lab.Row]:  # fmt: skip
    """Every source's share, and the error itself, averaged over learners; the truth is `[unit, *learner, size]`."""
    from gm_estimators.attribution import MEASURES, attribute

    shares = attribute(estimate, sources, truth)
    whole = estimate(frozenset(sources))
    for measure, function in MEASURES.items():
        shares[measure] = {**shares[measure], ALL: function(whole, truth)}
    table: list[gm_lab.Row] = []
    for source in (*sources, ALL):
        measured = {"truth_sq": truth.square().sum(-1)} | {measure: shares[measure][source] for measure in MEASURES}
        of_units = {name: value.reshape(len(numbers), -1).mean(-1).tolist() for name, value in measured.items()}
        for i, number in enumerate(numbers):
            values = {name: each[i] for name, each in of_units.items()}
            table.append({**place, "source": source, unit: number, **values})
    require_finite(table, METRICS, "learning rates")
    return table
