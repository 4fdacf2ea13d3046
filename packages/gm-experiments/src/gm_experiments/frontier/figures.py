"""The pictures and the closing table that the frontier experiment makes of results.csv."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gm_experiments.common.labels import estimator as label_of
from gm_experiments.frontier import choices
from gm_experiments.frontier.choices import PLACE, USUAL
from gm_experiments.frontier.settings import Settings
from gm_lab import analysis
from gm_lab.analysis import Style, styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 7
"""How many of the best choices are ranked."""
HEADERS = {"usual": "× usual", "jackknife": "× jack- knife", "apart": "× apart", "unseen": "× new MDPs"}


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """One frontier for each K, α and budget, the curves of training, and the map of the best choices."""
    pictures: dict[str, Figure] = {}
    measured, trained, mapped = (frame[frame["figure"] == name] for name in ("frontier", "training", "budgets"))
    places = list(measured.groupby(PLACE, sort=True))
    for (steps, rate, budget), rows in places:
        name = f"frontier_k{steps:g}"
        if len({place[1:] for place, _ in places}) > 1:
            name += f"_lr{rate:g}_n{budget:g}"
        pictures[name] = _frontier(rows, f"{budget:g} trajectories, K = {steps:g}, α = {rate:g}")
    if len(trained):
        pictures["training"] = _training(trained)
    return pictures | (_maps(mapped) if len(mapped) else {})


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """What the frontier advises, or else what the map has, or what training ends with."""
    if (frame["figure"] == "budgets").all():
        return _best(frame)
    measured = frame[frame["figure"] == "frontier"]
    return advice(measured) if len(measured) else _trained(frame[frame["figure"] == "training"])


def advice(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The best choice for each K, α, budget and point, beside what other choices cost."""
    import pandas as pd

    lines = []
    for (steps, rate, budget, point), rows in frame.groupby([*PLACE, "updates"], sort=True):
        table = choices.ranked(rows)
        best = table.index[0]
        place = f"n {budget:g}, K {steps:g}, α {rate:g}, {point:g} updates"
        bias, variance = (choices.scores(rows, metric).mean(axis=1) for metric in ("bias_sq", "variance"))
        values = {label: (choices.name_of(c), table.loc[c], bias[c], variance[c])
                  for label, c in choices.beside(table).items()}  # fmt: skip
        values["chosen on other MDPs"] = ("", choices.held_out(table), np.nan, np.nan)
        for label, (name, each, *parts) in values.items():
            mse, more = analysis.mean_interval(each), analysis.paired_difference(each, table.loc[best])
            numbers = (*parts, mse.mean, mse.low, mse.high, more.low, more.high, mse.mean / table.loc[best].mean())
            names = ("bias²", "variance", "mse", "from", "to", "over best, from", "to ", "× best")
            lines.append({"at": place, "which": label, "choice": name} | dict(zip(names, numbers, strict=True)))
    return pd.DataFrame(lines)


def _frontier(rows: "pd.DataFrame", title: str) -> "Figure":
    points = sorted(rows["updates"].unique())
    figure = analysis.panels([title, "mean squared error"], width=5.2, height=3.3, rows=len(points), share_y=False)
    for axis in figure.axes:
        # each panel has an axis of its own: rows differ by magnitudes, and the right-hand labels are text
        axis.tick_params(labelbottom=True)
    ends = [choices.scores(part, "variance").mean(axis=1).agg(["min", "max"]) for _, part in rows.groupby("updates")]
    limits = 0.8 * min(end["min"] for end in ends), 1.25 * max(end["max"] for end in ends)
    for i, point in enumerate(points):
        here = rows[rows["updates"] == point]
        when = "φ at the start" if point == 0 else f"φ after {point} exact updates"
        _scatter(figure.axes[2 * i], here, limits)
        figure.axes[2 * i].text(0.02, 0.97, when, transform=figure.axes[2 * i].transAxes, va="top", weight="bold")
        _ranking(figure.axes[2 * i + 1], here)
    note = "black line: no choice has less of both; dotted: equal mean squared error; bars: 95% intervals over MDPs"
    analysis.shared_legend(figure, f"in units of the mean ‖∇φ J‖² of the MDPs; {note}")
    return figure


