"""The pictures of the studies of theory, and how tight the bounds are."""

from typing import TYPE_CHECKING

from gm_experiments.common.findings import bands, held, two_digits
from gm_experiments.common.labels import RATE, SIZES, STEPS, permutation, short
from gm_experiments.theory import findings
from gm_experiments.theory.settings import GRIDS, ROUNDING
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "theory_size": ("sample_size", SIZES), "theory_steps": ("inner_steps", STEPS), "theory_rate": ("inner_lr", RATE),
}  # fmt: skip
SOURCES = ("SEE", "ESE", "SSE")
DOTTED = (0, (1, 1.5))


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
    """Measured distances and their bounds, each in the colour of its estimator."""
    frame = frame[frame["figure"].isin(studies)]
    names = list(frame["estimator"].unique())
    called, looks = short(names), analysis.styles(names)
    axis_columns = [axis for axis, _ in AXES.values()]
    long = frame.melt(["figure", "estimator", *axis_columns, "mdp"], ["measured", "bound_local"], "line")
    bound = long["line"] == "bound_local"
    long = long.assign(line=long["estimator"].where(~bound, long["estimator"] + " bound"))
    words = called | {f"{name} bound": f"bound, {called[name]}" for name in names}
    looks |= {f"{name} bound": analysis.Style(look.colour, "", DOTTED) for name, look in looks.items()}
    figure = analysis.panels([held(frame[frame["figure"] == study]) for study in studies], height=2.8)
    for axes, study in zip(figure.axes, studies, strict=True):
        axis, label = AXES[study]
        analysis.lines(
            axes, long[long["figure"] == study], axis, "value", by="line", over="mdp", names=list(words), labels=words,
            looks=looks, x_label=label, y_label="E‖sampled − exact parameters‖", y_scale="log", geometric=True,
            x_scale="log2" if axis == "sample_size" else "linear", direct=study == studies[-1],
        )  # fmt: skip
    loose = (frame["bound_global"] / frame["measured"]).dropna()
    least, most = (two_digits(float(end)) for end in (loose.min(), loose.max()))
    far = f"; those of the proof are {least} to {most} times what was measured" if len(loose) else ""
    analysis.entitle(
        figure, findings.composition(frame),
        f"Distance after K sampled steps, MAML; dotted: Lemma 4.4 with the constants of the sampled paths{far}. "
        f"Geometric means; {bands(frame)}.",
    )  # fmt: skip
    return figure


def _hessian(frame: "pd.DataFrame") -> "Figure":
    frame = frame[(frame["quantity"] == "bias") & (frame["measured"] > ROUNDING)]
    frame = frame.assign(steps="K = " + frame["inner_steps"].astype(str))
    titles = {name: word for name, word in findings.ALGORITHMS.items() if name in set(frame["algorithm"])}
    titles = titles or {"maml": "MAML"}
    figure = analysis.panels(list(titles.values()), height=3.0)
    names = sorted(frame["steps"].unique())
    looks = {name: analysis.category_style(place) for place, name in enumerate(names)}
    bounds = {name: analysis.Style(look.colour, "", DOTTED) for name, look in looks.items()}
    for axes, algorithm in zip(figure.axes, titles, strict=True):
        chosen = frame[frame["algorithm"] == algorithm]
        for metric, look, direct in (("bound_local", bounds, False), ("measured", looks, True)):
            analysis.lines(
                axes, chosen, "hessian_error", metric, by="steps", over="mdp", names=names, looks=look, direct=direct,
                x_scale="log2", y_scale="log", geometric=True,
                x_label="error added to the Hessian", y_label="‖bias of the meta-gradient‖",
            )  # fmt: skip
    place = held(frame.drop(columns="sample_size"))
    analysis.entitle(
        figure, findings.hessian(frame),
        f"Bias of a meta-gradient whose Hessian is off by a given error; dotted: the bound (Eq. 44). {place}; "
        f"geometric means over random MDPs; {bands(frame)}.",
    )  # fmt: skip
    return figure


def _split(frame: "pd.DataFrame") -> "Figure":
    deviation = frame["measured"].clip(lower=0) ** 0.5
    shown = frame.assign(measured=deviation.where(frame["quantity"] == "variance", frame["measured"]))
    titles = {"bias": "bias", "variance": "standard deviation"}
    figure = analysis.panels(list(titles.values()), height=2.7, share_y=False)
    names = list(shown["estimator"].unique())
    for axes, quantity in zip(figure.axes, titles, strict=True):
        _points(axes, shown[shown["quantity"] == quantity], names)
    figure.axes[1].tick_params(labelleft=False)
    analysis.shared_legend(figure)
    analysis.entitle(
        figure, findings.split(frame),
        f"Length of the bias and √tr Cov of MAML’s meta-gradient; what isn’t sampled is exact. {held(frame)}; "
        f"{bands(frame, shown='bars')}.",
    )  # fmt: skip
    return figure


def _points(axes: "Axes", frame: "pd.DataFrame", names: list[str]) -> None:
    """A row for each estimator, in it a point with its interval for each source."""
    sources = [source for source in SOURCES if source in set(frame["permutation"])]
    for place, source in enumerate(sources):
        look = analysis.category_style(source)
        found = [
            analysis.mean_interval(analysis.per_unit(frame, "measured", "mdp", estimator=name, permutation=source))
            for name in names
        ]
        at = [row + (place - (len(sources) - 1) / 2) * 0.22 for row in range(len(names))]
        bounded = [interval.low > -float("inf") for interval in found]
        axes.hlines(
            [y for y, known in zip(at, bounded, strict=True) if known],
            [max(interval.low, 0) for interval, known in zip(found, bounded, strict=True) if known],
            [interval.high for interval, known in zip(found, bounded, strict=True) if known],
            color=look.colour, linewidth=2, alpha=0.45,
        )  # fmt: skip
        axes.plot(
            [interval.mean for interval in found],
            at,
            look.marker,
            color=look.colour,
            label=permutation(source),
            markersize=6,
        )
    called = short(names)
    axes.set_yticks(range(len(names)), [called[name] for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("of the meta-gradient, mean over MDPs")


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """How tight the bounds are: bound / measured, the smallest and the median of all points."""
    frame = rows(frame)
    kinds = {f"{kind}, {part}": f"tightness_{kind}" for kind in ("local", "global") for part in ("smallest", "median")}
    groups = frame.groupby(["figure", "algorithm", "quantity"])
    table = groups[["tightness_local", "tightness_global"]].agg(["min", "median"])
    table.columns = list(kinds)
    counted = table.assign(points=groups.size()).reset_index()
    return counted.rename(columns={"figure": "bound / measured"})
