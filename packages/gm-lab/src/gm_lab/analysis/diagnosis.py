"""The picture of a diagnosis: how wrong each estimator is, and from which source."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gm_lab.analysis.figures import entitle, panels, shared_legend
from gm_lab.analysis.palette import Style, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
LABELS = {"ad": "AD", "dice": "DiCE", "loaded_dice": "Loaded-DiCE", "lvc": "LVC"}
MEASURES = {"bias_sq": "squared bias", "variance": "variance", "mse": "both"}
SPREAD = 0.6
"""Part of a line that its dots take."""


def diagnosis_figure(rows: Sequence[Row], caption: str = "") -> "Figure":
    """Two panels of dots with 95% intervals: shares of the squared bias by source, and the whole of each measure.

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
        AD: a squared bias of 50% of ‖g‖², most of it from hessian
    """
    sources = list(dict.fromkeys(str(row["source"]) for row in rows if row["source"]))
    if not sources:
        raise ValueError("rows: expected some with a source, got none")
    looks = styles(list(dict.fromkeys(str(row["estimator"]) for row in rows)))
    titles = ["where the squared bias comes from", "in all"]
    figure = panels(titles, height=0.8 + 0.34 * max(len(sources), 4), share_y=False)
    by_source = [row for row in rows if row["measure"] == "bias_sq" and row["source"]]
    whole = [row for row in rows if not row["source"] and row["measure"] in MEASURES]
    _dots(figure.axes[0], by_source, "source", {name: name.replace("_", " ") for name in sources}, looks)
    _dots(figure.axes[1], whole, "measure", MEASURES, looks)
    shared_legend(figure)
    entitle(figure, finding(rows), " ".join(filter(None, (caption, "In % of ‖g‖². Bars: 95% intervals."))))
    return figure


def finding(rows: Sequence[Row]) -> str:
    """What the intervals tell: the most biased estimator and its largest source, or that nothing is told apart."""
    whole = [row for row in rows if row["measure"] == "bias_sq" and not row["source"]]
    told = [row for row in whole if row["low"] > 0]
    if not told:
        return "No squared bias is told apart from 0"
    worst = max(told, key=lambda row: float(row["value"]))
    shares = [
        row for row in rows
        if row["measure"] == "bias_sq" and row["source"] and row["estimator"] == worst["estimator"] and row["low"] > 0
    ]  # fmt: skip
    said = f"{label_of(worst)}: a squared bias of {100 * worst['value']:.2g}% of ‖g‖²"
    if not shares:
        return f"{said}, whose source is not told"
    largest = max(shares, key=lambda row: float(row["value"]))
    others = [row for row in shares if row is not largest]
    apart = all(row["high"] < largest["low"] for row in others)
    return f"{said}, {'most of it' if apart else 'much of it'} from {str(largest['source']).replace('_', ' ')}"


def label_of(row: Row) -> str:
    """The name of a row's estimator for people."""
    return LABELS.get(str(row["estimator"]), str(row["estimator"]))


def _dots(axes: "Axes", rows: Sequence[Row], by: str, names: Mapping[str, str], looks: Mapping[str, Style]) -> None:
    """A line for each name, in it a dot for each estimator."""
    there = [name for name in names if any(row[by] == name for row in rows)]
    estimators = list(looks)
    for row in rows:
        offset = (estimators.index(str(row["estimator"])) + 0.5) / len(estimators) - 0.5
        place, look = there.index(str(row[by])) + SPREAD * offset, looks[str(row["estimator"])]
        if math.isfinite(row["high"] - row["low"]):
            ends = [100 * row["low"], 100 * row["high"]]
            axes.plot(ends, [place, place], color=look.colour, linewidth=2.2, alpha=0.4, solid_capstyle="butt")
        axes.plot(
            100 * row["value"], place, look.marker, color=look.colour, label=label_of(row),
            markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(there)), [names[name] for name in there])
    axes.set_ylim(len(there) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("% of ‖g‖²")
