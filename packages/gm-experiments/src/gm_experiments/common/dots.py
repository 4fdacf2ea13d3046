"""Rows of dots: a name, a number and its interval on each line, and which moments of training have a panel."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gm_lab.analysis import Interval, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 4
"""Panels in one picture."""


def dot(axes: "Axes", place: float, value: Interval, look: Style) -> None:
    """A number with its interval, at the edges of the panel where they leave it."""
    left, right = axes.get_xlim()
    if np.isfinite(value.low) and np.isfinite(value.high):
        ends = np.clip([value.low, value.high], left, right)
        axes.plot(ends, [place, place], color=look.colour, linewidth=2.2, alpha=0.4, solid_capstyle="butt", zorder=2)
    axes.plot(
        np.clip(value.mean, left, right), place, look.marker, color=look.colour, markersize=5.5,
        markeredgecolor="white", markeredgewidth=0.5, zorder=3, clip_on=False,
    )  # fmt: skip


def named_rows(axes: "Axes", names: Sequence[str]) -> None:
    """A line of the panel for each name, the first one at the top."""
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def moment(updates: float) -> str:
    """A point of training in words."""
    return "at the start" if updates == 0 else f"after {updates:,g} update{'s' if updates != 1 else ''}"


def shown(points: Sequence[float]) -> list[float]:
    """As many points of training as a picture has panels for, the first and the last among them."""
    if len(points) <= MOST:
        return list(points)
    return [points[round(place)] for place in np.linspace(0, len(points) - 1, MOST)]
