"""What apps/lpg_tabular.py makes of results.csv: figures, verdicts on LPG-1 to LPG-4, and the closing table."""

import math
from typing import TYPE_CHECKING

import gm_lab
from gm_lab import above, decided
from gm_lab.comparisons import Comparison
from gm_lab.statistics import per_unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KEY = (
    "figure", "rule", "seed", "kind", "update", "task", "lr", "critic_lr", "gae_lambda",
    "estimator", "permutation", "sample_size", "inner_steps", "mdp",
)  # fmt: skip
MEASURED = ("score", "accuracy", "variance", "bias_sq", "expected_accuracy", "expected_bias_sq")
COLUMNS = (*KEY, *MEASURED)
TEXT = ("figure", "rule", "kind", "task", "estimator", "permutation")
FOR_THE_MEAN = "_for_the_mean"
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


def completed(row: gm_lab.Row) -> gm_lab.Row:
    """The row with every column: no text where there is none, NaN where there is no number."""
    return {column: row.get(column, "" if column in TEXT else math.nan) for column in COLUMNS}


def figures(frame: "pd.DataFrame") -> "dict[str, Figure]":
    """As far as results.csv has rows for them: scores over a lifetime, meta-training, and the meta-gradient."""
    makers = {"learning": _learning, "meta": _meta, "gradient": _gradient}
    return {name: make(frame[frame["figure"] == name]) for name, make in makers.items() if name in set(frame["figure"])}


def _learning(rows: "pd.DataFrame") -> "Figure":
    kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
    figure = gm_lab.panels([f"held-out {KINDS[kind]}" for kind in kinds], width=4.6)
    for axes, kind in zip(figure.axes, kinds, strict=True):
        chosen = rows[rows["kind"] == kind]
        names = [name for name in RULES if name in set(chosen["rule"])]
        gm_lab.lines(
            axes, chosen, "update", "score", by="rule", over="task", names=names, labels=RULES, marks=False,
            x_label="updates of an agent", y_label=SCORE,
        )  # fmt: skip
    gm_lab.shared_legend(figure, columns=3)
    return figure


def _meta(rows: "pd.DataFrame") -> "Figure":
    figure = gm_lab.panels(["meta-training"], width=3.8)
    gm_lab.lines(
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
    figure = gm_lab.panels(list(panels), width=2.8, share_y=False)
    for axes, (title, (chosen, metric)) in zip(figure.axes, panels.items(), strict=True):
        # zero cannot be shown on a logarithmic scale: what is exact has no line there
        shown = chosen[chosen[metric] > EQUAL] if metric == "expected_bias_sq" else chosen
        gm_lab.lines(
            axes, shown, "inner_steps", metric, by="estimator", over="mdp", labels=ESTIMATORS,
            names=list(rows["estimator"].unique()), x_label="inner steps K",
            y_label="", y_scale="linear" if title.startswith("accuracy") else "log",
        )  # fmt: skip
        axes.set_xticks(sorted(rows["inner_steps"].unique()))
        axes.set_ylabel("accuracy" if metric == "accuracy" else "in units of ‖g‖²")
    gm_lab.shared_legend(figure)
    return figure


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Mean scores at the end of a lifetime and over it, or, without any, the mean squared bias by estimator and K."""
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
    found: pd.DataFrame = tables[0].join(tables[1]).reindex([r for r in RULES if r in tables[0].index]).reset_index()
    found["rule"] = found["rule"].map(RULES)
    return found.rename(columns={"rule": "score in a lifetime"})


def claims(frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """The verdicts on LPG-1 to LPG-4, as docs/claims.toml says they are decided."""
    lives, study = frame[frame["figure"] == "learning"], frame[frame["figure"] == "gradient"]

    def beats(suffix: str) -> list[Comparison]:
        chosen = lives[lives["update"] > 0] if suffix else lives[lives["update"] == lives["update"].max()]
        return [
            above(
                f"{'all tasks' if kind is None else KINDS[kind]}, against {rule.replace('_', ' ')}",
                *(
                    per_unit(chosen, "score", "task", rule=name, **({} if kind is None else {"kind": kind}))
                    for name in ("lpg" + suffix, rule + suffix)
                ),
            )
            for rule in ("policy_gradient", "actor_critic")
            for kind in (None, *KINDS)
        ]

    def bias(name: str, k: float, metric: str = "expected_bias_sq") -> "pd.Series[float]":
        return per_unit(study, metric, "mdp", estimator=name, permutation="ESE", inner_steps=k)

    def alike(k: float) -> Comparison:
        first, second = bias("ad", k), bias("lvc", k)
        if len(first) == 0 or len(second) == 0:
            return Comparison(f"K = {k:.0f}", None, "no data")
        worst = float(max(first.max(), second.max()))
        return Comparison(f"K = {k:.0f}: no bias", worst <= EQUAL, f"largest squared bias {worst:.1e} ‖g‖²")

    steps = sorted(set(study["inner_steps"]))
    beyond = [k for k in steps if k > 1]
    return [
        decided(
            "LPG-1",
            "in held-out, larger tasks the learnt rule ends a lifetime above hand-made rules, all tuned for that",
            beats(""),
            examples=6,
        ),
        decided(
            "LPG-2",
            "on average over a lifetime it is above hand-made rules, all tuned for that",
            beats(FOR_THE_MEAN),
            examples=6,
        ),
        decided("LPG-3", "K = 1: neither AD nor LVC has a bias (φ ≠ θ)", [alike(1)]),
        decided(
            "LPG-4",
            "K > 1: AD's meta-gradient is the more biased, LVC's the less",
            [above(f"K = {k:.0f}: squared bias / ‖g‖², AD − LVC > 0", bias("ad", k), bias("lvc", k)) for k in beyond],
            examples=3,
        ),
    ]
