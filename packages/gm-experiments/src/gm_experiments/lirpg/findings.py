"""What the pictures of the LIRPG experiment show, in a sentence each."""

import math
from typing import TYPE_CHECKING

from gm_experiments.common import findings, labels
from gm_experiments.lirpg.settings import LOW

if TYPE_CHECKING:
    import pandas as pd


def at_most(rows: "pd.DataFrame", metric: str) -> str:
    """What more inner steps cost with the most trajectories, and who is best at the end."""
    rows = rows[rows["sample_size"] == rows["sample_size"].max()]
    few, many = rows["inner_steps"].min(), rows["inner_steps"].max()
    first, last = (findings.values_of(rows[rows["inner_steps"] == steps], metric) for steps in (few, many))
    called = labels.short(last)
    place = f"at K = {many} with {rows['sample_size'].iloc[0]} trajectories"
    if metric == "accuracy":
        found = findings.ranked(last, called, ("{} is most accurate", "{} are most accurate"), metric)
        cost = "" if few == many else findings.changed(first, last, called, "more inner steps cost", "accuracy") + "; "
        return findings.capital(f"{cost}{place}, {found}")
    logs = {name: numbers[numbers > 0].map(math.log) for name, numbers in last.items()}
    found = findings.ranked(
        logs, called, ("{} varies least", "{} vary least"), "spread", largest=False,
        show=lambda mean: findings.two_digits(math.exp(mean)),
    )  # fmt: skip
    return findings.capital(f"{place}, {found}")


def how_often_low(rows: "pd.DataFrame") -> str:
    """In how many MDPs an estimator's accuracy stays low with infinitely many trajectories."""
    known = rows.dropna(subset="expected_accuracy")
    counts = {str(name): part for name, part in known.groupby("estimator")["expected_accuracy"]}
    called = labels.short(rows["estimator"].unique())
    parts = [f"{called[name]}’s in {(part < LOW).sum() or 'none'} of {len(part)} MDPs" for name, part in counts.items()]
    steps = rows["inner_steps"].iloc[0]
    if not parts:
        return f"Accuracy at K = {steps} and the entropy of the path, MDP by MDP"
    return f"However many trajectories, at K = {steps} accuracy stays below {LOW}: {findings.joined(parts)}"
