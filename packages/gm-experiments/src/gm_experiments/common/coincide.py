"""Curves that lie upon each other, of which one hides the other unless somebody says so."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.findings import capital, joined

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

NEAR = 0.01
"""So much of a panel's height is about as wide as a line."""


def said(panels: "Sequence[Axes]") -> str:
    """A sentence on the curves of some panels that coincide, by their labels; empty if none do."""
    found: dict[tuple[str, ...], list[str]] = {}
    for axes in panels:
        for names in coinciding(axes):
            found.setdefault(names, []).append(axes.get_title(loc="left").replace("\n", " "))
    sentences = [f"{joined(names)} coincide{_where(titles, len(panels))}" for names, titles in found.items()]
    return f"{capital('; '.join(sentences))}." if sentences else ""


def _where(titles: Sequence[str], panels: int) -> str:
    if panels == 1:
        return ""
    return " in every panel" if len(titles) == panels else f" in {joined(titles)}"


def coinciding(axes: "Axes") -> list[tuple[str, ...]]:
    """The labels of curves that are nowhere farther apart than a line is wide, those of each place together."""
    low, high = axes.get_ylim()
    groups: list[list[Line2D]] = []
    for one, other in combinations([line for line in axes.get_lines() if _is_curve(line)], 2):
        if _apart(one, other) <= NEAR * abs(high - low):
            group = next((group for group in groups if one in group or other in group), None)
            if group is None:
                groups.append([one, other])
            else:
                group += [line for line in (one, other) if line not in group]
    return [tuple(str(line.get_label()).strip() for line in group) for group in groups]


def _is_curve(line: "Line2D") -> bool:
    return not str(line.get_label()).startswith("_") and len(np.asarray(line.get_xdata())) > 1


def _apart(one: "Line2D", other: "Line2D") -> float:
    """The largest distance where both are; they have to be wherever the shorter one is."""
    x, y, u, v = (np.asarray(data, dtype=np.float64) for line in (one, other) for data in line.get_data())
    _, mine, theirs = np.intersect1d(x, u, return_indices=True)
    known = np.isfinite(y[mine]) & np.isfinite(v[theirs])
    if not known.any() or known.sum() < min(np.isfinite(y).sum(), np.isfinite(v).sum()):
        return float("inf")
    return float(np.abs(y[mine] - v[theirs])[known].max())
