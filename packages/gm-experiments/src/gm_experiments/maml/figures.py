"""What apps/maml_tabular.py makes of results.csv: figures, verdicts on MAML-1 to MAML-13, and the closing table."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import gm_lab
from gm_lab import Comparison, above, alike, at_least, at_most, decided

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SIZES = "trajectories per estimate"
STEPS = "inner steps K"
RATE = "inner learning rate α"
ACCURACY = "accuracy (cosine)"
SPREAD = "Σ standard deviations"
ORDER = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")
LABELS = {"ad": "AD", "dice": "DiCE", "loaded_dice": "Loaded-DiCE", "lvc": "LVC"}


def figures(frame: "pd.DataFrame") -> "dict[str, Figure]":
    """One picture for each of the paper's figures that results.csv has rows for."""
    draw: dict[str, Callable[[pd.DataFrame], Figure]] = {
        "fig1": _permutations_by_estimator,
        "fig4": lambda rows: _estimators_by_permutation(rows, "sample_size", SIZES, logarithmic=True),
        "fig5": lambda rows: _estimators_by_permutation(rows, "inner_lr", RATE),
        "fig6": lambda rows: _estimators_by_permutation(rows, "inner_steps", STEPS),
    }
    shown = sorted(set(frame["figure"]) & set(draw))
    return {name: draw[name](frame[frame["figure"] == name]) for name in shown}


def _permutations_by_estimator(rows: "pd.DataFrame") -> "Figure":
    names = sorted(rows["estimator"].unique(), key=lambda name: (name == "ad", name != "lvc", name))
    titles = [f"({chr(97 + i)}) {LABELS.get(name, name)}" for i, name in enumerate(names)]
    figure = gm_lab.panels(titles, width=3.8, height=3.4)
    for axes, name in zip(figure.axes, names, strict=True):
        gm_lab.lines(
            axes,
            rows[rows["estimator"] == name],
            "sample_size",
            "accuracy",
            by="permutation",
            over="mdp",
            names=[p for p in ORDER if p in set(rows["permutation"])],
            x_label=SIZES,
            y_label=ACCURACY,
            x_scale="log2",
        )
    gm_lab.shared_legend(figure, "inner gradient, Hessian, outer gradient: S sampled, E exact")
    return figure


