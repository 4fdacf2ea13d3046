"""What the pictures of the studies of theory show, in a sentence each."""

from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common import findings, labels
from gm_lab.analysis import mean_interval

if TYPE_CHECKING:
    import pandas as pd

ALGORITHMS = {"maml": "MAML", "lirpg": "LIRPG"}


def composition(rows: "pd.DataFrame") -> str:
    """Whether the measured distances are below the bound, and how far."""
    if above := _above(rows):
        return f"The inner path strays further than Lemma 4.4 allows in {above} of {len(rows)} points"
    ratio = rows["bound_local"] / rows["measured"]
    few, most = (findings.two_digits(float(ratio.quantile(share))) for share in (0.5, 1.0))
    if not np.isfinite(ratio).any():
        return "How far sampled inner steps stray from the exact path"
    allowed = f"it allows {few} times as much in the median and up to {most} times"
    return f"Sampled inner steps never stray further than Lemma 4.4 allows; {allowed}"


def hessian(rows: "pd.DataFrame") -> str:
    """How much the bias grows when the Hessian's error doubles, from the fewest steps to the most."""
    grown = [text for name, word in ALGORITHMS.items() if (text := _growth(rows[rows["algorithm"] == name], word))]
    above = _above(rows)
    end = f"it exceeds the bound in {above} of {len(rows)} points" if above else "it stays below the bound"
    if not grown:
        return findings.capital(end.replace("it", "the bias of the meta-gradient", 1))
    return f"When the Hessian’s error doubles, {findings.joined(grown)}; {end}"


def _growth(rows: "pd.DataFrame", algorithm: str) -> str:
    """The factor at the smallest and the largest K, where intervals of the exponent leave out zero."""
    told = []
    for steps in sorted({rows["inner_steps"].min(), rows["inner_steps"].max()}) if len(rows) else []:
        exponents = [_exponent(part) for _, part in rows[rows["inner_steps"] == steps].groupby("mdp")]
        known = [value for value in exponents if np.isfinite(value)]
        if len(known) > 1 and (found := mean_interval(known)).low > 0:
            told.append(f"{findings.two_digits(2**found.mean)} times at K = {steps}")
    return f"{algorithm}’s bias grows {findings.joined(told)}" if told else ""


def _exponent(rows: "pd.DataFrame") -> float:
    """The slope of log bias over log error."""
    if rows["hessian_error"].nunique() < 2:
        return float("nan")
    return float(np.polyfit(np.log(rows["hessian_error"]), np.log(rows["measured"]), 1)[0])


def split(rows: "pd.DataFrame") -> str:
    """Whether the Hessian or the composition biases more, estimator by estimator."""
    bias = rows[rows["quantity"] == "bias"]
    groups: dict[str, list[str]] = {"the Hessian": [], "the inner gradient": [], "neither": []}
    called = labels.short(bias["estimator"].unique())
    for name, part in bias.groupby("estimator", sort=False):
        by_source = findings.values_of(part, "measured", by="permutation")
        found = findings.difference(by_source["ESE"], by_source["SEE"]) if {"ESE", "SEE"} <= set(by_source) else None
        if found is not None:
            more = "the Hessian" if found.low > 0 else "the inner gradient" if found.high < 0 else "neither"
            groups[more].append(called[str(name)])
    parts = [
        f"{source} biases {findings.joined(names)} more"
        for source, names in groups.items()
        if names and source != "neither"
    ]
    if groups["neither"]:
        parts.append(f"for {findings.joined(groups['neither'])} the two are not told apart")
    first = "Of a sampled Hessian and a sampled inner gradient, "
    return f"{first}{'; '.join(parts)}" if parts else "What bias and variance consist of"


def _above(rows: "pd.DataFrame") -> int:
    """In how many points even the lower end of what was measured is above the bound."""
    return int((rows["measured_low"] > rows["bound_local"] * (1 + 1e-9)).sum())
