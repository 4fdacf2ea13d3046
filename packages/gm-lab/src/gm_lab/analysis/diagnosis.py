"""The picture of a diagnosis: how wrong each estimator is, and from which source."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gm_lab.analysis.figures import GREY, MOST, SMALL, TEXT, TITLE, entitle, panels
from gm_lab.analysis.palette import styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
LABELS = {"ad": "AD", "dice": "DiCE", "first_order": "first order", "loaded_dice": "Loaded-DiCE", "lvc": "LVC"}
SOURCES = {
    "composition": ("composition", "n inner trajectories"),
    "hessian": ("Hessian", "by the estimator"),
    "outer": ("outer gradient", "from samples"),
    "gae_lambda": ("λ of advantages", "below 1"),
    "shared_batch": ("shared batch", "for step and Jacobian"),
    "reuse": ("batch used again", "of an earlier step"),
    "clipping": ("clipping", "held constant"),
}
"""What people call a source, and what it is in practice in some words."""
WHOLE = {
    "bias_sq": ("squared bias", "the sum of these"),
    "along": ("bias along g", "+ too long, − too short"),
    "variance": ("variance", "of one estimate"),
}
GAP = 0.7
"""Room between the sources and what there is in all, in rows."""
BAR = 0.56
PALE = 0.3
"""How opaque a bar is whose interval reaches 0."""
NUMBER = 0.055
"""Part of all panels together that a number takes."""
FAR = 1.6
"""Intervals are cut off at so many times the largest value."""


def diagnosis_figure(rows: Sequence[Row], caption: str = "") -> "Figure":
    """For each estimator a panel of bars: one for each source of its squared bias, then this, others and the variance.

    Lines are 95% intervals. A bar is pale where its interval reaches 0. All panels have one axis, so that areas
    compare; what is beyond it is cut off, its number beside it. Of more than four estimators the first four are shown.

    Args:
        rows: estimator, measure (bias_sq, along, variance, mse), source (empty for the whole), value, low and high, in
            units of the squared length of the meta-gradient g, as `gm_estimators.diagnose.Report.rows` has them.
        caption: what else is to be said of the picture.

    Raises:
        ValueError: if there is no row with a source.

    Examples:
        >>> from gm_lab.analysis import diagnosis_figure, finding_of
        >>> whole = {"estimator": "ad", "measure": "bias_sq", "source": "", "value": 0.5, "low": 0.4, "high": 0.6}
        >>> figure = diagnosis_figure([whole, {**whole, "source": "hessian"}])
        >>> print(finding_of(figure))
        AD: squared bias of 50% [40, 60] of ‖g‖², its largest source the Hessian
    """
    if not sources_of(rows):
        raise ValueError("rows: expected some with a source, got none")
    names = estimators_of(rows)
    shown, left = names[:MOST], names[MOST:]
    looks, lines = styles(names), _lines(rows)
    whole = {str(row["estimator"]): in_percent(row) for row in _of_whole(rows, "bias_sq")}
    figure = panels([label_of(name) for name in shown], height=0.75 + 0.33 * (len(lines) + GAP), share_y=False)
    low, high = _limits([row for row in rows if row["measure"] == "bias_sq"])
    for axes, name in zip(figure.axes, shown, strict=True):
        title = (": " if len(shown) < MOST else "\n").join(filter(None, (label_of(name), whole.get(name))))
        look: Any = {"color": looks[name].colour, "fontsize": TITLE, "fontweight": "bold", "parse_math": False}
        axes.set_title(title, loc="left", **look)
        axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
        for row in rows:
            if row["estimator"] == name and (place := lines.get((row["measure"], row["source"]))) is not None:
                _bar(axes, place, row, looks[name].colour, NUMBER * len(shown))
        _named(axes, lines, axes is figure.axes[0])
        axes.set_xlabel("% of ‖g‖²")
    for axes in figure.axes[1:2] if len(shown) == 3 else figure.axes if len(shown) < 3 else ():
        axes.set_xlabel("← hides error     % of ‖g‖²     adds to it →")
    explained = (
        "Above each panel the squared bias. Bars in % of ‖g‖², g the true meta-gradient; a share below 0 hides error. "
        "Lines are 95% intervals, pale bars not told apart from 0."
    )
    more = f"Not shown: {listed([label_of(name) for name in left])}." if left else ""
    entitle(figure, finding(rows), " ".join(filter(None, (caption, explained, more))))
    return figure


def finding(rows: Sequence[Row]) -> str:
    """What the intervals tell: squared biases with the largest's largest source, and else what there is along g."""
    squares, lengths = ({row["estimator"]: row for row in _of_whole(rows, measure)} for measure in ("bias_sq", "along"))
    told = sorted((row for row in squares.values() if row["low"] > 0), key=lambda row: -float(row["value"]))
    rest = [name for name, row in squares.items() if not row["low"] > 0]
    only_along = [name for name in rest if name in lengths and _is_told(lengths[name])]
    hidden = [label_of(name) for name in rest if name not in only_along]
    said = ["No squared bias is told apart from 0"]
    if told:
        worst, *others = told
        largest = _source_of(rows, worst["estimator"])
        said = [f"{label_of(worst['estimator'])}: squared bias of {in_percent(worst)} of ‖g‖², {largest}"]
        said += [f"{label_of(row['estimator'])} {in_percent(row)}" for row in others]
    if only_along:
        off = [f"{label_of(name)} is off by {in_percent(lengths[name])}" for name in only_along]
        said.append(f"along g {listed(off)}")
    if told and hidden:
        said.append(f"{listed(hidden)} not told apart from 0")
    return "; ".join(said)


