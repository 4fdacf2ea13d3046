"""The pictures and the closing table that the frontier experiment makes of results.csv."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gm_experiments.common.dots import MOST, dot, moment, named_rows, shown
from gm_experiments.common.findings import intervals, joined, two_digits
from gm_experiments.common.labels import short
from gm_experiments.frontier import choices, findings
from gm_experiments.frontier.choices import PLACE
from gm_experiments.frontier.settings import Settings
from gm_lab import analysis
from gm_lab.analysis import Style, styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 0.5
"""Where the axis of ratios begins."""
WIDE, TICKS = 60, 6
"""From which ratio of its ends on an axis has powers of ten alone, and how many it has at most."""
HEADERS = {"usual": "× usual", "jackknife": "× jack- knife", "apart": "× apart", "unseen": "× new MDPs"}


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """One frontier for each K, α and budget, the gaps of training, and the estimators over the budgets for each K."""
    pictures: dict[str, Figure] = {}
    measured, trained, mapped = (frame[frame["figure"] == name] for name in ("frontier", "training", "budgets"))
    places = list(measured.groupby(PLACE, sort=True))
    for (steps, rate, budget), rows in places:
        name = f"frontier_k{steps:g}"
        if len({place[1:] for place, _ in places}) > 1:
            name += f"_lr{rate:g}_n{budget:g}"
        pictures[name] = _frontier(rows)
    every = sorted(mapped["inner_steps"].unique())
    for steps in every:
        pictures["budgets" if len(every) == 1 else f"budgets_k{steps:g}"] = _budgets(
            mapped[mapped["inner_steps"] == steps]
        )
    return pictures | (_trainings(trained) if len(trained) else {})


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


def _frontier(rows: "pd.DataFrame") -> "Figure":
    """A line for each kind of choice, a panel for each point of training: how many times the least error it has."""
    points = shown(sorted(rows["updates"].unique()))
    ratios = {point: findings.of_kinds(choices.ranked(rows[rows["updates"] == point])) for point in points}
    names = sorted(ratios[points[0]], key=lambda kind: np.mean([np.log(of[kind].mean) for of in ratios.values()]))
    figure = analysis.panels([moment(point) for point in points], height=0.23 * len(names) + 0.75)
    every = [value for of_kinds in ratios.values() for value in of_kinds.values() if np.isfinite(value.high)]
    most = 1.15 * max([*(value.high for value in every), *(of[kind].mean for of in ratios.values() for kind in of)])
    looks = styles(list(dict.fromkeys(str(kind[0]) for kind in names)))
    for axes, of_kinds in zip(figure.axes, ratios.values(), strict=True):
        _ratios(axes, "x", LEAST, most)
        for place, kind in enumerate(names):
            dot(axes, place, of_kinds[kind], looks[str(kind[0])])
            ratio = two_digits(of_kinds[kind].mean)
            axes.text(1.02, place, ratio, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)
        axes.axvline(1, color="black", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.set_xlabel("times the least error")
        named_rows(axes, [findings.name_of(kind, short(looks)) for kind in names])
    (steps, rate, budget), units = rows[PLACE].iloc[0], rows["mdp"].nunique()
    further = "; those that reach the left edge go on" if any(value.low < LEAST for value in every) else ""
    caption = (
        f"Mean squared error of a meta-gradient from {budget:,g} trajectories, over the least one's (dashed line); "
        f"exact training of MAML on random MDPs, K = {steps:g}, α = {rate:g}. Each line is the best over λ and over "
        "how the trajectories are split; one batch: estimators I and II share it. Bars: 95% intervals of the "
        f"difference within {units} MDP{'s' if units > 1 else ''}{further}."
    )
    analysis.entitle(figure, findings.frontier(rows), caption)
    return figure


def _ratios(axes: "Axes", along: Literal["x", "y"], least: float, most: float) -> None:
    """A logarithmic axis of ratios, with numbers that can be read."""
    axes.set(**{f"{along}scale": "log", f"{along}lim": (least, most)})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[along]
    between = (2, 5) if most / least < WIDE else ()
    powers = [10.0**power for power in range(int(np.log10(most)) + 1)]
    ticks = [tick for power in powers for tick in (power, *(power * each for each in between)) if tick <= most]
    ticks = ticks[:: -(-len(ticks) // TICKS)]
    axis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def _budgets(rows: "pd.DataFrame") -> "Figure":
    """A panel for each point of training: what each estimator's best choice has over the best of all, by budget."""
    ratios = findings.of_estimators(rows)
    points, rates = shown(sorted(ratios["updates"].unique())), sorted(ratios["inner_lr"].unique())
    figure = analysis.panels([moment(point) for point in points], height=2.9)
    names = [str(name) for name in dict.fromkeys(ratios["estimator"])]
    for axes, point in zip(figure.axes, points, strict=True):
        for place, name in enumerate(names):
            here = ratios[(ratios["updates"] == point) & (ratios["estimator"] == name)]
            _over_budgets(axes, here, styles(names)[name], 1.12 ** (place - (len(names) - 1) / 2))
        _ratios(axes, "y", 0.85, 1.25 * float(ratios["times"].max()))
        _sizes(axes, sorted(ratios["sample_size"].unique()))
    figure.axes[0].set_ylabel("times the least error")
    for name in names:
        last = ratios[(ratios["updates"] == points[-1]) & (ratios["estimator"] == name)].sort_values("sample_size")
        of_last = last[last["sample_size"] == last["sample_size"].max()]["times"]
        middle = np.exp(np.log(of_last).mean())
        analysis.end_label(figure.axes[-1], np.array([middle]), short(names)[name], styles(names)[name].colour)
    alphas, units = joined([f"{rate:g}" for rate in rates]), rows["mdp"].nunique()
    steps = rows["inner_steps"].iloc[0]
    caption = (
        f"Mean squared error of each estimator's best choice over the least one's, K = {steps:g}. "
        f"Dots: α = {alphas}; filled where the 95% interval (of the difference within {units} MDPs) is above 1 and "
        f"reaches {findings.MATTERS:g}, the smallest ratio that matters. Lines: geometric means of the dots."
    )
    analysis.entitle(figure, findings.budgets(ratios), caption)
    return figure


