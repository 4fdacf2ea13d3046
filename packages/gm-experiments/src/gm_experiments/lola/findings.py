"""What the pictures of the LOLA experiment show, in a sentence each; intervals are over seeds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gm_experiments.common import findings

if TYPE_CHECKING:
    import pandas as pd

PLAIN = "comp=128 hessian=128"
"""The curve that others are compared with: a sample of its own for each part of the look-ahead."""
KINDS = {"plain": "plain estimates", "jackknife": "a jackknife"}


def rewards(end: "pd.DataFrame", labels: Mapping[str, str], last: int) -> str:
    """Who earns most in the last updates."""
    values = findings.values_of(end, "score", "curve", "seed")
    found = findings.ranked(values, labels, ("players earn most with {}",) * 2, "reward")
    return f"In the last {f'{last} updates' if last > 1 else 'update'} {found}"


def accuracies(frame: "pd.DataFrame", labels: Mapping[str, str]) -> str:
    """Whose look-ahead is most accurate along training, of those that sample any of it."""
    every = findings.values_of(frame, "accuracy_outer_exact", "curve", "seed")
    sampled = {name: numbers for name, numbers in every.items() if not (numbers > 1 - 1e-9).all()}
    found = findings.ranked(sampled, labels, ("accuracy is highest with {}",) * 2, "accuracy", tiers_shown=1)
    if PLAIN in sampled and PLAIN not in findings.tiers(sampled)[0]:
        found += f"; with {labels[PLAIN]} it is {findings.two_places(float(sampled[PLAIN].mean()))}"
    return f"Of look-aheads that are sampled, {found}" if len(sampled) > 1 else findings.capital(found)


def cooperation(end: "pd.DataFrame") -> str:
    """Who cooperates most often in the last updates, at each number of trajectories; the largest first."""
    parts = []
    for size, rows in sorted(end.groupby("budget"), reverse=True):
        values = findings.values_of(rows, "cooperation", "curve", "seed")
        labels = {name: KINDS.get(name.split()[0], name) for name in values}
        found = findings.ranked(values, labels, ("players cooperate most with {}",) * 2, "cooperation")
        parts.append(f"at {size} trajectories an update {found}")
    return findings.capital("; ".join(parts))


def in_kind(end: "pd.DataFrame", labels: Mapping[str, str]) -> str:
    """In which curves players cooperate less after the other has defected than after both have cooperated."""
    own, betrayed = ((end[f"cooperate_1_{state}"] + end[f"cooperate_2_{state}"]) / 2 for state in ("CC", "CD"))
    end = end.assign(cooperated=own, betrayed=betrayed)
    before, after = (findings.values_of(end, column, "curve", "seed") for column in ("cooperated", "betrayed"))
    found = {name: findings.difference(before[name], after[name]) for name in before}
    punished = [name for name, interval in found.items() if interval is not None and interval.low > 0]
    if not punished:
        return "No curve’s players are told to cooperate less after the other has defected"
    where = "in every curve" if len(punished) == len(found) else f"with {findings.joined(labels[n] for n in punished)}"
    rest = "" if len(punished) == len(found) else "; elsewhere that is not told from chance"
    return f"After the other’s defection players cooperate less {where}{rest}"
