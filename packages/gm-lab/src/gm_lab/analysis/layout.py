"""Where things of a picture go: wrapped text, room around the panels, labels beside the ends of lines."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.text import Annotation

LEADING = 1.25
"""Height of a line of text in units of its size."""
CAPTION = 8.0
"""Size of a caption in points."""
GAP = 0.15
"""Room between two labels beside lines, in units of their size."""
POINTS = 72
"""Points in an inch."""


@cache
def end_label() -> "type[Annotation]":
    """The class of a line's name at the right edge of its panel, made late: importing Matplotlib takes its time."""
    from matplotlib.text import Annotation

    class EndLabel(Annotation):
        """As high as the line ends unless another label is in its way."""

        def get_tightbbox(self, renderer: Any = None) -> Any:
            """The room that it takes; Matplotlib takes the offset for a place, which a logarithmic axis lacks."""
            return self.get_window_extent(renderer)

    return EndLabel


@cache
def layout() -> "type[ConstrainedLayoutEngine]":
    """The class of Matplotlib's constrained layout after which labels at the ends of lines move apart."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    class Layout(ConstrainedLayoutEngine):
        """Keeps the legends of the whole figure beneath the panels and above the caption."""

        def execute(self, fig: "Figure") -> Any:
            """Places everything; called whenever the figure is drawn."""
            if taken := _legends(fig):
                self.set(rect=(0, taken, 1, 1 - taken))
            super().execute(fig)
            done = super().execute(fig)  # once more, since the ticks depend on the size that the panels got
            for axes in fig.axes:
                spread(axes)
            return done

    return Layout


def _legends(figure: "Figure") -> float:
    """Moves legends above the caption, and returns the share of the height that they take."""
    lines = figure.get_supxlabel().count("\n") + 1 if figure.get_supxlabel() else 0
    above = lines * CAPTION * LEADING / POINTS + (0.12 if lines else 0)
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0.5, above * figure.dpi / figure.bbox.height), figure.transFigure)
    taken = sum(legend.get_window_extent().height for legend in figure.legends) / figure.bbox.height
    return taken + 0.01 if taken else 0.0


def spread(axes: "Axes") -> None:
    """Moves the end labels of a panel up and down as little as keeps them apart and within the panel."""
    labels = [text for text in axes.texts if isinstance(text, end_label())]
    if not labels:
        return
    scale = POINTS / axes.figure.dpi
    low, high = np.array([axes.bbox.y0, axes.bbox.y1]) * scale
    wanted = np.array([axes.transData.transform((1, label.xy[1]))[1] for label in labels]) * scale
    wanted = np.clip(np.nan_to_num(wanted, nan=low), low, high)
    counts = [1 + label.get_text().count("\n") for label in labels]
    heights = np.array(
        [float(label.get_fontsize()) * (LEADING * n + GAP) for label, n in zip(labels, counts, strict=True)]
    )
    for label, at, shift in zip(labels, wanted, apart(wanted, heights, low, high) - wanted, strict=True):
        label.xyann = (label.xyann[0], float(shift))
        label.xy = (1.0, float(axes.transData.inverted().transform((0, at / scale))[1]))


def apart(wanted: "np.ndarray[Any, Any]", heights: "np.ndarray[Any, Any]", low: float, high: float) -> Any:
    """Heights near the wanted ones, by least squares, at which things so high don't overlap between low and high."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    sizes = heights[order]
    # where each would be, were all stacked upon the lowest: what is left of the wanted places mustn't fall
    stacked = np.concatenate([[0.0], np.cumsum((sizes[1:] + sizes[:-1]) / 2)])
    least, most = low + sizes[0] / 2, max(high - sizes[-1] / 2 - stacked[-1], low + sizes[0] / 2)
    at = np.clip(isotonic_regression(wanted[order] - stacked).x, least, most) + stacked
    placed = np.empty_like(at)
    placed[order] = at
    return placed


def width_of(text: str, size: float, weight: str = "normal") -> float:
    """How wide a line of text is, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)
    return float(width) / POINTS


def wrapped(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """Breaks a text between words into lines of no more than so many inches, and within words that are longer.

    What is on both sides of "=" stays in one line.
    """
    lines: list[str] = []
    for word in re.split(r"(?<! =) +(?!= )", " ".join(text.split())):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size, weight) <= inches:
            lines[-1] = longer
        else:
            lines += _pieces(word, inches, size, weight)
    return "\n".join(lines)


def balanced(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """Like `wrapped`, with lines about as long as each other rather than a last word alone."""
    lines = wrapped(text, inches, size, weight)
    for share in np.arange(0.95, 0.4, -0.05):
        narrower = wrapped(text, inches * share, size, weight)
        if narrower.count("\n") > lines.count("\n"):
            break
        lines = narrower
    return lines


def _pieces(word: str, inches: float, size: float, weight: str) -> list[str]:
    pieces = [word]
    while len(pieces[-1]) > 1 and width_of(pieces[-1], size, weight) > inches:
        rest = pieces.pop()
        fits = next(
            end for end in range(len(rest) - 1, 0, -1) if end == 1 or width_of(rest[:end], size, weight) <= inches
        )
        pieces += [rest[:fits], rest[fits:]]
    return pieces


def number(value: float) -> str:
    """A tick of a logarithmic axis in plain digits, or as 1e−9 if those were many: superscripts are too small."""
    if value == 0 or 1e-7 < abs(value) < 1e7:
        return f"{value:,.7f}".rstrip("0").rstrip(".")
    return f"{value:.3g}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-").replace("-", "−")


def logarithmic(axis: "Axis") -> None:
    """Ticks of a logarithmic axis that can be read: powers of ten, with 2 and 5 between where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    def between(value: float, _place: int) -> str:
        low, high = sorted(axis.get_view_interval())
        leading = round(value / 10.0 ** np.floor(np.log10(value) + 1e-9))
        return number(value) if high / low < 30 and leading in (2, 5) else ""

    axis.set_major_locator(LogLocator(10, numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: number(value)))
    axis.set_minor_formatter(FuncFormatter(between))


def written_out(axis: "Axis", values: Sequence[float], inches: float, size: float) -> None:
    """Ticks at given values, with the numbers of as many as fit, the largest among them."""
    from matplotlib.ticker import NullFormatter, NullLocator

    ticks = sorted(set(values))
    texts = [number(tick) for tick in ticks]
    widest = max(width_of(text, size) for text in texts) + 0.08
    step = max(1, int(np.ceil(len(ticks) * widest / inches)))
    shown = {len(ticks) - 1 - place for place in range(0, len(ticks), step)}
    axis.set_ticks(ticks, [text if place in shown else "" for place, text in enumerate(texts)])
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
