"""results.csv becomes figures."""

from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common import coincide
from gm_experiments.common.dots import MOST, dot, moment, named_rows
from gm_experiments.common.findings import joined
from gm_experiments.mgrl import findings
from gm_experiments.mgrl.findings import LABELS, SYMBOLS
from gm_experiments.mgrl.settings import ENDS, PARTS, SECONDS, Settings
from gm_experiments.mgrl.tables import games_of, variants_of
from gm_experiments.mgrl.training import NAMES
from gm_lab import analysis
from gm_lab.analysis import Interval, category_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "same": "cosine to LVC's",
    "spread": "spread to LVC's",
    "accuracy": "cosine to reference",
    "bias_sq": "squared bias",
    "variance": "variance",
    "change": "change from LVC",
}
"""Measures in the order of their panels, of which a picture has four; runs of older versions lack the first two."""
COSINES = ("same", "accuracy")
LOOKS = {name: category_style(place) for place, name in enumerate(LABELS)}
POINTS = 5
"""Where the looks of points of a run begin, after those of algorithms."""
PAPER_STEPS = 40_000_000
MOST_TICKS, MOST_DECADES = 2, 9
UNITS = ((2e6, 1e6, ", millions"), (2e4, 1e3, ", thousands"))
"""From how many steps on an axis counts them in what."""


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws what results.csv has: Figures 3 and 9, Figure 10, what the meta-gradient is like, and where time goes."""
    log, measured, timed = (frame[frame["figure"] == name] for name in ("returns", "gradient", "throughput"))
    pictures: dict[str, Figure] = {}
    games = games_of(log)
    for place in range(0, len(games), MOST):
        name = "returns" if place == 0 else f"returns_{place // MOST + 1}"
        pictures[name] = _returns(log, games[place : place + MOST])
    learnt = log[log["algorithm"] != "a2c"]
    for place, game in enumerate(games_of(learnt)):
        name = "meta_parameters" if place == 0 else f"meta_parameters_{place + 1}"
        pictures[name] = _meta_parameters(learnt[learnt["game"] == game])
    if _measures(measured):
        pictures["gradient"] = _gradient(measured)
    # runs of older versions have no parts of the time, nor has one that was resumed after its last update
    spent = timed[timed[list(SECONDS)].sum(axis=1) > 0] if SECONDS[0] in frame else timed.head(0)
    if not spent.empty:
        pictures["time"] = _time(spent)
    return pictures


def _returns(log: "pd.DataFrame", games: list[str]) -> "Figure":
    figure = analysis.panels(games, height=2.6, share_y=False)
    for axes, game in zip(figure.axes, games, strict=True):
        finished = log[(log["game"] == game) & log["episode_return"].notna()]
        _over_steps(axes, finished, "episode_return", "return of finished games")
    short = log["env_steps"].max() < PAPER_STEPS
    paper = f" The paper's runs have {PAPER_STEPS:,} steps, five of each algorithm." if short else ""
    caption = f"Mean return of the games that ended since the last point. {_intervals(log)} "
    caption += f"{coincide.said(figure.axes)}{paper}"
    analysis.entitle(figure, findings.returns(log), caption)
    return figure


def _meta_parameters(log: "pd.DataFrame") -> "Figure":
    figure = analysis.panels(list(SYMBOLS.values()), rows=2, height=1.8, share_y=False)
    for axes, name in zip(figure.axes, NAMES, strict=True):
        _over_steps(axes, log, name, "")
    game = log["game"].iloc[0]
    caption = (
        f"What MGRL learns beside the policy, in {game}; axes begin where the paths do, not at 0. {_intervals(log)} "
        f"{coincide.said(figure.axes)}"
    )
    analysis.entitle(figure, findings.meta_parameters(log), caption)
    return figure


def _over_steps(axes: "Axes", log: "pd.DataFrame", value: str, label: str) -> None:
    most = log["env_steps"].max()
    size, unit = next(((size, unit) for least, size, unit in UNITS if most >= least), (1.0, ""))
    analysis.lines(
        axes, log, "env_steps", value, by="algorithm", over="seed", labels=LABELS, looks=LOOKS, direct=True,
        names=[name for name in LABELS if name in set(log["algorithm"])], x_label=f"environment steps{unit}",
        y_label=label, marks=False,
    )  # fmt: skip
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps / size:,.6g}")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlim(left=0)


def _intervals(log: "pd.DataFrame") -> str:
    runs = log["seed"].nunique()
    return f"Bands: 95% intervals over {runs} runs." if runs > 1 else "One run each: there are no intervals."


def _measures(rows: "pd.DataFrame") -> list[str]:
    """What is drawn of the variants: what was measured, none in runs that measured nothing."""
    return [measure for measure in TITLES if measure in rows and rows[measure].notna().any()][:MOST]


def _gradient(rows: "pd.DataFrame") -> "Figure":
    """A line for each variant, a panel for each measure, a dot for each point of the run."""
    variants = variants_of(rows)
    points = sorted(rows["updates"].unique())
    measures = _measures(rows)
    figure = analysis.panels([TITLES[name] for name in measures], height=0.25 * len(variants) + 0.75)
    for axes, measure in zip(figure.axes, measures, strict=True):
        columns = [f"{measure}{end}" for end in ENDS]
        # runs of older versions have no intervals, and those of two windows unbounded ones
        known = rows.reindex(columns=["updates", "variant", *columns]).replace([-np.inf, np.inf], np.nan)
        of_points = known.groupby(["updates", "variant"]).mean()
        if measure in COSINES:
            axes.set_xlim(-1.05, 1.05)
            axes.axvline(0, color="black", linewidth=0.9, zorder=1)
        elif measure == "spread":
            _ratios(axes, of_points[columns])
        else:
            _magnitudes(axes, of_points[columns])
        for k, at in enumerate(points):
            look = category_style(k + POINTS)
            shift = 0.22 * (k - (len(points) - 1) / 2) * min(1, 3 / len(points))
            for place, variant in enumerate(variants):
                if (at, variant) in of_points.index:
                    mean, low, high = (float(of_points[column].loc[(at, variant)]) for column in columns)
                    dot(axes, place + shift, Interval(mean, low, high, 1), look)
            if axes is figure.axes[-1]:
                analysis.end_label(axes, np.array([shift]), moment(at), look.colour)
        named_rows(axes, [findings.name_of(variant) for variant in variants])
    beside = "; the change is in its lengths"
    if "same" in measures:
        beside = "; cosines to LVC's are on the same window, which plain ascent lacks; spreads are standard deviations"
    caption = (
        f"Meta-gradients of one window with respect to the four logits, in {joined(games_of(rows))}. The reference is "
        f"the mean of Loaded-DiCE{beside}. A bias at the left edge is not above 0. "
        f"Bars: 95% intervals (jackknife) over {rows['windows'].max():g} windows of one run."
    )
    analysis.entitle(figure, findings.gradient(rows), caption)
    return figure


def _magnitudes(axes: "Axes", values: "pd.DataFrame") -> None:
    """Sets a scale of magnitudes from 0 on, with few enough ticks to be read; what is below 0 is not told from 0."""
    means = values.iloc[:, 0]
    exponents = np.floor(np.log10(means[means > 0])) if (means > 0).any() else np.zeros(1)
    ends = values.to_numpy()
    last = int(np.floor(np.log10(ends[ends > 0].max()))) + 1 if (ends > 0).any() else 1
    first = max(int(exponents.min()), last - MOST_DECADES)
    axes.set_xscale("symlog", linthresh=10.0**first)
    apart = -(-(last - first) // MOST_TICKS)
    exponents = range(last, first, -apart)
    axes.set_xticks([0.0, *(10.0**exponent for exponent in exponents)], ["0", *map(_power, exponents)])
    axes.minorticks_off()
    axes.set_xlim(-0.2 * 10.0**first, 1.5 * 10.0**last)


def _ratios(axes: "Axes", values: "pd.DataFrame") -> None:
    """Sets a scale of ratios, with a line at 1 and a tick at each end."""
    known = values.to_numpy()
    exponents = np.log10(known[np.isfinite(known) & (known > 0)])
    first, last = (int(f(end)) for f, end in ((np.floor, exponents.min() - 0.01), (np.ceil, exponents.max() + 0.01)))
    axes.set_xscale("log")
    axes.set_xticks([10.0**e for e in (first, 0, last)], [_power(e) for e in (first, 0, last)])
    axes.minorticks_off()
    axes.set_xlim(10.0 ** (first - 0.1), 10.0 ** (last + 0.1))
    axes.axvline(1, color="black", linewidth=0.9, zorder=1)


def _power(exponent: int) -> str:
    return f"{10.0**exponent:,g}" if -3 <= exponent <= 3 else f"$10^{{{exponent}}}$"


def _time(rows: "pd.DataFrame") -> "Figure":
    """A line for each part of the work, a bar for each algorithm: its share of the wall time."""
    parts = rows[list(SECONDS)].groupby(rows["algorithm"]).sum()
    shares = parts.div(parts.sum(axis=1), axis=0).mul(100)
    names = [name for name in LABELS if name in shares.index]
    figure = analysis.panels([""], height=0.5 + 0.12 * len(PARTS) * (len(names) + 1))
    (axes,) = figure.axes
    width = 0.8 / len(names)
    for rank, name in enumerate(names):
        places = np.arange(len(PARTS)) + width * (rank - (len(names) - 1) / 2)
        bars = axes.barh(places, shares.loc[name], height=0.9 * width, color=LOOKS[name].colour, label=LABELS[name])
        axes.bar_label(bars, [f"{share:.0f}" for share in shares.loc[name]], padding=3, fontsize=7.5)
    named_rows(axes, PARTS)
    axes.set_xlabel("share of the wall time, %")
    axes.legend(loc="best", frameon=False, fontsize=8)
    runs = rows.groupby("algorithm")["seed"].size().max()
    caption = f"Shares of the wall time of {'one run' if runs == 1 else f'up to {runs} runs'} of each algorithm."
    analysis.entitle(figure, findings.time(rows), caption)
    return figure
