"""What `maml_tabular.py --figure theory` makes of results.csv: figures, verdicts on THEORY-1 to THEORY-4, tightness."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import gm_lab
import theory
from gm_lab import Comparison, decided
from maml_report import LABELS, RATE, SIZES, STEPS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "theory_size": ("sample_size", SIZES),
    "theory_steps": ("inner_steps", STEPS),
    "theory_rate": ("inner_lr", RATE),
}
LINES = {"measured": "measured", "bound_local": "bound, local constants", "bound_global": "bound, proved constants"}
SOURCES = {"SEE": "composition (I sampled)", "ESE": "Hessian (II sampled)", "SSE": "both"}


def rows(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The part of results.csv that is about theory."""
    return frame[frame["figure"].isin(set(theory.GRIDS))]


def figures(frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Lemma 4.4, the Hessian's part of Theorem 4.5, and what bias and variance consist of."""
    frame = rows(frame)
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
    figure = gm_lab.panels([_fixed(frame, study) for study in studies], width=3.6, height=2.6, rows=len(names))
    for index, axes in enumerate(figure.axes):
        (axis, label), name = AXES[studies[index % len(studies)]], names[index // len(studies)]
        chosen = long[(long["figure"] == studies[index % len(studies)]) & (long["estimator"] == name)]
        gm_lab.lines(
            axes, chosen, axis, "value", by="line", over="mdp", names=list(LINES), labels=LINES, x_label=label,
            y_label=f"{LABELS.get(name, name)}: log₁₀ E‖θ̂ᴷ − θᴷ‖",
            x_scale="log2" if axis == "sample_size" else "linear",
        )  # fmt: skip
        # the proved constants leave every scale after a few steps
        near = long[(long["line"] != "bound_global") & (long["estimator"] == name)]["value"]
        axes.set_ylim(near.min() - 0.5, near.max() + 2)
    gm_lab.shared_legend(figure)
    return figure


def _fixed(frame: "pd.DataFrame", study: str) -> str:
    """What a study holds fixed, for its title."""
    chosen = frame[frame["figure"] == study]
    names = {"inner_steps": "K", "inner_lr": "α", "sample_size": "|τ|"}
    return ", ".join(f"{name} = {chosen[c].iloc[0]:g}" for c, name in names.items() if chosen[c].nunique() == 1)


def _hessian(frame: "pd.DataFrame") -> "Figure":
    import numpy as np

    frame = frame[(frame["quantity"] == "bias") & (frame["measured"] > theory.ROUNDING)]
    frame = frame.assign(steps="K = " + frame["inner_steps"].astype(str))
    frame = frame.assign(measured=np.log10(frame["measured"]), bound_local=np.log10(frame["bound_local"]))
    titles = {"maml": "MAML: degree K", "lirpg": "LIRPG: degree K − 1"}
    figure = gm_lab.panels(list(titles.values()), width=4.2, height=3.6)
    names = sorted(frame["steps"].unique())
    for axes, algorithm in zip(figure.axes, titles, strict=True):
        chosen = frame[frame["algorithm"] == algorithm]
        gm_lab.lines(
            axes, chosen, "hessian_error", "measured", by="steps", over="mdp", names=names,
            x_label="error δ added to the Hessian", y_label="log₁₀ ‖bias of the meta-gradient‖", x_scale="log2",
        )  # fmt: skip
        drawn = [name for name in names if name in set(chosen["steps"])]
        for name, line in zip(drawn, axes.get_lines(), strict=True):
            bound = chosen[chosen["steps"] == name].groupby("hessian_error")["bound_local"].mean()
            axes.plot(bound.index, bound, color=line.get_color(), linestyle=":", linewidth=1.2, label="bound (Eq. 44)")
    gm_lab.shared_legend(figure)
    return figure


def _split(frame: "pd.DataFrame") -> "Figure":
    import numpy as np

    frame = frame.assign(
        measured=np.where(frame["quantity"] == "variance", frame["measured"] ** 0.5, frame["measured"])
    )
    titles = {"bias": "bias ‖E[x] − y‖", "variance": "standard deviation √tr Cov[x]"}
    figure = gm_lab.panels(list(titles.values()), width=4.2, height=3.2, share_y=False)
    names = list(frame["estimator"].unique())
    for axes, quantity in zip(figure.axes, titles, strict=True):
        _bars(axes, frame[frame["quantity"] == quantity], names)
    figure.axes[0].set_ylabel("of the meta-gradient, mean over MDPs")
    gm_lab.shared_legend(figure, f"what is sampled; {_fixed(frame, 'theory_split')}")
    return figure


def _bars(axes: "Axes", frame: "pd.DataFrame", names: list[str]) -> None:
    """A group of bars for each estimator, one for each source of error."""
    sources = [p for p in SOURCES if p in set(frame["permutation"])]
    width = 0.8 / len(sources)
    for i, permutation in enumerate(sources):
        found = [
            gm_lab.mean_interval(gm_lab.per_unit(frame, "measured", "mdp", estimator=name, permutation=permutation))
            for name in names
        ]
        error = [[x.mean - max(x.low, 0) for x in found], [x.high - x.mean for x in found]]
        at = [place + (i - (len(sources) - 1) / 2) * width for place in range(len(names))]
        colour = gm_lab.style_of(permutation).colour
        axes.bar(
            at, [x.mean for x in found], width * 0.92, color=colour, label=SOURCES[permutation], yerr=error,
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
        )  # fmt: skip
    axes.set_xticks(range(len(names)), [LABELS.get(name, name) for name in names])
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


def claims(frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """The verdicts on THEORY-1 to THEORY-4, as docs/claims.toml says they are decided."""
    frame = rows(frame)
    return [
        decided("THEORY-1", "E‖θ̂ᴷ − θᴷ‖ falls as |τ|^−½", list(_slopes(frame))),
        decided("THEORY-2", "it grows with α and K no faster than Lemma 4.4 says", list(_under(frame, "distance"))),
        decided(
            "THEORY-3",
            "the bias stays under Eq. 44 and is a polynomial of degree K − 1 in the Hessian's error",
            [*_under(frame, "bias"), *_degrees(frame)],
        ),
        decided("THEORY-4", "the variance stays under Eq. 57", list(_under(frame, "variance"))),
    ]


def _slopes(frame: "pd.DataFrame") -> Iterator[Comparison]:
    """Least-squares slopes in log-log coordinates, one for each MDP."""
    import numpy as np

    frame = frame[frame["figure"] == "theory_size"]
    for name in frame["estimator"].unique():
        table = frame[frame["estimator"] == name].pivot_table(index="mdp", columns="sample_size", values="measured")
        if table.shape[1] < 2:
            continue
        sizes = np.log(table.columns.to_numpy(dtype=float))
        slopes = np.polyfit(sizes, np.log(table.to_numpy()).T, 1)[0]
        interval = gm_lab.mean_interval(slopes)
        yield Comparison(f"slope with {LABELS.get(name, name)}", abs(interval.mean + 0.5) <= 0.1, str(interval))


def _under(frame: "pd.DataFrame", quantity: str) -> Iterator[Comparison]:
    """Whether a bound holds at every point, with local and with proved constants."""
    frame = frame[frame["quantity"] == quantity]
    for (study, algorithm), points in frame.groupby(["figure", "algorithm"]):
        for kind in ("local", "global"):
            limit = points[f"bound_{kind}"] * (1 + 1e-9) + theory.ROUNDING
            over = int((points["measured"] > limit).sum())
            tight = points[f"tightness_{kind}"]
            detail = f"{len(points) - over} of {len(points)} points, bound / measured at least {tight.min():.3g}"
            yield Comparison(f"{study} {algorithm} {quantity}, {kind} constants", over == 0, detail)


def _degrees(frame: "pd.DataFrame") -> Iterator[Comparison]:
    """The exponent of the bias in δ between the two largest errors: it approaches the degree from below."""
    import numpy as np

    chosen = frame[(frame["figure"] == "theory_hessian") & (frame["quantity"] == "bias")]
    for key, points in chosen.groupby(["algorithm", "inner_steps"]):
        algorithm, steps = str(key[0]), int(points["inner_steps"].iloc[0])
        degree = steps - (algorithm == "lirpg")
        table = points.pivot_table(index="mdp", columns="hessian_error", values="measured")
        label = f"{algorithm} K = {steps}: exponent at most {degree} and above {degree - 1}"
        if degree == 0:
            largest = float(table.to_numpy().max())
            yield Comparison(f"{algorithm} K = {steps}: no bias", largest <= theory.ROUNDING, f"at most {largest:.1e}")
        elif table.shape[1] > 1:
            errors, biases = np.log(table.columns.to_numpy(dtype=float)), np.log(table.to_numpy())
            interval = gm_lab.mean_interval((biases[:, -1] - biases[:, -2]) / (errors[-1] - errors[-2]))
            yield Comparison(label, degree - 1 < interval.mean <= degree + 0.01, str(interval))
