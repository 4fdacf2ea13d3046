"""The map of the best choices over budget and α, and its table."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gm_experiments.frontier.choices import KINDS, USUAL, beside, held_out, name_of, ranked
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACE = {"inner_steps": "K", "updates": "updates", "inner_lr": "α", "sample_size": "n"}
OTHERS = {"usual": "usual", "jackknife": "best with jackknife", "apart": "best separate batches"}
"""What the best choice is compared with: columns of the table, and kinds of choices."""
HEADERS = {"usual": "× usual", "jackknife": "× jack- knife", "apart": "× apart", "unseen": "× new MDPs"}


def figures(rows: "pd.DataFrame") -> "dict[str, Figure]":
    """budgets: for each K a panel for each point of training, a cell for each budget and α."""
    places = list(rows.groupby("inner_steps", sort=True))
    return {
        "budgets" if len(places) == 1 else f"budgets_k{steps:g}": _map(of_steps, f"K = {steps:g}")
        for steps, of_steps in places
    }


def _map(rows: "pd.DataFrame", title: str) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    points, sizes, rates = (sorted(rows[column].unique()) for column in ("updates", "sample_size", "inner_lr"))
    table = best_choices(rows).set_index(["updates", "inner_lr", "sample_size"])
    most = max(2.0, float(table["usual"].max()))
    norm = LogNorm(1, most)
    titles = ["φ at the start" if point == 0 else f"φ after {point} exact updates" for point in points]
    width = max(7.0, 1.6 * len(sizes) + 1)
    figure = analysis.panels(titles[:1], width=width, height=0.75 * len(rates) + 0.8, rows=len(points))
    for axes, point, name in zip(figure.axes, points, titles, strict=True):
        _cells(axes, table.loc[point], sizes, rates, norm)
        axes.set_title(name, fontsize=10, loc="left")
        axes.tick_params(labelbottom=True)
    figure.axes[-1].set_xlabel("trajectories for one meta-gradient")
    bar = figure.colorbar(ScalarMappable(norm, "Blues"), ax=figure.axes, location="right", aspect=40)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= most]
    bar.set_ticks(ticks, labels=[f"{tick}" for tick in ticks], minor=False)
    bar.minorticks_off()
    bar.set_label("mean squared error of the usual choice over the best one's")
    first = f"{title}; the best choice, and its mean squared error in units of the mean ‖∇φ J‖² of the MDPs"
    figure.suptitle(f"{first}\n(above 1 it is worse than none); usual: {name_of(USUAL)}", fontsize=9)
    return figure


def _cells(axes: "Axes", table: "pd.DataFrame", sizes: list[Any], rates: list[Any], norm: Any) -> None:
    """A square for each budget (columns) and α (rows)."""
    ratio = np.array([[table.loc[(rate, size), "usual"] for size in sizes] for rate in rates])
    axes.imshow(np.nan_to_num(ratio, nan=1), norm=norm, cmap="Blues", aspect="auto", origin="lower")
    for i, rate in enumerate(rates):
        for j, size in enumerate(sizes):
            line = table.loc[(rate, size)]
            dark = np.isfinite(ratio[i, j]) and norm(ratio[i, j]) > 0.6
            estimator, *rest = line["best"].split(", ")
            text = f"{estimator}\n{', '.join(rest)}\n{_short(line['mse'])}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
    axes.set_yticks(range(len(rates)), [f"α {rate:g}" for rate in rates])
    axes.grid(visible=False)


def _short(value: float) -> str:
    """Two digits, without an exponent."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def best_choices(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The best choice for each K, point, α and budget, its error, and how many times that others have.

    Columns `usual`, `jackknife`, `apart`: the usual choice, the best one with a jackknife, and the best one whose three
    roles have samples of their own; `unseen`: what follows the best choice on the other MDPs.
    """
    import pandas as pd

    lines = []
    for place, rows in frame.groupby(list(PLACE), sort=True):
        table = ranked(rows)
        kinds, mean = beside(table), table.mean(axis=1)
        best = kinds["best"]
        line = dict(zip(PLACE, place, strict=True)) | {"best": name_of(best), "mse": mean[best]}
        for column, kind in OTHERS.items():
            other = best if KINDS[kind](best) else kinds.get(kind)
            line[column] = np.nan if other is None else mean[other] / mean[best]
        lines.append(line | {"unseen": held_out(table).mean() / mean[best]})
    return pd.DataFrame(lines)


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """`best_choices` in few columns."""
    table = best_choices(frame)
    varied = [column for column in PLACE if column == "sample_size" or table[column].nunique() > 1]
    place = table[varied].apply(lambda row: " ".join(f"{value:g}" for value in row), axis=1)
    short = table.drop(columns=list(PLACE)).rename(columns=HEADERS).round({"mse": 3})
    short["best"] = short["best"].str.removesuffix(" shared")
    short.insert(0, " ".join(PLACE[column] for column in varied), place)
    return short
