"""A picture for each estimator of MAML's Figure 4: its bias and standard deviation, beside the others in grey."""

from typing import TYPE_CHECKING

import numpy as np

from gm_experiments.common.findings import bands, held, two_digits, values_of
from gm_experiments.common.labels import ESTIMATORS, SIZES, estimator, short
from gm_lab import analysis
from gm_lab.analysis import Style, log_ratio, mean_interval, style_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OTHERS = "#8A8A8A"
MOST_LABELLED = 8
"""Estimators that are all named beside their lines; of more only the house's are."""


def estimator_pictures(frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws estimator_NAME for each of the house's estimators in the rows of Figure 4 where everything is sampled."""
    rows = frame[(frame["figure"] == "fig4") & frame["permutation"].isin(["SSS", "SSE"])]
    rows = rows.assign(
        bias=rows["bias_sq"] / rows["truth_sq"], deviation=(rows["variance"] / rows["truth_sq"]).clip(lower=0) ** 0.5
    ).replace([float("inf"), -float("inf")], float("nan"))  # fmt: skip
    measured = set(rows.loc[rows["permutation"] == "SSS", "estimator"])
    return {f"estimator_{name}": _picture(rows, name) for name in ESTIMATORS if name in measured}


def finding(rows: "pd.DataFrame", name: str) -> str:
    """Whether an estimator is biased with most trajectories, and whether its standard deviation is the extreme one."""
    size = rows["sample_size"].max()
    biased, sampled = (part[part["sample_size"] == size] for part in _parts(rows))
    bias, deviations = values_of(biased, "bias")[name], dict(values_of(sampled, "deviation"))
    if bias.empty or deviations[name].empty:
        return f"{estimator(name)}, {size:,g} trajectories: bias and standard deviation are not known"
    square = mean_interval(bias)
    told = f"a bias of {two_digits(square.mean**0.5)} ‖g‖" if square.low > 0 else "no bias told apart from 0"
    own = deviations.pop(name)
    ratios = [mean_interval(log_ratio(own, other).to_numpy()) for other in deviations.values() if len(other)]
    rank = "a standard deviation of"
    if ratios and all(ratio.high < 0 for ratio in ratios):
        rank = "the smallest standard deviation,"
    elif ratios and all(ratio.low > 0 for ratio in ratios):
        rank = "the largest standard deviation,"
    return f"{estimator(name)}, {size:,g} trajectories: {told}; {rank} {two_digits(_geometric(own))} ‖g‖"


def _parts(rows: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """What shows the bias, with an exact outer gradient if that has the same, and what shows the deviation."""
    sampled, quiet = (rows[rows["permutation"] == name] for name in ("SSS", "SSE"))
    # an estimator of the house has an unbiased outer gradient, which adds noise to what is measured and no bias
    return quiet if len(quiet) and set(quiet["estimator"]) <= set(ESTIMATORS) else sampled, sampled


def _picture(rows: "pd.DataFrame", name: str) -> "Figure":
    figure = analysis.panels(["bias / gradient length", "std. deviation / gradient length"], height=2.6, share_y=False)
    biased, sampled = _parts(rows)
    names = list(dict.fromkeys(sampled["estimator"]))
    labels, looks = short(names), {one: style_of(one) for one in names}
    for one in [*(other for other in names if other != name), name]:
        look = looks[one] if one == name else Style(OTHERS, looks[one].marker, looks[one].dash)
        for axes, part, metric in zip(figure.axes, (biased, sampled), ("bias", "deviation"), strict=True):
            own = part[part["estimator"] == one]
            mean = {"bias": "mean", "deviation": _geometric}[metric]
            # what is averaged already is one unit, which has no band
            shown = own if one == name else own.groupby("sample_size", as_index=False)[metric].agg(mean).assign(mdp=0)
            told = one in (name, *ESTIMATORS) or len(names) <= MOST_LABELLED
            _line(axes, shown.assign(estimator=one), metric, labels, {one: look}, told)
    figure.axes[0].set_ylim(bottom=0)
    quiet = " with an exact outer gradient, for less noise" if biased is not sampled else ""
    caption = (
        f"Meta-gradients of MAML in random MDPs beside the exact one, g; everything is sampled. Left: root of the mean "
        f"squared bias{quiet}, 0 where an estimate is negative; right: geometric mean. {held(rows)}; {bands(rows)}."
    )
    analysis.entitle(figure, finding(rows, name), caption)
    return figure


def _line(
    axes: "Axes", rows: "pd.DataFrame", metric: str, labels: dict[str, str], looks: dict[str, Style], told: bool
) -> None:  # fmt: skip
    bias = metric == "bias"
    analysis.lines(
        axes, rows, "sample_size", metric, by="estimator", over="mdp", labels=labels, looks=looks, direct=told,
        x_label=SIZES, y_label="", x_scale="log2", y_scale="linear" if bias else "log", root=bias, geometric=not bias,
    )  # fmt: skip


def _geometric(values: "pd.Series[float]") -> float:
    with np.errstate(divide="ignore"):  # 0 if one of them is
        return float(np.exp(np.log(values).mean()))
