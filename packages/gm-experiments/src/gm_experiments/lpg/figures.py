"""results.csv becomes figures and the closing table."""

from typing import TYPE_CHECKING

from gm_experiments.lpg.settings import Settings
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RULES = {
    "lpg": "LPG, for the end",
    "lpg_for_the_mean": "LPG, for the mean",
    "policy_gradient": "PG, for the end",
    "policy_gradient_for_the_mean": "PG, for the mean",
    "actor_critic": "AC, for the end",
    "actor_critic_for_the_mean": "AC, for the mean",
}
ESTIMATORS = {"ad": "AD", "lvc": "LVC", "loaded_dice": "Loaded-DiCE", "dice": "DiCE", "corrected": "score-corrected"}
KINDS = {"random": "random MDPs", "grid": "grid worlds"}
SCORE = "score (uniform policy 0, best 1)"
EQUAL = 1e-9
"""Squared biases up to it are rounding."""


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws scores over a lifetime, meta-training, and the meta-gradient, as far as results.csv has rows for them."""
    makers = {"learning": _learning, "meta": _meta, "gradient": _gradient}
    return {name: make(frame[frame["figure"] == name]) for name, make in makers.items() if name in set(frame["figure"])}


def _learning(rows: "pd.DataFrame") -> "Figure":
    kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
    figure = analysis.panels([f"held-out {KINDS[kind]}" for kind in kinds], width=4.6)
    for axes, kind in zip(figure.axes, kinds, strict=True):
        chosen = rows[rows["kind"] == kind]
        names = [name for name in RULES if name in set(chosen["rule"])]
        analysis.lines(
            axes, chosen, "update", "score", by="rule", over="task", names=names, labels=RULES, marks=False,
            x_label="updates of an agent", y_label=SCORE,
        )  # fmt: skip
    analysis.shared_legend(figure, columns=3)
    return figure


def _meta(rows: "pd.DataFrame") -> "Figure":
    figure = analysis.panels(["meta-training"], width=3.8)
    analysis.lines(
        figure.axes[0], rows, "update", "score", by="rule", over="seed", labels={"lpg": "LPG"}, marks=False,
        x_label="meta-updates (windows of K updates)", y_label="mean score of agents of all ages",
    )  # fmt: skip
    return figure


def _gradient(rows: "pd.DataFrame") -> "Figure":
    size = rows["sample_size"].max()
    largest = rows[rows["sample_size"] == size]
    panels = {
        "squared bias, exact": (largest[largest["permutation"] == "ESE"], "expected_bias_sq"),
        f"variance, {size:.0f} trajectories": (largest[largest["permutation"] == "ESE"], "variance"),
        "accuracy, derivatives sampled": (largest[largest["permutation"] == "ESE"], "accuracy"),
        "accuracy, all sampled": (largest[largest["permutation"] == "SSS"], "accuracy"),
    }
    figure = analysis.panels(list(panels), width=2.8, share_y=False)
    for axes, (title, (chosen, metric)) in zip(figure.axes, panels.items(), strict=True):
        # zero cannot be shown on a logarithmic scale: what is exact has no line there
        shown = chosen[chosen[metric] > EQUAL] if metric == "expected_bias_sq" else chosen
        analysis.lines(
            axes, shown, "inner_steps", metric, by="estimator", over="mdp", labels=ESTIMATORS,
            names=list(rows["estimator"].unique()), x_label="inner steps K",
            y_label="", y_scale="linear" if title.startswith("accuracy") else "log",
        )  # fmt: skip
        axes.set_xticks(sorted(rows["inner_steps"].unique()))
        axes.set_ylabel("accuracy" if metric == "accuracy" else "in units of ‖g‖²")
    analysis.shared_legend(figure)
    return figure


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Returns mean scores at the end of a lifetime and over it, or else the mean squared bias by estimator and K."""
    rows = frame[frame["figure"] == "learning"]
    if rows.empty:
        rows = frame[(frame["figure"] == "gradient") & (frame["permutation"] == "ESE")]
        table = rows.pivot_table(index="estimator", columns="inner_steps", values="expected_bias_sq").reset_index()
        columns = {k: f"K = {k:.0f}" for k in table.columns if not isinstance(k, str)}
        named: pd.DataFrame = table.rename(columns={"estimator": "squared bias / ‖g‖²"} | columns)
        return named
    spans = {"end": rows[rows["update"] == rows["update"].max()], "mean": rows[rows["update"] > 0]}
    tables = []
    for name, part in spans.items():
        table = part.pivot_table(index="rule", columns="kind", values="score")
        tables.append(table.rename(columns={kind: f"{KINDS[kind]}, {name}" for kind in table.columns}))
    rules = [rule for rule in RULES if rule in tables[0].index]
    scores: pd.DataFrame = tables[0].join(tables[1]).reindex(rules).reset_index()
    scores["rule"] = scores["rule"].map(RULES)
    return scores.rename(columns={"rule": "score in a lifetime"})
