"""What a lower bias is worth in training: the curves, and the table of their middles and ends."""

from typing import TYPE_CHECKING, Any

from gm_experiments.common.labels import estimator as label_of
from gm_experiments.frontier.choices import CHOICE, PLACE, name_of
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def curves(rows: "pd.DataFrame") -> "Figure":
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


def _short(choice: dict[Any, Any]) -> str:
    """What a choice differs by from the others of its picture."""
    if choice["estimator"] == "exact":
        return "exact"
    named = label_of(choice["estimator"])
    rest = [f"λ {v:g}" if k == "gae_lambda" else v for k, v in choice.items() if k != "estimator" and v != "none"]
    return ", ".join([named, *rest])


def table(frame: "pd.DataFrame") -> "pd.DataFrame":
    """J in the middle and at the end of training, each remedy paired with the plain estimate of the same kind."""
    import pandas as pd

    lines = []
    for (steps, rate, budget), rows in frame.groupby(PLACE, sort=True):
        last = rows["updates"].max()
        for point in sorted({last // 2, last}):
            values = rows[rows["updates"] == point].pivot_table(index=CHOICE, columns="mdp", values="value")
            for choice in values.index:
                plain = (*choice[:3], "none")
                end = analysis.mean_interval(values.loc[choice])
                paired = values.loc[plain if plain in values.index else choice]
                gain = analysis.paired_difference(values.loc[choice], paired)
                lines.append(
                    {"at": f"n {budget:g}, K {steps:g}, α {rate:g}, {point:g} updates", "choice": name_of(choice)}
                    | {"J": end.mean, "from": end.low, "to": end.high}
                    | {"over plain": gain.mean, "from ": gain.low, "to ": gain.high}
                )
    return pd.DataFrame(lines)
