"""What LPG's pictures find, in words that are true for the results they are computed from."""

from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.findings import joined, two_digits
from gm_experiments.common.labels import ESTIMATORS
from gm_experiments.common.words import either
from gm_experiments.lpg.settings import CORRECTED, HAND_MADE, LEARNT
from gm_lab.analysis import log_ratio, mean_interval, paired_difference

if TYPE_CHECKING:
    import pandas as pd

EQUAL = 1e-9
"""Squared biases up to it are rounding."""
KINDS = {"random": "random MDPs", "grid": "grid worlds"}
NAMES = {LEARNT: "LPG", "policy_gradient": "policy gradient", "actor_critic": "actor-critic"}
LABELS = ESTIMATORS | {CORRECTED: "score-corrected"}


def learning(rows: "pd.DataFrame") -> str:
    """Where a lifetime ends by the learnt rule, beside the hand-made ones tuned for that in the same tasks."""
    last = rows[rows["update"] == rows["update"].max()]
    kinds: dict[str, list[str]] = {}
    for kind, name in KINDS.items():
        scores = last[last["kind"] == kind].pivot_table(index="rule", columns="task", values="score")
        if LEARNT in scores.index and (phrase := _beside(scores, "")):
            kinds.setdefault(phrase, []).append(name)
    if not kinds:
        return "Scores of agents over their lifetimes in held-out tasks"
    said = [f"{words} in {joined(names)}" for words, names in kinds.items()]
    pair = joined([NAMES[rule] for rule in HAND_MADE])
    again = [words.replace(pair, "both", 1) for words in said[1:] if pair in said[0]]
    return f"In held-out tasks LPG ends {' but '.join([said[0], *(again or said[1:])])}"


def _beside(scores: "pd.DataFrame", suffix: str) -> str:
    """Which hand-made rules the learnt one is above and below."""
    others = [rule for rule in HAND_MADE if rule + suffix in scores.index]
    more = {rule: paired_difference(scores.loc[LEARNT + suffix], scores.loc[rule + suffix]) for rule in others}
    sides = {
        "above": [NAMES[rule] for rule, gap in more.items() if gap.low > 0],
        "below": [NAMES[rule] for rule, gap in more.items() if gap.high < 0],
    }
    told = [f"{side} {joined(names)}" for side, names in sides.items() if names]
    return joined(told) if told or not others else f"not told apart from {either([NAMES[rule] for rule in others])}"


def meta(rows: "pd.DataFrame") -> str:
    """What meta-training does to the scores of the agents that it is trained on."""
    table = rows.groupby(["update", "seed"])["score"].mean().unstack("update").sort_index(axis=1)
    first, last = (table.iloc[:, place] for place in (0, -1))
    gain = paired_difference(last, first)
    if not (gain.low > 0 or gain.high < 0):
        return "Meta-training: no change of the agents' mean score is told apart"
    verb = "raises" if gain.mean > 0 else "lowers"
    return f"Meta-training {verb} the agents' mean score by {two_digits(abs(gain.mean))}"


def gradient(rows: "pd.DataFrame") -> str:
    """Whose exact squared bias is the largest at the largest K, and how many times the next one's it is."""
    exact = rows[rows["permutation"] == "ESE"]
    largest = exact["inner_steps"].max()
    table = exact[exact["inner_steps"] == largest].pivot_table(
        index="estimator", columns="mdp", values="expected_bias_sq"
    )
    biased = table[(table > EQUAL).all(axis=1)]
    order = list(np.log(biased).mean(axis=1).sort_values(ascending=False).index)
    at = f"With {largest:g} inner step{'s' if largest > 1 else ''}"
    if not order:
        return f"{at} no estimator biases LPG's meta-gradient"
    first = LABELS.get(order[0], order[0])
    if len(order) == 1:
        return f"{at} {first} alone biases LPG's meta-gradient"
    ratio = mean_interval(log_ratio(biased.loc[order[0]], biased.loc[order[1]]).to_numpy())
    if not ratio.low > 0:
        return f"{at} no estimator of LPG's meta-gradient is told apart as the most biased"
    low, high = (two_digits(float(np.exp(end))) for end in (ratio.low, ratio.high))
    return f"{at} {first}'s squared bias is {low} to {high} times that of {LABELS.get(order[1], order[1])}"
