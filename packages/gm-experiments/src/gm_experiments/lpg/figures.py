"""results.csv becomes figures and the closing table."""

from typing import TYPE_CHECKING

from gm_experiments.common.findings import intervals, joined
from gm_experiments.common.labels import COSINES, short
from gm_experiments.lpg import findings
from gm_experiments.lpg.findings import EQUAL, KINDS, LABELS
from gm_experiments.lpg.settings import CORRECTED, FOR_THE_MEAN, HAND_MADE, LEARNT, Settings
from gm_lab import analysis
from gm_lab.analysis import category_style

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
TUNED = {"": "tuned for a lifetime's end", FOR_THE_MEAN: "tuned for a lifetime's mean"}
LOOKS = {rule: category_style(place) for place, rule in enumerate((LEARNT, *HAND_MADE))}
SCORE = "score"


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws scores over a lifetime, meta-training, and the meta-gradient, as far as results.csv has rows for them."""
    makers = {"learning": _learning, "meta": _meta, "gradient": _gradient}
    return {name: make(frame[frame["figure"] == name]) for name, make in makers.items() if name in set(frame["figure"])}


def _learning(rows: "pd.DataFrame") -> "Figure":
    """A column for each kind of task, a row for what the rules were tuned for."""
    kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
    tuned = [suffix for suffix in TUNED if any(rule + suffix in set(rows["rule"]) for rule in LOOKS)]
    titles = [f"{KINDS[kind]}, rules {TUNED[suffix]}" for suffix in tuned for kind in kinds]
    figure = analysis.panels(titles, rows=len(tuned), height=2.2)
    places = [(suffix, kind) for suffix in tuned for kind in kinds]
    for axes, (suffix, kind) in zip(figure.axes, places, strict=True):
        names = [rule for rule in LOOKS if rule + suffix in set(rows["rule"])]
        chosen = rows[(rows["kind"] == kind) & rows["rule"].isin([name + suffix for name in names])]
        analysis.lines(
            axes, chosen.assign(rule=chosen["rule"].str.removesuffix(FOR_THE_MEAN)), "update", "score", by="rule",
            over="task", names=names, labels=findings.NAMES, looks=LOOKS, marks=False, direct=kind == kinds[-1],
            x_label="updates of an agent", y_label=SCORE,
        )  # fmt: skip
    learnt = rows.loc[rows["rule"].str.startswith(LEARNT), "seed"].nunique()
    whose = "one rule" if learnt == 1 else f"means of {learnt} rules, each meta-trained on its own"
    caption = (
        "Scores in tasks that no rule has seen, larger than those it was trained or tuned in: 0 is the uniform "
        f"policy's, 1 the best. LPG: {whose}. "
        f"Bands: 95% intervals over {rows.groupby('kind')['task'].nunique().max()} tasks of each kind."
    )
    analysis.entitle(figure, findings.learning(rows), caption)
    return figure


def _meta(rows: "pd.DataFrame") -> "Figure":
    figure = analysis.panels([""])
    analysis.lines(
        figure.axes[0], rows, "update", "score", by="rule", over="seed", labels={LEARNT: "LPG"}, marks=False,
        looks=LOOKS, direct=True, x_label="meta-updates (windows of K updates)", y_label="mean score of agents",
    )  # fmt: skip
    runs = rows["seed"].nunique()
    caption = f"Mean score of agents of all ages in the training tasks. {intervals('Band', runs, 'meta-trainings')}"
    analysis.entitle(figure, findings.meta(rows), caption)
    return figure


def _gradient(rows: "pd.DataFrame") -> "Figure":
    """Exact squared bias and variance where the update's derivatives are sampled, accuracy where all is."""
    size = rows["sample_size"].max()
    largest = rows[rows["sample_size"] == size]
    derivatives, everything = (largest[largest["permutation"] == name] for name in ("ESE", "SSS"))
    panels = {
        "squared bias / ‖g‖², exact": (derivatives[derivatives["expected_bias_sq"] > EQUAL], "expected_bias_sq"),
        f"variance / ‖g‖², {size:,.0f} trajectories": (derivatives, "variance"),
        "accuracy (cosine), all sampled": (everything, "accuracy"),
    }
    figure = analysis.panels(list(panels), height=2.8, share_y=False)
    steps = sorted(rows["inner_steps"].unique())
    for axes, (chosen, metric) in zip(figure.axes, panels.values(), strict=True):
        accuracy = metric == "accuracy"
        analysis.lines(
            axes, chosen, "inner_steps", metric, by="estimator", over="mdp",
            labels=short(rows["estimator"].unique()) | {CORRECTED: LABELS[CORRECTED]},
            names=[str(name) for name in rows["estimator"].unique()], x_label="inner steps K", y_label="",
            y_scale="linear" if accuracy else "log", geometric=not accuracy, direct=True,
            within=COSINES if accuracy else None,
        )  # fmt: skip
        axes.set_xticks(steps, [f"{step:g}" for step in steps])
        axes.set_xlim(steps[0] - 0.3, steps[-1] + 0.3)
    exact = [LABELS.get(name, name) for name, of_name in derivatives.groupby("estimator")["expected_bias_sq"]
             if (of_name <= EQUAL).all()]  # fmt: skip
    caption = (
        "LPG's meta-gradient g in tiny MDPs whose every trajectory is enumerated. Left and middle: only the update's "
        "derivatives sampled, geometric means over MDPs; right: means. A squared bias of 0 has no place on the axis"
        f"{f' ({joined(exact)})' if exact else ''}. {intervals('Bands', rows['mdp'].nunique(), 'MDPs')}"
    )
    analysis.entitle(figure, findings.gradient(rows), caption)
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