def _over_budgets(axes: "Axes", ratios: "pd.DataFrame", look: Style, shift: float) -> None:
    middle = np.exp(np.log(ratios["times"]).groupby(ratios["sample_size"]).mean())
    axes.plot(middle.index * shift, middle, color=look.colour, linestyle=look.dash, zorder=2)
    for worse, rows in ratios.groupby("worse"):
        axes.plot(
            rows["sample_size"] * shift, rows["times"], look.marker, color=look.colour, linestyle="none",
            markersize=4.5, markerfacecolor=look.colour if worse else "white", markeredgewidth=0.9, zorder=3,
        )  # fmt: skip


def _sizes(axes: "Axes", sizes: list[Any]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,g}" for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
    axes.set_xlabel("trajectories for one meta-gradient")


def _trainings(rows: "pd.DataFrame") -> "dict[str, Figure]":
    """training, with a panel for each K, α and budget; a picture for each if they are too many for one."""
    rows = rows.assign(choice=_named(rows))
    key = [*PLACE, "updates", "mdp"]
    exact = rows.loc[rows["estimator"] == "exact", [*key, "value"]]
    rows = rows[rows["estimator"] != "exact"].merge(exact, on=key, suffixes=("", "_exact"))
    rows["gap"] = rows["value"] - rows["value_exact"]
    places = list(rows.groupby(PLACE, sort=True))
    if len(places) <= MOST:
        return {"training": _training(rows)}
    return {f"training_k{k:g}_lr{rate:g}_n{budget:g}": _training(of) for (k, rate, budget), of in places}


def _named(rows: "pd.DataFrame") -> list[str]:
    """What tells the choices apart, in words."""
    estimated = rows[rows["estimator"] != "exact"]
    varied = [column for column in choices.CHOICE if column == "estimator" or estimated[column].nunique() > 1]
    called = short(rows["estimator"].unique())
    return [
        ", ".join([called[choice["estimator"]], *_added({name: choice[name] for name in varied[1:]})])
        for choice in rows[choices.CHOICE].to_dict("records")
    ]


def _added(choice: dict[Any, Any]) -> list[str]:
    """What a choice has beside its estimator."""
    return [f"λ {value:g}" if name == "gae_lambda" else str(value) for name, value in choice.items() if value != "none"]


def _training(rows: "pd.DataFrame") -> "Figure":
    """How far J is from that of exact training in the same MDP, along training."""
    places = list(rows.groupby(PLACE, sort=True))
    single = len(places) == 1
    titles = ["" if single else f"K = {k:g}, α = {rate:g}, n = {budget:g}" for (k, rate, budget), _ in places]
    figure = analysis.panels(titles, height=3.0)
    looks = _looks(rows)
    for axes, (_, of_place) in zip(figure.axes, places, strict=True):
        axes.axhline(0, color="black", linewidth=0.9, zorder=1.5)
        analysis.lines(
            axes, of_place, "updates", "gap", by="choice", over="mdp", marks=False, names=list(looks), looks=looks,
            direct=axes is figure.axes[-1], x_label="meta-gradient steps", y_label="J over that of exact training",
        )  # fmt: skip
    ends = rows[rows["updates"].isin([rows["updates"].min(), rows["updates"].max()])]
    first, last = ends.groupby("updates")["value_exact"].mean()
    (steps, rate, budget), units = places[0][0], rows["mdp"].nunique()
    at = f"K = {steps:g}, α = {rate:g}, {budget:,g} trajectories for each update. " if single else ""
    caption = (
        f"The objective J after K exact inner steps, less J of exact training in the same MDP. {at}Exact training "
        f"(black line) raises J from {first:.2f} to {last:.2f}. {intervals('Bands', units, 'MDPs')}"
    )
    analysis.entitle(figure, findings.training(rows), caption)
    return figure


def _looks(rows: "pd.DataFrame") -> dict[str, Style]:
    """A choice has its estimator's colour; what it adds to the plain one gives it another dash."""
    named = rows.drop_duplicates("choice").set_index("choice")
    plain = named["estimator"]
    called = short(rows["estimator"].unique())
    keys = {str(name): f"{plain[name]}{str(name).removeprefix(called[plain[name]])}" for name in named.index}
    of_keys = styles(list(keys.values()))
    return {name: of_keys[key] for name, key in keys.items()}


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


def _best(frame: "pd.DataFrame") -> "pd.DataFrame":
    table = choices.best_choices(frame)
    varied = [column for column in choices.MAP if column == "sample_size" or table[column].nunique() > 1]
    place = table[varied].apply(lambda row: " ".join(f"{value:g}" for value in row), axis=1)
    short = table.drop(columns=list(choices.MAP)).rename(columns=HEADERS).round({"mse": 3})
    short["best"] = short["best"].str.removesuffix(" shared")
    short.insert(0, " ".join(choices.MAP[column] for column in varied), place)
    return short
