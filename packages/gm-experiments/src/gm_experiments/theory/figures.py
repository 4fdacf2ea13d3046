"""The pictures of the studies of theory, and how tight the bounds are."""

from typing import TYPE_CHECKING

from gm_experiments.common.labels import RATE, SIZES, STEPS, estimator
from gm_experiments.theory.settings import GRIDS, ROUNDING
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "theory_size": ("sample_size", SIZES), "theory_steps": ("inner_steps", STEPS), "theory_rate": ("inner_lr", RATE),
}  # fmt: skip
LINES = {"measured": "measured", "bound_local": "bound, local constants", "bound_global": "bound, proved constants"}
SOURCES = {"SEE": "composition (I sampled)", "ESE": "Hessian (II sampled)", "SSE": "both"}


def rows(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The part of results.csv that is about theory."""
    return frame[frame["figure"].isin(set(GRIDS))]


def figures(frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Lemma 4.4, the Hessian's part of Theorem 4.5, and what bias and variance consist of."""
    frame = rows(frame).replace([float("inf"), -float("inf")], float("nan"))  # a bound without end can't be drawn
    shown = set(frame["figure"])
    drawn = {}
    if composition := [study for study in AXES if study in shown]:
        drawn["theory_composition"] = _composition(frame, composition)
    if "theory_hessian" in shown:
        drawn["theory_hessian"] = _hessian(frame[frame["figure"] == "theory_hessian"])
    if "theory_split" in shown:
        drawn["theory_split"] = _split(frame[frame["figure"] == "theory_split"])
    return drawn


def _composition(frame: "pd.DataFrame", studies: list[str]) -> "Figure":
    import numpy as np

    long = frame[frame["figure"].isin(studies)].melt(
        ["figure", "estimator", "mdp", *(axis for axis, _ in AXES.values())], list(LINES), "line"
    )
    long = long.assign(value=np.log10(long["value"]))
    names = list(long["estimator"].unique())
    figure = analysis.panels([_fixed(frame, study) for study in studies], width=3.6, height=2.6, rows=len(names))
    for index, axes in enumerate(figure.axes):
        (axis, label), name = AXES[studies[index % len(studies)]], names[index // len(studies)]
        chosen = long[(long["figure"] == studies[index % len(studies)]) & (long["estimator"] == name)]
        analysis.lines(
            axes, chosen, axis, "value", by="line", over="mdp", names=list(LINES), labels=LINES, x_label=label,
            y_label=f"{estimator(name)}: log₁₀ E‖θ̂ᴷ − θᴷ‖",
            x_scale="log2" if axis == "sample_size" else "linear",
        )  # fmt: skip
        # the proved constants leave every scale after a few steps
        near = long[(long["line"] != "bound_global") & (long["estimator"] == name)]["value"]
        axes.set_ylim(near.min() - 0.5, near.max() + 2)
    analysis.shared_legend(figure)
    return figure


def _fixed(frame: "pd.DataFrame", study: str) -> str:
    chosen = frame[frame["figure"] == study]
    names = {"inner_steps": "K", "inner_lr": "α", "sample_size": "|τ|"}
    return ", ".join(f"{name} = {chosen[c].iloc[0]:g}" for c, name in names.items() if chosen[c].nunique() == 1)


def _hessian(frame: "pd.DataFrame") -> "Figure":
    import numpy as np

    frame = frame[(frame["quantity"] == "bias") & (frame["measured"] > ROUNDING)]
    frame = frame.assign(steps="K = " + frame["inner_steps"].astype(str))
    frame = frame.assign(measured=np.log10(frame["measured"]), bound_local=np.log10(frame["bound_local"]))
    titles = {"maml": "MAML: degree K", "lirpg": "LIRPG: degree K − 1"}
    figure = analysis.panels(list(titles.values()), width=4.2, height=3.6)
    names = sorted(frame["steps"].unique())
    for axes, algorithm in zip(figure.axes, titles, strict=True):
        chosen = frame[frame["algorithm"] == algorithm]
        analysis.lines(
            axes, chosen, "hessian_error", "measured", by="steps", over="mdp", names=names,
            x_label="error δ added to the Hessian", y_label="log₁₀ ‖bias of the meta-gradient‖", x_scale="log2",
        )  # fmt: skip
        drawn = [name for name in names if name in set(chosen["steps"])]
        for name, line in zip(drawn, axes.get_lines(), strict=True):
            bound = chosen[chosen["steps"] == name].groupby("hessian_error")["bound_local"].mean()
            axes.plot(bound.index, bound, color=line.get_color(), linestyle=":", linewidth=1.2, label="bound (Eq. 44)")
    analysis.shared_legend(figure)
    return figure


def _split(frame: "pd.DataFrame") -> "Figure":
    import numpy as np

    deviation = frame["measured"] ** 0.5
    frame = frame.assign(measured=np.where(frame["quantity"] == "variance", deviation, frame["measured"]))
    titles = {"bias": "bias ‖E[x] − y‖", "variance": "standard deviation √tr Cov[x]"}
    figure = analysis.panels(list(titles.values()), width=4.2, height=3.2, share_y=False)
    names = list(frame["estimator"].unique())
    for axes, quantity in zip(figure.axes, titles, strict=True):
        _bars(axes, frame[frame["quantity"] == quantity], names)
    figure.axes[0].set_ylabel("of the meta-gradient, mean over MDPs")
    analysis.shared_legend(figure, f"what is sampled; {_fixed(frame, 'theory_split')}")
    return figure


def _bars(axes: "Axes", frame: "pd.DataFrame", names: list[str]) -> None:
    sources = [p for p in SOURCES if p in set(frame["permutation"])]
    width = 0.8 / len(sources)
    for i, permutation in enumerate(sources):
        intervals = [
            analysis.mean_interval(analysis.per_unit(frame, "measured", "mdp", estimator=name, permutation=permutation))
            for name in names
        ]
        error = [[x.mean - max(x.low, 0) for x in intervals], [x.high - x.mean for x in intervals]]
        at = [place + (i - (len(sources) - 1) / 2) * width for place in range(len(names))]
        colour = analysis.style_of(permutation).colour
        axes.bar(
            at, [x.mean for x in intervals], width * 0.92, color=colour, label=SOURCES[permutation], yerr=error,
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
        )  # fmt: skip
    axes.set_xticks(range(len(names)), [estimator(name) for name in names])
    axes.grid(visible=False, axis="x")


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """How tight the bounds are: bound / measured, the smallest and the median of all points."""
    frame = rows(frame)
    kinds = {f"{kind}, {part}": f"tightness_{kind}" for kind in ("local", "global") for part in ("smallest", "median")}
    groups = frame.groupby(["figure", "algorithm", "quantity"])
    table = groups[["tightness_local", "tightness_global"]].agg(["min", "median"])
    table.columns = list(kinds)
    counted = table.assign(points=groups.size()).reset_index()
    return counted.rename(columns={"figure": "bound / measured"})
