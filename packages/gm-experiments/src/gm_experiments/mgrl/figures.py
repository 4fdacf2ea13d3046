"""results.csv becomes figures."""

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.mgrl.settings import ENDS, NAMES, PARTS, SECONDS, Settings
from gm_experiments.mgrl.tables import games_of, variants_of
from gm_lab import analysis
from gm_lab.analysis import COLOURS, MARKERS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"a2c": "A2C", "mgrl": "MGRL", "mgrl-lvc": "MGRL + LVC"}
SYMBOLS = dict(zip(NAMES, ("discount γ", "GAE λ", "value coefficient", "entropy coefficient"), strict=True))

TITLES = {
    "accuracy": "cosine to the reference's mean",
    "bias_sq": "squared bias",
    "variance": "variance",
    "change": "relative change from lvc",
}
MOST_TICKS, MOST_DECADES = 4, 9


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws what results.csv has: Figures 3 and 9, Figure 10, what the meta-gradient is like, and where time goes."""
    log, measured, timed = (frame[frame["figure"] == name] for name in ("returns", "gradient", "throughput"))
    parts = {
        "returns": (_returns, log),
        "meta_parameters": (_meta_parameters, log[log["algorithm"] != "a2c"]),
        "gradient": (_gradient, measured),
        # runs of older versions have no parts of the time
        "time": (_time, timed if SECONDS[0] in frame else timed[:0]),
    }
    return {name: draw(rows) for name, (draw, rows) in parts.items() if not rows.empty}


def _returns(log: "pd.DataFrame") -> "Figure":
    games = games_of(log)
    columns = min(len(games), 4)
    rows = -(-len(games) // columns)
    figure = analysis.panels(games[:columns], width=3.4, height=2.9, rows=rows, share_y=False)
    for axes, game in zip(figure.axes, games, strict=False):
        axes.set_title(game, fontsize=10, loc="left")
        finished = log[(log["game"] == game) & log["episode_return"].notna()]
        _over_steps(axes, finished, "episode_return", "return of finished games")
    for axes in figure.axes[len(games) :]:
        axes.set_axis_off()
    analysis.shared_legend(figure)
    return figure


def _meta_parameters(log: "pd.DataFrame") -> "Figure":
    games = games_of(log)
    figure = analysis.panels(list(SYMBOLS.values()), width=2.7, height=2.4, rows=len(games), share_y=False)
    for axes, (game, name) in zip(figure.axes, product(games, NAMES), strict=True):
        _over_steps(axes, log[log["game"] == game], name, game)
    analysis.shared_legend(figure)
    return figure


def _over_steps(axes: "Axes", log: "pd.DataFrame", value: str, label: str) -> None:
    analysis.lines(
        axes, log.assign(millions=log["env_steps"] / 1e6), "millions", value, by="algorithm", over="seed",
        labels=LABELS, x_label="environment steps, millions", y_label=label, marks=False,
    )  # fmt: skip


def _gradient(rows: "pd.DataFrame") -> "Figure":
    variants = variants_of(rows)
    points = sorted(rows["updates"].unique())
    measures = [measure for measure in TITLES if measure in rows]
    figure = analysis.panels([TITLES[name] for name in measures], width=2.9, height=1.1 + 0.36 * len(variants))
    for axes, measure in zip(figure.axes, measures, strict=True):
        columns = [f"{measure}{end}" for end in ENDS]
        # runs of older versions have no intervals, and those of two windows unbounded ones
        known = rows.reindex(columns=["updates", "variant", *columns]).replace([-np.inf, np.inf], np.nan)
        shown = known.groupby(["updates", "variant"]).mean()
        for k, at in enumerate(points):
            value, low, high = (shown.loc[at].reindex(variants)[name] for name in columns)
            offsets = [i + 0.22 * (k - (len(points) - 1) / 2) for i in range(len(variants))]
            axes.errorbar(
                value, offsets, xerr=[value - low, high - value], fmt=MARKERS[k % len(MARKERS)],
                color=COLOURS[k % len(COLOURS)], elinewidth=1.2, label=f"after {at:g} updates",
            )  # fmt: skip
        axes.set_yticks(range(len(variants)), variants)
        if measure != "accuracy":
            _magnitudes(axes, shown[measure])
    # all panels have one vertical axis
    figure.axes[0].invert_yaxis()
    analysis.shared_legend(figure)
    return figure


def _magnitudes(axes: "Axes", values: "pd.Series[float]") -> None:
    """Sets a scale of magnitudes from 0 on, with few enough ticks to be read; what is below 0 is not told from 0."""
    exponents = np.floor(np.log10(values[values > 0])) if (values > 0).any() else np.zeros(1)
    last = int(exponents.max()) + 1
    first = max(int(exponents.min()), last - MOST_DECADES)
    axes.set_xscale("symlog", linthresh=10.0**first)
    apart = -(-(last - first) // MOST_TICKS)
    axes.set_xticks([0.0, *(10.0**exponent for exponent in range(last, first, -apart))])
    axes.minorticks_off()
    axes.set_xlim(-0.2 * 10.0**first, 3 * 10.0**last)


def _time(rows: "pd.DataFrame") -> "Figure":
    parts = rows[list(SECONDS)].groupby(rows["algorithm"]).sum()
    shares = parts.div(parts.sum(axis=1), axis=0).mul(100)
    figure = analysis.panels([""], width=7.2, height=1.3 + 0.4 * len(shares))
    (axes,) = figure.axes
    done = 0 * shares[SECONDS[0]]
    for k, (part, column) in enumerate(zip(PARTS, SECONDS, strict=True)):
        axes.barh(
            [LABELS[name] for name in shares.index], shares[column], left=done, color=f"C{k}", edgecolor="white",
            hatch=("", "//")[k % 2], label=part,
        )  # fmt: skip
        done = done + shares[column]
    axes.invert_yaxis()
    axes.set_xlabel("share of the wall time, per cent")
    analysis.shared_legend(figure, columns=3)
    return figure
