"""What apps/frontier.py makes of results.csv: frontier, choices in order, training curves, the closing table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import gm_lab
from gm_lab.figures import styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOICE = ["estimator", "gae_lambda", "split", "debias"]
PLACE = ["inner_steps", "inner_lr", "sample_size"]
USUAL = ("ad", 1.0, "1:1", "none")
"""What most code does: automatic differentiation, one batch for I and II, another as large, no remedy for bias."""
LABELS = {"ad": "AD", "dice": "DiCE", "loaded_dice": "Loaded-DiCE", "lvc": "LVC", "exact": "exact meta-gradient"}
SHOWN = 7


def name_of(choice: tuple[Any, ...]) -> str:
    """A choice in words."""
    estimator, gae_lambda, split, debias = choice
    parts = [LABELS.get(estimator, estimator), f"λ {gae_lambda:g}", f"{split}{' shared' * (split.count(':') == 1)}"]
    return ", ".join(parts + [debias] * (debias != "none"))


def scores(rows: "pd.DataFrame", metric: str = "mse") -> "pd.DataFrame":
    """A metric per choice (rows) and MDP (columns) at one place and point, in units of the mean ‖∇φ Jᴷ‖² of the MDPs.

    The mean over a row is E‖x − y‖² over E‖y‖²; with an MDP's own ‖y‖² those where training has ended would decide.
    """
    unit = rows.groupby("mdp")["truth_sq"].first().mean()
    table: pd.DataFrame = rows.pivot_table(index=CHOICE, columns="mdp", values=metric, sort=True) / unit
    return table


def ranked(rows: "pd.DataFrame") -> "pd.DataFrame":
    """`scores` with the smallest mean first."""
    table = scores(rows)
    return table.loc[list(table.mean(axis=1).sort_values(kind="stable").index)]


def held_out(table: "pd.DataFrame") -> "pd.Series[float]":
    """For each MDP the score of the choice that is the best on all the others: what following the advice gives."""
    total = table.sum(axis=1)
    found: pd.Series[float] = table.apply(lambda column: column[(total - column).idxmin()])
    return found


def figures(frame: "pd.DataFrame") -> "dict[str, Figure]":
    """frontier_k…: a row of panels for each point of training; training: a panel for each K, α and budget."""
    found: dict[str, Figure] = {}
    measured = frame[frame["figure"] == "frontier"]
    places = list(measured.groupby(PLACE, sort=True))
    for (steps, rate, budget), rows in places:
        name = f"frontier_k{steps:g}"
        if len({place[1:] for place, _ in places}) > 1:
            name += f"_lr{rate:g}_n{budget:g}"
        found[name] = _frontier(rows, f"{budget:g} trajectories, K = {steps:g}, α = {rate:g}")
    training = frame[frame["figure"] == "training"]
    if len(training):
        found["training"] = _training(training)
    return found


def _frontier(rows: "pd.DataFrame", title: str) -> "Figure":
    points = sorted(rows["updates"].unique())
    figure = gm_lab.panels([title, "mean squared error"], width=5.2, height=3.3, rows=len(points), share_y=False)
    for axis in figure.axes:
        # each panel has an axis of its own: rows differ by magnitudes, and the right-hand labels are text
        axis.tick_params(labelbottom=True)
    ends = [scores(part, "variance").mean(axis=1).agg(["min", "max"]) for _, part in rows.groupby("updates")]
    limits = 0.8 * min(end["min"] for end in ends), 1.25 * max(end["max"] for end in ends)
    for i, point in enumerate(points):
        here = rows[rows["updates"] == point]
        when = "φ at the start" if point == 0 else f"φ after {point} exact updates"
        _scatter(figure.axes[2 * i], here, limits)
        figure.axes[2 * i].text(0.02, 0.97, when, transform=figure.axes[2 * i].transAxes, va="top", weight="bold")
        _ranking(figure.axes[2 * i + 1], here)
    note = "black line: no choice has less of both; dotted: equal mean squared error; bars: 95% intervals over MDPs"
    gm_lab.shared_legend(figure, f"in units of the mean ‖∇φ J‖² of the MDPs; {note}")
    return figure


def _scatter(axes: "Axes", rows: "pd.DataFrame", limits: tuple[float, float]) -> None:
    """bias² against variance, with lines of equal mean squared error and the choices that no other beats in both."""
    bias, variance = scores(rows, "bias_sq"), scores(rows, "variance").mean(axis=1)
    # a squared bias is told from zero above about two standard errors; below, only its limit is known
    floor = max(1e-6, float((2 * bias.sem(axis=1)).fillna(0).quantile(0.1)))
    at = bias.mean(axis=1).clip(lower=floor)
    looks = styles(list(dict.fromkeys(rows["estimator"])))
    kinds = [(c[0], c[2].count(":") == 1, c[3] == "none") for c in at.index]
    for kind in dict.fromkeys(kinds):
        (estimator, shared, plain), of_kind = kind, [other == kind for other in kinds]
        look = looks[estimator]
        axes.plot(
            variance[of_kind], at[of_kind], look.marker, color=look.colour, markersize=5, alpha=0.85,
            markerfacecolor=look.colour if plain else "white", markeredgewidth=1.2 if shared else 0.8,
            markeredgecolor="black" if shared else look.colour, linestyle="none", zorder=3 if plain else 2,
        )  # fmt: skip
    for estimator, look in looks.items():
        label = LABELS.get(estimator, estimator)
        axes.plot([], [], look.marker, color=look.colour, linestyle="none", label=label)
    axes.plot([], [], "o", color="white", markeredgecolor="grey", linestyle="none", label="with jackknife")
    axes.plot([], [], "o", color="lightgrey", markeredgecolor="black", linestyle="none", label="I and II share a batch")
    front = _pareto(variance, at)
    axes.plot(variance[front], at[front], color="black", linewidth=1.2, drawstyle="steps-post", zorder=1)
    axes.set(xscale="log", yscale="log", xlim=limits, xlabel="variance", ylabel="squared bias")
    low, high = axes.get_ylim()
    for level in 10.0 ** np.arange(np.floor(np.log10(limits[0])), np.ceil(np.log10(limits[1])) + 0.1, 0.5):
        x = np.geomspace(level * 1e-3, level * (1 - 1e-9), 400)
        axes.plot(x, level - x, color="grey", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    for label, choice in {"best": ranked(rows).index[0], "usual": USUAL}.items():
        if choice in at.index:
            axes.annotate(
                label, (variance[choice], at[choice]), (-4, 12), textcoords="offset points", ha="center", weight="bold",
                arrowprops={"arrowstyle": "-", "linewidth": 0.8},
            )  # fmt: skip
    axes.set(xlim=limits, ylim=(low, 2 * high))
    axes.text(0.98, 0.97, f"bias² below {floor:.1g} drawn at {floor:.1g}", transform=axes.transAxes, ha="right",
              va="top", fontsize=7)  # fmt: skip


def _pareto(first: "pd.Series[float]", second: "pd.Series[float]") -> list[Any]:
    """The choices for which no other is smaller in both, by growing `first`."""
    kept, lowest = [], np.inf
    for choice in first.sort_values(kind="stable").index:
        if second[choice] < lowest:
            kept.append(choice)
            lowest = second[choice]
    return kept


def _ranking(axes: "Axes", rows: "pd.DataFrame") -> None:
    """The best choices, then the best of every estimator, and the usual one."""
    table = ranked(rows)
    shown = list(dict.fromkeys([*table.index[:SHOWN], *beside(table).values()]))
    shown.sort(key=list(table.index).index)
    looks = styles(list(dict.fromkeys(rows["estimator"])))
    best = table.mean(axis=1).iloc[0]
    for place, choice in enumerate(shown):
        interval = gm_lab.mean_interval(table.loc[choice].to_numpy())
        look = looks[choice[0]]
        low, high = max(interval.low, best / 10), interval.high
        if np.isfinite(interval.high):
            axes.plot([low, high], [place, place], color=look.colour, linewidth=2.2, alpha=0.45)
        axes.plot(interval.mean, place, look.marker, color=look.colour)
    labels = [name_of(choice) + ("  (usual)" if choice == USUAL else "") for choice in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.invert_yaxis()
    axes.axvline(best, color="black", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_xscale("log")
    axes.set_xlabel("mean squared error")


def beside(table: "pd.DataFrame") -> dict[str, Any]:
    """The best choice, the usual one, and the best of every kind that the best is not of."""
    order = list(table.index)
    best = order[0]
    tests: Sequence[tuple[str, Any]] = (
        ("usual", lambda c: c == USUAL),
        ("best AD", lambda c: c[0] == "ad"),
        ("best shared batch", lambda c: c[2].count(":") == 1),
        ("best separate batches", lambda c: c[2].count(":") == 2),
        ("best without jackknife", lambda c: c[3] == "none"),
        ("best with jackknife", lambda c: c[3] != "none"),
    )
    found = {label: next((c for c in order if test(c)), None) for label, test in tests}
    return {"best": best} | {label: choice for label, choice in found.items() if choice is not None and choice != best}


def _training(rows: "pd.DataFrame") -> "Figure":
    """J along training, and how far it is from J of exact training in the same MDP."""
    varied = [c for c in CHOICE if rows.loc[rows["estimator"] != "exact", c].nunique() > 1 or c == "estimator"]
    choices = [{k: v for k, v in choice.items() if k in varied} for choice in rows[CHOICE].to_dict("records")]
    rows = rows.assign(choice=[_short(choice) for choice in choices])
    key = [*PLACE, "updates", "mdp"]
    exact = rows.loc[rows["estimator"] == "exact", [*key, "value"]]
    rows = rows.merge(exact, on=key, suffixes=("", "_exact"))
    rows["gap"] = rows["value"] - rows["value_exact"]
    places = list(rows.groupby(PLACE, sort=True))
    titles = [f"K = {k:g}, α = {rate:g}, {budget:g} trajectories per update" for (k, rate, budget), _ in places]
    figure = gm_lab.panels(titles, width=7.5, height=2.8, rows=2)
    for metric, axes in zip(("value", "gap"), (figure.axes[: len(places)], figure.axes[len(places) :]), strict=True):
        for panel, (_, of_place) in zip(axes, places, strict=True):
            gm_lab.lines(
                panel, of_place, "updates", metric, by="choice", over="mdp", marks=False,
                x_label="meta-gradient steps",
                y_label="J after K exact inner steps" if metric == "value" else "J − J of exact training",
            )  # fmt: skip
    gm_lab.shared_legend(figure, "bands: 95% intervals over MDPs; below, of the difference within each MDP")
    return figure


def _short(choice: dict[Any, Any]) -> str:
    """What a choice differs by from the others of its picture."""
    if choice["estimator"] == "exact":
        return "exact"
    named = LABELS.get(choice["estimator"], choice["estimator"])
    rest = [f"λ {v:g}" if k == "gae_lambda" else v for k, v in choice.items() if k != "estimator" and v != "none"]
    return ", ".join([named, *rest])


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The advice for each K, α, budget and point, beside what other choices cost; or what training ends with."""
    import pandas as pd

    measured = frame[frame["figure"] == "frontier"]
    if not len(measured):
        return _trained(frame[frame["figure"] == "training"])
    found = []
    for (steps, rate, budget, point), rows in measured.groupby([*PLACE, "updates"], sort=True):
        table = ranked(rows)
        best = table.index[0]
        place = f"n {budget:g}, K {steps:g}, α {rate:g}, {point:g} updates"
        bias, variance = (scores(rows, metric).mean(axis=1) for metric in ("bias_sq", "variance"))
        values = {label: (name_of(c), table.loc[c], bias[c], variance[c]) for label, c in beside(table).items()}
        values["chosen on other MDPs"] = ("", held_out(table), np.nan, np.nan)
        for label, (name, each, *parts) in values.items():
            mse, more = gm_lab.mean_interval(each), gm_lab.paired_difference(each, table.loc[best])
            numbers = (*parts, mse.mean, mse.low, mse.high, more.low, more.high, mse.mean / table.loc[best].mean())
            names = ("bias²", "variance", "mse", "from", "to", "over best, from", "to ", "× best")
            found.append({"at": place, "which": label, "choice": name} | dict(zip(names, numbers, strict=True)))
    return pd.DataFrame(found)


def _trained(frame: "pd.DataFrame") -> "pd.DataFrame":
    """J in the middle and at the end of training, each remedy paired with the plain estimate of the same kind."""
    import pandas as pd

    found = []
    for (steps, rate, budget), rows in frame.groupby(PLACE, sort=True):
        last = rows["updates"].max()
        for point in sorted({last // 2, last}):
            table = rows[rows["updates"] == point].pivot_table(index=CHOICE, columns="mdp", values="value")
            for choice in table.index:
                plain = (*choice[:3], "none")
                end = gm_lab.mean_interval(table.loc[choice])
                gain = gm_lab.paired_difference(table.loc[choice], table.loc[plain if plain in table.index else choice])
                found.append(
                    {"at": f"n {budget:g}, K {steps:g}, α {rate:g}, {point:g} updates"}
                    | {"choice": LABELS["exact"] if choice[0] == "exact" else name_of(choice)}
                    | {"J": end.mean, "from": end.low, "to": end.high}
                    | {"over plain": gain.mean, "from ": gain.low, "to ": gain.high}
                )
    return pd.DataFrame(found)