def _of_whole(rows: Sequence[Row], measure: str) -> list[Row]:
    return [row for row in rows if row["measure"] == measure and not row["source"]]


def _is_told(row: Row) -> bool:
    """Whether the interval leaves 0 out."""
    return bool(row["low"] > 0 or row["high"] < 0)


def _source_of(rows: Sequence[Row], estimator: str) -> str:
    """What is told of an estimator's largest source."""
    of_estimator = [row for row in rows if row["estimator"] == estimator]
    shares = [row for row in of_estimator if row["measure"] == "bias_sq" and row["source"]]
    told = [row for row in shares if row["low"] > 0]
    if not told:
        return "its sources not told apart"
    largest = max(told, key=lambda row: float(row["value"]))
    name = {"hessian": "the Hessian", "outer": "the outer gradient"}.get(
        largest["source"], source_label(largest["source"])
    )
    apart = all(row["high"] < largest["low"] for row in shares if row is not largest)
    return f"its largest source {name}" if apart else f"one of its sources {name}"


def estimators_of(rows: Sequence[Row]) -> list[str]:
    """The estimators' names, in the order of the rows."""
    return list(dict.fromkeys(str(row["estimator"]) for row in rows))


def sources_of(rows: Sequence[Row]) -> list[str]:
    """The sources' names, in the order of the rows."""
    return list(dict.fromkeys(str(row["source"]) for row in rows if row["source"]))


def label_of(estimator: str) -> str:
    """The name of an estimator for people."""
    return LABELS.get(estimator, estimator)


def source_label(source: str) -> str:
    """The name of a source for people."""
    return SOURCES[source][0] if source in SOURCES else source.replace("_", " ")


def in_percent(row: Row) -> str:
    """A number with its 95% interval in per cent, or in times from ten on, both ends as precise as it is."""
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    if not math.isfinite(high - low + value):
        return "not told"
    scale, unit = (1.0, "×") if abs(value) >= 10 else (100.0, "%")
    digits = 0 if abs(value) * scale >= 10 else 1
    number, least, most = (f"{round(scale * x, digits) + 0.0:.{digits}f}".replace("-", "−") for x in (value, low, high))
    return f"{number}{unit} [{least}, {most}]"


def listed(names: Sequence[str]) -> str:
    """Names with commas, and an "and" before the last."""
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def _lines(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """At which height each measure of a source, or of the whole, stands."""
    sources, measures = sources_of(rows), {row["measure"] for row in rows if not row["source"]}
    places = {("bias_sq", source): float(place) for place, source in enumerate(sources)}
    there = [measure for measure in WHOLE if measure in measures]
    return places | {(measure, ""): len(sources) + GAP + place for place, measure in enumerate(there)}


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Ends of an axis in per cent for all values that are bounded, with room for their numbers."""
    bounded = [row for row in rows if math.isfinite(row["high"] - row["low"] + row["value"])]
    values = [100 * float(row["value"]) for row in bounded]
    far = FAR * max((abs(value) for value in values), default=1.0)
    ends = [min(max(100 * float(row[end]), -far), far) for row in bounded for end in ("low", "high")]
    low, high = min([0.0, *values, *ends]), max([0.0, *values, *ends])
    return (low, high + 0.3 * (high - low)) if high > low else (0.0, 100.0)


def _bar(axes: "Axes", place: float, row: Row, colour: str, room: float) -> None:
    """A number as a bar from 0 with its interval and, on the right, the number, which takes that part of the axis."""
    least, most = axes.get_xlim()
    value, low, high = (100 * float(row[name]) for name in ("value", "low", "high"))
    if not math.isfinite(high - low + value):
        value = low = high = 0.0
    ends = [max(low, least), min(high, most)]
    axes.barh(place, value, BAR, color=colour, alpha=1.0 if _is_told(row) else PALE, linewidth=0, zorder=2)
    axes.plot(ends, [place, place], color="#222222", linewidth=1.1, solid_capstyle="butt", zorder=3)
    number = in_percent(row).split(" [")[0]
    number = f"{number} »" if value > most else f"« {number}" if value < least else number
    at = max(0.0, min(value, most), ends[1])
    beside = at + room * (most - least) < most
    look: Any = {"fontsize": TEXT, "verticalalignment": "center", "zorder": 4, "parse_math": False}
    look |= {"fontweight": "bold", "color": "black"} if _is_told(row) else {"color": GREY}
    look |= {"horizontalalignment": "left" if beside else "right", "textcoords": "offset points"}
    if not beside:
        look["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 0.8}
    axes.annotate(number, (at if beside else most, place), xytext=(3 if beside else -3, 0), **look)


def _named(axes: "Axes", lines: Mapping[tuple[str, str], float], names: bool) -> None:
    """What each line is, at the left of the first panel; a rule above what there is in all."""
    words = {
        place: SOURCES.get(source, (source_label(source), "")) if source else WHOLE[measure]
        for (measure, source), place in lines.items()
    }
    axes.axvline(0, color="black", linewidth=0.9, zorder=3)
    axes.axhline(sum(bool(source) for _, source in lines) - 1 + (1 + GAP) / 2, color=GREY, linewidth=0.6, zorder=1)
    axes.set_ylim(max(lines.values()) + 0.6, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_yticks(
        [place - 0.17 * bool(word[1]) for place, word in words.items()], [word[0] for word in words.values()]
    )
    axes.set_yticks([place + 0.2 for place in words], [word[1] for word in words.values()], minor=True)
    axes.tick_params(axis="y", which="both", length=0, labelleft=names)
    axes.tick_params(axis="y", which="major", labelsize=TEXT)
    axes.tick_params(axis="y", which="minor", labelsize=SMALL - 0.5, labelcolor=GREY)
