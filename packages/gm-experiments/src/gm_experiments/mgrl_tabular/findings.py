"""What the pictures of exact MGRL find, in words that are true for the results they are computed from."""

from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.dots import moment
from gm_experiments.common.findings import apart, joined, ranked, two_digits, values_of
from gm_experiments.common.labels import short
from gm_experiments.mgrl_tabular import claims, sources
from gm_experiments.mgrl_tabular.settings import CORRECTED
from gm_lab.analysis import mean_interval

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "gamma": "γ", "gae_lambda": "λ", "value_coef": "critic's weight", "entropy_coef": "entropy's weight",
    "inner_lr": "step size α",
}  # fmt: skip
OWN = {CORRECTED: "all sources corrected"}
PARTS = {
    "action": "the action's own probability",
    "earlier": "earlier actions (the state)",
    "later": "later actions (the advantage)",
    "undamped": "later actions' factor (γλ)ᵏ",
    "values": "V in advantages and targets",
    "critic": "sampling in the critic's term",
    "entropy": "sampling in the entropy's term",
}
"""The ways in which an update depends on θ, the first four in the policy's term."""
REPAIRED = {
    "ad+values": "AD, V differentiated",
    "lvc+values": "LVC, V differentiated",
    "loaded_dice+values": "Loaded-DiCE, V differentiated",
    "loaded_dice+terms": "Loaded-DiCE in all terms",
}
ZERO = claims.EQUAL
"""Biases in units of ‖g‖ up to it are rounding."""


def in_order(rows: "pd.DataFrame") -> list[str]:
    """The estimators: those whose expectation is known first."""
    there = [str(name) for name in rows["estimator"].unique()]
    return [*(name for name in sources.ESTIMATORS if name in there), *(x for x in there if x not in sources.ESTIMATORS)]


def names_of(rows: "pd.DataFrame") -> dict[str, str]:
    """What lines and dots are called."""
    return short(str(name) for name in rows["estimator"].unique()) | OWN


def relative(rows: "pd.DataFrame") -> "pd.DataFrame":
    """With the length of the bias in units of ‖g‖: the exact one, or for want of it what the repeats say."""
    square = rows["expected_bias_sq"].where(rows["expected_bias_sq"].notna(), rows["bias_sq"].clip(lower=0))
    return rows.assign(bias=np.sqrt(square) / rows["truth"].abs(), noise=rows["variance"] / rows["truth"] ** 2)


def _by_point(rows: "pd.DataFrame") -> "list[tuple[float, pd.DataFrame]]":
    return [(float(point), rows[rows["updates"] == point]) for point in sorted(rows["updates"].unique())]


def bias(rows: "pd.DataFrame") -> str:
    """Who is the most biased at the largest K, at each point."""
    steps = rows["inner_steps"].max()
    said = []
    for point, here in _by_point(relative(rows[rows["inner_steps"] == steps])):
        values = {name: of for name, of in values_of(here, "bias").items() if name != CORRECTED and (of > ZERO).any()}
        words = "no estimator is biased"
        if values:
            words = ranked(
                values, names_of(here), ("{} has the largest bias", "{} have the largest bias"), "bias",
                show=two_digits,
            )  # fmt: skip
        said.append(f"{moment(point)} {words}")
    return f"K = {steps:g}: {'; '.join(said)}"


def meta_params(rows: "pd.DataFrame") -> str:
    """In which entry an estimator is furthest off, and how far, at the largest K and the last point."""
    steps, point = rows["inner_steps"].max(), rows["updates"].max()
    here = rows[(rows["inner_steps"] == steps) & (rows["updates"] == point) & rows["expected_error"].notna()]
    first: dict[str, list[str]] = {}
    for name in in_order(here[here["estimator"] != CORRECTED]):
        values = values_of(here[here["estimator"] == name], "expected_error", by="meta_param")
        order = sorted(values, key=lambda each: -values[each].mean())
        if len(order) > 1 and apart(values[order[0]], values[order[1]]):
            words = f"{NAMES[order[0]]} ({two_digits(float(values[order[0]].mean()))})"
            first.setdefault(words, []).append(names_of(here)[name])
    at = f"K = {steps:g}, {moment(point)}"
    if not first:
        return f"{at}: no meta-parameter is told apart as the one whose meta-gradient is furthest off"
    said = [f"the meta-gradient of the {what} by {joined(names)}" for what, names in first.items()]
    return f"{at}: furthest off is {joined(said)}"


def sampled(rows: "pd.DataFrame") -> str:
    """Whose accuracy is the highest where all is sampled, at the largest K and the last point."""
    steps, point = rows["inner_steps"].max(), rows["updates"].max()
    here = rows[(rows["inner_steps"] == steps) & (rows["updates"] == point)]
    words = ranked(
        values_of(here, "accuracy"), names_of(here), ("{} is the most accurate", "{} are the most accurate"),
        "accuracy", show=lambda value: f"{value:.3f}",
    )  # fmt: skip
    return f"All sampled, K = {steps:g}, {moment(point)}: {words}"


def source(rows: "pd.DataFrame") -> str:
    """Which part, alone left out, leaves the most bias at the largest K, at each point."""
    steps = rows["inner_steps"].max()
    said = []
    for point, here in _by_point(relative(rows[rows["inner_steps"] == steps])):
        parts = {name: of for name, of in values_of(here, "bias").items() if name in sources.LEFT_OUT}
        order = sorted(parts, key=lambda name: -parts[name].mean())
        if len(order) > 1 and (parts[order[0]] > ZERO).any() and apart(parts[order[0]], parts[order[1]]):
            value = mean_interval(parts[order[0]].to_numpy())
            ends = f"{two_digits(value.mean)} [{two_digits(value.low)}, {two_digits(value.high)}]"
            said.append(f"{moment(point)} {PARTS[order[0]]}, {ends} ‖g‖")
        else:
            said.append(f"{moment(point)} none that is told apart")
    if all("none" in words for words in said):
        return f"K = {steps:g}: no source of bias is told apart as the largest"
    return f"What leaves most bias if left out, K = {steps:g}: {'; '.join(said)}"


def schedules(rows: "pd.DataFrame") -> str:
    """How much too long or too short estimates are on average over training, by each schedule, if that is told."""
    said = []
    for schedule in sorted(rows["schedule"].unique()):
        here = rows[rows["schedule"] == schedule]
        spans = {name: mean_interval(of.to_numpy()) for name, of in values_of(here, "relative_bias").items()}
        labels = names_of(here)
        told = [
            f"{two_digits(100 * span.mean)}% ({labels[name]})"
            for name, span in spans.items()
            if span.low > 0 or span.high < 0
        ]
        said.append(f"{schedule}: {joined(told) if told else 'none that is told from nothing'}")
    return f"Mean relative bias along training, {'; '.join(said)}"