def _scatter(axes: "Axes", rows: "pd.DataFrame", limits: tuple[float, float]) -> None:
    """bias² against variance, with lines of equal mean squared error and the choices that no other beats in both."""
    bias, variance = choices.scores(rows, "bias_sq"), choices.scores(rows, "variance").mean(axis=1)
    # a squared bias is told from zero above about two standard errors; below, only its limit is known
    floor = max(1e-6, float((2 * bias.sem(axis=1)).fillna(0).quantile(0.1)))
    at = bias.mean(axis=1).clip(lower=floor)
    _points(axes, variance, at, styles(list(dict.fromkeys(rows["estimator"]))))
    front = _pareto(variance, at)
    axes.plot(variance[front], at[front], color="black", linewidth=1.2, drawstyle="steps-post", zorder=1)
    axes.set(xscale="log", yscale="log", xlim=limits, xlabel="variance", ylabel="squared bias")
    low, high = axes.get_ylim()
    for level in 10.0 ** np.arange(np.floor(np.log10(limits[0])), np.ceil(np.log10(limits[1])) + 0.1, 0.5):
        x = np.geomspace(level * 1e-3, level * (1 - 1e-9), 400)
        axes.plot(x, level - x, color="grey", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    for label, choice in {"best": choices.ranked(rows).index[0], "usual": USUAL}.items():
        if choice in at.index:
            axes.annotate(
                label, (variance[choice], at[choice]), (-4, 12), textcoords="offset points", ha="center", weight="bold",
                arrowprops={"arrowstyle": "-", "linewidth": 0.8},
            )  # fmt: skip
    axes.set(xlim=limits, ylim=(low, 2 * high))
    axes.text(0.98, 0.97, f"bias² below {floor:.1g} drawn at {floor:.1g}", transform=axes.transAxes, ha="right",
              va="top", fontsize=7)  # fmt: skip


def _points(axes: "Axes", x: "pd.Series[float]", y: "pd.Series[float]", looks: dict[str, Style]) -> None:
    """A point for each choice, filled without a jackknife and outlined with a shared batch, and what that means."""
    kinds = [(estimator, choices.batches(split) == 2, debias == "none") for estimator, _, split, debias in y.index]
    for kind in dict.fromkeys(kinds):
        (estimator, shared, plain), of_kind = kind, [other == kind for other in kinds]
        look = looks[estimator]
        axes.plot(
            x[of_kind], y[of_kind], look.marker, color=look.colour, markersize=5, alpha=0.85,
            markerfacecolor=look.colour if plain else "white", markeredgewidth=1.2 if shared else 0.8,
            markeredgecolor="black" if shared else look.colour, linestyle="none", zorder=3 if plain else 2,
        )  # fmt: skip
    for estimator, look in looks.items():
        axes.plot([], [], look.marker, color=look.colour, linestyle="none", label=label_of(estimator))
    axes.plot([], [], "o", color="white", markeredgecolor="grey", linestyle="none", label="with jackknife")
    axes.plot([], [], "o", color="lightgrey", markeredgecolor="black", linestyle="none", label="I and II share a batch")


def _pareto(first: "pd.Series[float]", second: "pd.Series[float]") -> list[Any]:
    """The choices for which no other is smaller in both, by growing `first`."""
    kept, lowest = [], np.inf
    for choice in first.sort_values(kind="stable").index:
        if second[choice] < lowest:
            kept.append(choice)
            lowest = second[choice]
    return kept


def _ranking(axes: "Axes", rows: "pd.DataFrame") -> None:
    table = choices.ranked(rows)
    shown = list(dict.fromkeys([*table.index[:SHOWN], *choices.beside(table).values()]))
    shown.sort(key=list(table.index).index)
    looks = styles(list(dict.fromkeys(rows["estimator"])))
    best = table.mean(axis=1).iloc[0]
    for place, choice in enumerate(shown):
        interval = analysis.mean_interval(table.loc[choice].to_numpy())
        look = looks[choice[0]]
        low, high = max(interval.low, best / 10), interval.high
        if np.isfinite(interval.high):
            axes.plot([low, high], [place, place], color=look.colour, linewidth=2.2, alpha=0.45)
        axes.plot(interval.mean, place, look.marker, color=look.colour)
    labels = [choices.name_of(choice) + ("  (usual)" if choice == USUAL else "") for choice in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.invert_yaxis()
    axes.axvline(best, color="black", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_xscale("log")
    axes.set_xlabel("mean squared error")


def _training(rows: "pd.DataFrame") -> "Figure":
    """J along training, and how far it is from J of exact training in the same MDP."""
    varied = [c for c in choices.CHOICE if rows.loc[rows["estimator"] != "exact", c].nunique() > 1 or c == "estimator"]
    differing = [{k: v for k, v in choice.items() if k in varied} for choice in rows[choices.CHOICE].to_dict("records")]
    rows = rows.assign(choice=[_differs(choice) for choice in differing])
    key = [*PLACE, "updates", "mdp"]
    exact = rows.loc[rows["estimator"] == "exact", [*key, "value"]]
    rows = rows.merge(exact, on=key, suffixes=("", "_exact"))
    rows["gap"] = rows["value"] - rows["value_exact"]
    places = list(rows.groupby(PLACE, sort=True))
    titles = [f"K = {k:g}, α = {rate:g}, {budget:g} trajectories per update" for (k, rate, budget), _ in places]
    figure = analysis.panels(titles, width=7.5, height=2.8, rows=2)
    for metric, axes in zip(("value", "gap"), (figure.axes[: len(places)], figure.axes[len(places) :]), strict=True):
        for panel, (_, of_place) in zip(axes, places, strict=True):
            analysis.lines(
                panel, of_place, "updates", metric, by="choice", over="mdp", marks=False,
                x_label="meta-gradient steps",
                y_label="J after K exact inner steps" if metric == "value" else "J − J of exact training",
            )  # fmt: skip
    analysis.shared_legend(figure, "bands: 95% intervals over MDPs; below, of the difference within each MDP")
    return figure


def _differs(choice: dict[Any, Any]) -> str:
    if choice["estimator"] == "exact":
        return "exact"
    named = label_of(choice["estimator"])
    rest = [f"λ {v:g}" if k == "gae_lambda" else v for k, v in choice.items() if k != "estimator" and v != "none"]
    return ", ".join([named, *rest])


def _trained(frame: "pd.DataFrame") -> "pd.DataFrame":
    """J in the middle and at the end of training, each remedy paired with the plain estimate of the same kind."""
    import pandas as pd

    lines = []
    for (steps, rate, budget), rows in frame.groupby(PLACE, sort=True):
        last = rows["updates"].max()
        for point in sorted({last // 2, last}):
            values = rows[rows["updates"] == point].pivot_table(index=choices.CHOICE, columns="mdp", values="value")
            for choice in values.index:
                plain = (*choice[:3], "none")
                end = analysis.mean_interval(values.loc[choice])
                paired = values.loc[plain if plain in values.index else choice]
                gain = analysis.paired_difference(values.loc[choice], paired)
                place = f"n {budget:g}, K {steps:g}, α {rate:g}, {point:g} updates"
                lines.append(
                    {"at": place, "choice": choices.name_of(choice)}
                    | {"J": end.mean, "from": end.low, "to": end.high}
                    | {"over plain": gain.mean, "from ": gain.low, "to ": gain.high}
                )
    return pd.DataFrame(lines)


def _maps(rows: "pd.DataFrame") -> "dict[str, Figure]":
    """budgets: for each K a panel for each point of training, a cell for each budget and α."""
    places = list(rows.groupby("inner_steps", sort=True))
    return {"budgets" if len(places) == 1 else f"budgets_k{steps:g}": _map(of_steps, f"K = {steps:g}")
            for steps, of_steps in places}  # fmt: skip


def _map(rows: "pd.DataFrame", title: str) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    points, sizes, rates = (sorted(rows[column].unique()) for column in ("updates", "sample_size", "inner_lr"))
    table = choices.best_choices(rows).set_index(["updates", "inner_lr", "sample_size"])
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
    figure.suptitle(f"{first}\n(above 1 it is worse than none); usual: {choices.name_of(USUAL)}", fontsize=9)
    return figure


def _cells(axes: "Axes", table: "pd.DataFrame", sizes: list[Any], rates: list[Any], norm: Any) -> None:
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


def _best(frame: "pd.DataFrame") -> "pd.DataFrame":
    table = choices.best_choices(frame)
    varied = [column for column in choices.MAP if column == "sample_size" or table[column].nunique() > 1]
    place = table[varied].apply(lambda row: " ".join(f"{value:g}" for value in row), axis=1)
    short = table.drop(columns=list(choices.MAP)).rename(columns=HEADERS).round({"mse": 3})
    short["best"] = short["best"].str.removesuffix(" shared")
    short.insert(0, " ".join(choices.MAP[column] for column in varied), place)
    return short
