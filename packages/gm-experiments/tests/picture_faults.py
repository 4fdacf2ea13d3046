"""What is wrong with a picture: what is too small, too pale, cut off, on top of something else, or unsaid."""

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from gm_experiments.common.labels import ESTIMATORS
from gm_lab import caption_of, finding_of, style_of
from gm_lab.analysis import WIDTH

SHOWN = 100
"""Pixels of an inch, where a picture is shown 830 pixels wide."""
SMALLEST, CONTRAST, PANELS = 9, 3, 4
MUTED = "#8A8A8A"
"""The grey of estimators that are beside the one that a picture is about."""


def contrast(colour):
    """That of a colour on white, by the relative luminance of WCAG 2.2."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05)


def faults(figure):
    """Every fault of a figure in words; none if it is as it should be."""
    figure.set_dpi(SHOWN)
    FigureCanvasAgg(figure).draw()
    boxes = dict(_seen(figure))
    return [*_unsaid(figure), *_small(boxes), *_pale(figure, boxes), *_cut(figure, boxes), *_overlapping(boxes),
            *_borrowed(figure)]  # fmt: skip


def _seen(figure):
    """Every text that is drawn and its box: ticks outside the limits are not."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            outside = [tick for tick in ticks if not low <= tick.get_loc() <= high]
            hidden |= {id(label) for tick in outside for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            box = text.get_window_extent()
            if box.width > 0:
                yield text, box


def _panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def _unsaid(figure):
    banded = any(
        isinstance(band, PolyCollection) and band.get_paths() for axes in figure.axes for band in axes.collections
    )
    if figure.get_figwidth() != WIDTH:
        yield f"{figure.get_figwidth()} inches wide"
    if len(_panels(figure)) > PANELS:
        yield f"{len(_panels(figure))} panels"
    if not finding_of(figure):
        yield "no finding"
    if not caption_of(figure):
        yield "no caption"
    elif banded and "interval" not in caption_of(figure):
        yield "bands without a word about intervals"


def _small(texts):
    for text in texts:
        if text.get_fontsize() * SHOWN / 72 < SMALLEST:
            yield f"{text.get_fontsize():g} pt: {text.get_text()}"


def _pale(figure, texts):
    for text in texts:
        # on a picture the background is not white
        if (text.axes is None or not text.axes.images) and contrast(text.get_color()) < CONTRAST:
            yield f"pale: {text.get_text()}"
    for axes in figure.axes:
        for line in axes.get_lines():
            if contrast(line.get_color()) < CONTRAST:
                yield f"pale line: {line.get_label()}"
        for points in axes.collections:
            if isinstance(points, PathCollection):
                drawn = [*points.get_edgecolors(), *points.get_facecolors()]
                if drawn and max(contrast(colour[:3]) for colour in drawn) < CONTRAST:
                    yield f"pale points: {points.get_label()}"


def _cut(figure, boxes):
    for text, box in boxes.items():
        if min(box.x0, box.y0) < -1 or box.x1 > figure.bbox.x1 + 1 or box.y1 > figure.bbox.y1 + 1:
            yield f"cut off: {text.get_text()}"


def _overlapping(boxes):
    for (one, first), (other, second) in combinations(boxes.items(), 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        if wide > 1 and high > 1:
            yield f"on top of each other: {one.get_text()!r} and {other.get_text()!r}"


def _borrowed(figure):
    """Lines of an estimator in a colour that isn't its own, and others in one that is."""
    colours = {style_of(name).colour: label for name, label in ESTIMATORS.items()}
    for axes in figure.axes:
        for line in axes.get_lines():
            label, owner = str(line.get_label()), colours.get(line.get_color())
            if label in colours.values() and label != owner and line.get_color() != MUTED:
                yield f"another's colour: {label}"
            elif owner and owner not in label and not label.startswith("_"):
                yield f"the colour of {owner}: {label}"