def _estimators_by_permutation(rows: "pd.DataFrame", x: str, x_label: str, *, logarithmic: bool = False) -> "Figure":
    permutations = [p for p in ORDER if p in set(rows["permutation"])]
    figure = gm_lab.panels(permutations, width=2.4, height=2.6, rows=2)
    for index, axes in enumerate(figure.axes):
        metric = ("accuracy", "std_sum")[index // len(permutations)]
        gm_lab.lines(
            axes,
            rows[rows["permutation"] == permutations[index % len(permutations)]],
            x,
            metric,
            by="estimator",
            over="mdp",
            labels=LABELS,
            x_label=x_label,
            y_label=ACCURACY if metric == "accuracy" else SPREAD,
            x_scale="log2" if logarithmic else "linear",
            y_scale="linear" if metric == "accuracy" else "log",
        )
    gm_lab.shared_legend(figure, "with an exact Hessian, AD, Loaded-DiCE and LVC are the same estimator")
    return figure


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Mean accuracy at the largest values of the axes of the figure with most rows: estimators × permutations."""
    rows = frame[frame["figure"] == frame["figure"].value_counts().idxmax()]
    axes = {"sample_size": "trajectories", "inner_steps": "K", "inner_lr": "α"}
    point = {axis: rows[axis].max() for axis in axes}
    for axis, value in point.items():
        rows = rows[rows[axis] == value]
    where = ", ".join(f"{name} = {point[axis]:g}" for axis, name in axes.items())
    table = rows.pivot_table(index="estimator", columns="permutation", values="accuracy").reset_index()
    return table[["estimator", *(p for p in ORDER if p in table)]].rename(columns={"estimator": f"accuracy at {where}"})


class Evidence:
    """Values of one metric per MDP, looked up in the rows of the figures that measure the same thing."""

    def __init__(self, frame: "pd.DataFrame", *figures: str) -> None:
        rows = frame[frame["figure"].isin(figures)].drop(columns="figure").drop_duplicates()
        self._rows = dict(iter(rows.groupby(["estimator", "permutation"])))
        self._all = rows

    def __call__(
        self, estimator: str, permutation: str, metric: str = "accuracy", **point: float
    ) -> "pd.Series[float]":
        """The metric at one point, indexed by MDP; empty if it was not measured."""
        rows = self._rows.get((estimator, permutation), self._all.iloc[:0])
        return gm_lab.per_unit(rows, metric, "mdp", **point)

    def points(self, axis: str) -> list[float]:
        """The values of an axis that the figures have."""
        return sorted(self._all[axis].unique())


def claims(frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """The verdicts on MAML-1 to MAML-13, as docs/claims.toml says they are decided."""
    fig1, fig4 = Evidence(frame, "fig1", "fig4"), Evidence(frame, "fig4")
    by_lr, by_steps = Evidence(frame, "fig5"), Evidence(frame, "fig6")
    few, many, all_sizes = (2, 4, 8, 16), (64, 128, 256), (2, 4, 8, 16, 32, 64, 128, 256)

    def greater(
        estimator: str, chain: Sequence[str], sizes: Sequence[int], evidence: Evidence = fig4, metric: str = "accuracy"
    ) -> Iterator[Comparison]:
        for size in sizes:
            for high, low in pairwise(chain):
                values = (evidence(estimator, p, metric, sample_size=size) for p in (high, low))
                yield above(f"{LABELS[estimator]} {high} > {low} at {size}", *values)

    def equal(
        estimator: str, pair: tuple[str, str], sizes: Sequence[int], evidence: Evidence = fig4
    ) -> Iterator[Comparison]:
        for size in sizes:
            values = (evidence(estimator, p, sample_size=size) for p in pair)
            yield alike(f"{LABELS[estimator]} {pair[0]} ≈ {pair[1]} at {size}", *values)

    def estimators(better: str, worse: str, permutations: Sequence[str], sizes: Sequence[int]) -> Iterator[Comparison]:
        for permutation in permutations:
            for size in sizes:
                values = (fig4(name, permutation, sample_size=size) for name in (better, worse))
                yield above(f"{LABELS[better]} > {LABELS[worse]} in {permutation} at {size}", *values)

    def gap(pair: tuple[str, str], size: int) -> "pd.Series[float]":
        return fig1("lvc", pair[0], sample_size=size) - fig1("lvc", pair[1], sample_size=size)

    def ends(evidence: Evidence, axis: str) -> tuple[dict[str, float], dict[str, float]]:
        points = evidence.points(axis) or [0.0]
        return {axis: points[0]}, {axis: points[-1]}

    exact_outer, sampled_outer = ("SSE", "SEE", "ESE"), ("SSS", "SES", "ESS")
    actor_critic = ("lvc", "loaded_dice", "ad")
    permutations = (*sampled_outer, "EES", *exact_outer)

    maml_11, maml_12 = [], []
    for evidence, axis, unit in ((by_steps, "inner_steps", "K"), (by_lr, "inner_lr", "α")):
        small, large = ends(evidence, axis)
        for name in LABELS:
            label = f"{LABELS[name]} SSE at {unit} = {small[axis]:g} > at {large[axis]:g}"
            maml_11.append(
                above(label, evidence(name, "SSE", "accuracy", **small), evidence(name, "SSE", "accuracy", **large))
            )
        for pair in (("SEE", "ESE"), ("SES", "ESS")):
            for name in ("lvc", "loaded_dice"):
                label = f"{LABELS[name]} {pair[0]} ≈ {pair[1]} at {unit} = {large[axis]:g}"
                maml_12.append(alike(label, *(evidence(name, p, "accuracy", **large) for p in pair)))
            label = f"AD {pair[0]} > {pair[1]} at {unit} = {large[axis]:g}"
            maml_12.append(above(label, *(evidence("ad", p, "accuracy", **large) for p in pair)))

    raises = [
        *(
            c
            for n in LABELS
            for pair in (("EES", "SES"), ("ESS", "SSS"))
            for c in greater(n, pair, all_sizes, fig4, "variance")
        ),
        *(c for n in ("dice", "loaded_dice") for c in greater(n, ("ESE", "SSE"), all_sizes, fig4, "variance")),
    ]
    lowers = [c for n in ("lvc", "ad") for c in greater(n, ("SSE", "ESE"), all_sizes, fig4, "variance")]

    return [
        decided(
            "MAML-1",
            "LVC, K = 1, few samples: SEE ≈ ESE > SSE",
            [
                *equal("lvc", ("SEE", "ESE"), few, fig1),
                *greater("lvc", ("SEE", "SSE"), few, fig1),
                *greater("lvc", ("ESE", "SSE"), few, fig1),
            ],
        ),
        decided(
            "MAML-2",
            "the gap between those three shrinks as the sample size grows",
            [
                above(f"gap {pair[0]} − {pair[1]} at 4 > at 256", gap(pair, 4), gap(pair, 256))
                for pair in (("SEE", "SSE"), ("ESE", "SSE"))
            ],
        ),
        decided("MAML-3", "AD, K = 1: SEE > ESE at every size", list(greater("ad", ("SEE", "ESE"), all_sizes, fig1))),
        decided(
            "MAML-4",
            "AD: only SEE approaches accuracy 1; a sampled Hessian stays biased",
            [
                at_least("AD SEE at 256 > .97", fig1("ad", "SEE", sample_size=256), 0.97),
                at_most("AD ESE at 256 < .85", fig1("ad", "ESE", sample_size=256), 0.85),
            ],
        ),
        decided(
            "MAML-5",
            "the outer gradient matters most: SSE, SEE, ESE > SSS, SES, ESS",
            [
                c
                for name in actor_critic
                for high in exact_outer
                for low in sampled_outer
                for c in greater(name, (high, low), all_sizes)
            ],
        ),
        decided(
            "MAML-6",
            "LVC with a sampled outer gradient: EES > SES > ESS > SSS",
            list(greater("lvc", ("EES", "SES", "ESS", "SSS"), all_sizes)),
        ),
        decided(
            "MAML-7",
            "DiCE is worst in every case",
            [c for name in actor_critic for c in estimators(name, "dice", permutations, all_sizes)],
        ),
        decided(
            "MAML-8",
            "SSS: LVC and Loaded-DiCE comparable in accuracy, LVC's variance smaller",
            [
                c
                for size in (16, 32, *many)
                for c in (
                    alike(f"accuracy at {size}", *(fig4(n, "SSS", sample_size=size) for n in ("lvc", "loaded_dice"))),
                    above(
                        f"variance of Loaded-DiCE > LVC at {size}",
                        *(fig4(n, "SSS", "variance", sample_size=size) for n in ("loaded_dice", "lvc")),
                    ),
                )
            ],
        ),
        decided(
            "MAML-9",
            "AD below LVC and Loaded-DiCE wherever the Hessian is sampled",
            [c for name in ("lvc", "loaded_dice") for c in estimators(name, "ad", ("SSE", "ESE", "SSS", "ESS"), many)],
        ),
        decided(
            "MAML-10",
            "exact outer: LVC ESE ≈ SEE > SSE; Loaded-DiCE SEE > ESE > SSE",
            [
                *equal("lvc", ("ESE", "SEE"), (16, 32, 64)),
                *greater("lvc", ("SEE", "SSE"), (16, 32, 64)),
                *greater("lvc", ("ESE", "SSE"), (16, 32, 64)),
                *greater("loaded_dice", ("SEE", "ESE", "SSE"), (16, 32, 64)),
            ],
        ),
        decided("MAML-11", "more steps or a larger α: SSE loses much accuracy in every estimator", maml_11),
        decided(
            "MAML-12",
            "large K or α: LVC and Loaded-DiCE SEE ≈ ESE, SES ≈ ESS; AD: the Hessian error dominates",
            maml_12,
        ),
        decided(
            "MAML-13",
            "correcting the composition raises variance; only for LVC and AD with an exact outer gradient it lowers it",
            [*raises, *lowers],
        ),
    ]
