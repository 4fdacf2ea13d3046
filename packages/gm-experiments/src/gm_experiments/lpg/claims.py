"""The claims about LPG, as docs/claims.toml says they are decided."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gm_experiments.common.claims import BIAS, SCORE, Claim
from gm_experiments.lpg.findings import EQUAL, KINDS
from gm_experiments.lpg.settings import FOR_THE_MEAN, HAND_MADE, LEARNT, Settings
from gm_lab.analysis import Comparison, Units, Verdict, above, check, within

if TYPE_CHECKING:
    import pandas as pd


class Measured(NamedTuple):
    """The claims are decided by scores at a life's end and over it, and per MDP where all else is exact."""

    end: "pd.DataFrame"
    mean: "pd.DataFrame"
    study: Units
    steps: list[float]


def measured(frame: "pd.DataFrame") -> Measured:
    """Takes them from results.csv."""
    lives, study = frame[frame["figure"] == "learning"], frame[frame["figure"] == "gradient"]
    exact = Units(study[study["permutation"] == "ESE"], "mdp")
    end, mean = lives[lives["update"] == lives["update"].max()], lives[lives["update"] > 0]
    return Measured(end, mean, exact, sorted(set(study["inner_steps"])))


def scores_of(lives: "pd.DataFrame", rule: str) -> "pd.DataFrame":
    """The mean scores of every meta-training of a rule (rows) in every task (columns), NaN where there is none."""
    of_rule = lives[lives["rule"] == rule]
    table: pd.DataFrame = of_rule.pivot_table(index="seed", columns="task", values="score", dropna=False)
    return table.rename_axis(index="rule")


def beside(lives: "pd.DataFrame", learnt: str, hand_made: str) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The scores of a learnt rule, and beside each that of a hand-made one, its mean, in the same task."""
    import pandas as pd

    ours, theirs = (scores_of(lives, rule) for rule in (learnt, hand_made))
    tasks = ours.columns.union(theirs.columns)
    reference = theirs.mean(skipna=False).reindex(tasks)
    return ours.reindex(columns=tasks), pd.DataFrame(dict.fromkeys(ours.index, reference)).T


def beats(suffix: str, found: Measured) -> Iterator[Comparison]:
    """The learnt rule is above each hand-made one, in all tasks and in those of each kind; both are samples."""
    lives = found.mean if suffix else found.end
    for rule in HAND_MADE:
        for kind, label in {"": "all tasks", **KINDS}.items():
            here = lives[lives["kind"] == kind] if kind else lives
            ours, theirs = beside(here, LEARNT + suffix, rule + suffix)
            yield above(f"{label}, against {rule.replace('_', ' ')}", ours, theirs, SCORE)


def unbiased(steps: float, means: Measured) -> Iterator[Comparison]:
    """Neither AD nor LVC has a bias at one K."""
    biases = biases_of(steps, means)
    label = f"K = {steps:.0f}"
    if any(len(bias) == 0 for bias in biases):
        yield check(label, None, "no data")
        return
    first, second = biases
    known = (first + second).notna().all()  # each for the same MDPs, and none NaN
    worst = max(first.max(), second.max()) if known else math.nan
    yield within(f"{label}: no bias", float(worst), EQUAL, f"largest squared bias {worst:.1e} ‖g‖²")


def less_biased(means: Measured) -> Iterator[Comparison]:
    """AD has more bias than LVC at every K > 1."""
    for steps in means.steps:
        if steps > 1:
            ad, lvc = biases_of(steps, means)
            yield above(f"K = {steps:.0f}: squared bias / ‖g‖² of AD > LVC", ad, lvc, BIAS)


def biases_of(steps: float, means: Measured) -> "list[pd.Series[float]]":
    """Returns the exact squared biases of AD and of LVC at one K."""
    return [means.study("expected_bias_sq", estimator=name, inner_steps=steps) for name in ("ad", "lvc")]


CLAIMS: tuple[Claim[Measured], ...] = (
    Claim(
        "LPG-1",
        "in held-out, larger tasks the learnt rule ends a lifetime above hand-made rules, all tuned for that",
        (partial(beats, ""),),
        examples=6,
    ),
    Claim(
        "LPG-2",
        "on average over a lifetime it is above hand-made rules, all tuned for that",
        (partial(beats, FOR_THE_MEAN),),
        examples=6,
    ),
    Claim("LPG-3", "K = 1: neither AD nor LVC has a bias (φ ≠ θ)", (partial(unbiased, 1),)),
    Claim("LPG-4", "K > 1: AD's meta-gradient is the more biased, LVC's the less", (less_biased,), examples=3),
)


NEEDS = {"LPG-1": "learning", "LPG-2": "learning", "LPG-3": "gradient", "LPG-4": "gradient"}


def claims(_settings: Settings, frame: "pd.DataFrame") -> list[Verdict]:
    """Returns the verdicts on LPG-1 to LPG-4, each with the part of the experiment that it needs more of."""
    means = measured(frame)
    return [replace(claim.verdict(means), needs=frozenset({NEEDS[claim.id]})) for claim in CLAIMS]
