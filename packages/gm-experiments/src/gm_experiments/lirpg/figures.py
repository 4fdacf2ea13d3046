"""What apps/lirpg_tabular.py makes of results.csv: figures, verdicts on LIRPG-1 to LIRPG-4, and the closing table."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import gm_lab
from gm_lab import Comparison, above, at_least, at_most, decided
from maml_report import ACCURACY, LABELS, SIZES, SPREAD, STEPS, Evidence

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def figures(frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Figure 1(c,d), the accuracy, and Figure 7, the variance, as far as results.csv has rows for them."""
    import numpy as np

    # the geometric mean over MDPs, because the variance differs between them by orders of magnitude
    frame = frame.assign(log_spread=np.log10(frame["std_sum"]))
    shown = {"fig1": ("accuracy", ACCURACY), "fig7": ("log_spread", f"log₁₀ {SPREAD}")}
    figures = {name: _by_size(frame[frame["figure"] == name], *shown[name]) for name in sorted(set(frame["figure"]))}
    if "fig1" in figures:
        figures["fig1"].axes[0].set_ylim(top=1.04)
    return figures


def _by_size(rows: "pd.DataFrame", metric: str, label: str) -> "Figure":
    sizes, permutations = (sorted(rows[column].unique()) for column in ("sample_size", "permutation"))
    titles = [f"{size} {SIZES.split()[0]}" for size in sizes]
    figure = gm_lab.panels(titles, width=2.3, height=2.7, rows=len(permutations))
    for index, axes in enumerate(figure.axes):
        permutation = permutations[index // len(sizes)]
        chosen = rows[(rows["sample_size"] == sizes[index % len(sizes)]) & (rows["permutation"] == permutation)]
        gm_lab.lines(
            axes,
            chosen,
            "inner_steps",
            metric,
            by="estimator",
            over="mdp",
            labels=LABELS,
            x_label=STEPS,
            y_label=f"{label}, {permutation}",
        )
        axes.set_xticks(sorted(rows["inner_steps"].unique()))
        for line in axes.get_lines() if metric == "accuracy" else []:
            _each_mdp(axes, chosen, line)
    gm_lab.shared_legend(figure)
    return figure


def _each_mdp(axes: "Axes", rows: "pd.DataFrame", line: "Line2D") -> None:
    """A thin line for each MDP behind the mean, which a few MDPs can pull down."""
    names = {LABELS.get(name, name): name for name in rows["estimator"].unique()}
    for _, points in rows[rows["estimator"] == names[str(line.get_label())]].groupby("mdp"):
        points = points.sort_values("inner_steps")
        axes.plot(
            points["inner_steps"], points["accuracy"], color=line.get_color(), linewidth=0.6, alpha=0.5, zorder=2.5
        )


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Mean accuracy at the largest sample size: estimators × inner steps."""
    size = frame["sample_size"].max()
    rows = frame[frame["sample_size"] == size]
    table = rows.pivot_table(index=["estimator", "permutation"], columns="inner_steps", values="accuracy").reset_index()
    columns = {k: f"K = {k}" for k in table.columns if isinstance(k, int)}
    named: pd.DataFrame = table.rename(columns={"estimator": f"accuracy at {size} trajectories"} | columns)
    return named


def claims(frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """The verdicts on LIRPG-1 to LIRPG-4, as docs/claims.toml says they are decided."""
    import numpy as np

    found = Evidence(frame, "fig1", "fig7")
    sizes, steps = (16, 32, 64, 128, 256), (1, 2, 3, 4, 5)

    def at(name: str, size: int, step: int, metric: str = "accuracy") -> "pd.Series[float]":
        return found(name, "ESE", metric, sample_size=size, inner_steps=step)

    def equal(size: int, metric: str) -> Comparison:
        label, (first, second) = f"{metric} at {size}", (at(name, size, 1, metric) for name in ("lvc", "ad"))
        if len(first) == 0 or len(second) == 0:
            return Comparison(label, None, "no data")
        gap = float((first - second).abs().max() / first.abs().max())
        return Comparison(label, gap <= 1e-12, f"largest relative difference {gap:.1e}")

    def grows() -> Iterator[Comparison]:
        for name in ("lvc", "ad"):
            for step in steps:
                label = f"{LABELS[name]} at K = {step}: {sizes[-1]} > {sizes[0]} trajectories"
                yield above(label, at(name, sizes[-1], step), at(name, sizes[0], step))
            for fewer, more in pairwise(steps):
                label = f"{LABELS[name]} at 256 trajectories: K = {fewer} > {more}"
                yield above(label, at(name, 256, fewer), at(name, 256, more))

    def ratio(size: int, step: int) -> "pd.Series[float]":
        """The logarithm of AD's variance over LVC's, MDP by MDP."""
        quotient = at("ad", size, step, "variance") / at("lvc", size, step, "variance")
        return quotient.map(np.log)

    return [
        decided(
            "LIRPG-1",
            "K = 1: AD and LVC perform alike (they are equal by algebra)",
            [equal(size, metric) for size in sizes for metric in ("accuracy", "variance")],
        ),
        decided("LIRPG-2", "more samples and fewer steps raise accuracy for both", list(grows())),
        decided(
            "LIRPG-3",
            "K = 5: LVC keeps high accuracy, AD falls low",
            [
                at_least("LVC at 256 > .9", at("lvc", 256, 5), 0.9),
                at_most("AD at 256 < .7", at("ad", 256, 5), 0.7),
            ],
        ),
        decided(
            "LIRPG-4",
            "AD's variance is the higher, more so as K grows",
            [
                *(
                    above(f"log AD / LVC at K = {k}, {n} > 0", ratio(n, k), 0 * ratio(n, k))
                    for k in steps[1:]
                    for n in sizes
                ),
                *(above(f"log AD / LVC at {n}: K = 5 > 2", ratio(n, 5), ratio(n, 2)) for n in sizes),
            ],
        ),
    ]
