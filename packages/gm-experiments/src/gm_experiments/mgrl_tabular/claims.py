"""The claims about MGRL that its exact meta-gradient decides, as docs/claims.toml says."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gm_experiments.common.claims import DISTANCE, PART, Claim
from gm_experiments.common.dots import moment
from gm_experiments.common.labels import estimator as label_of
from gm_experiments.mgrl_tabular.settings import ALL, META_PARAMS, Settings
from gm_lab.analysis import Comparison, Units, Verdict, above, check, ratio_above, within

if TYPE_CHECKING:
    import pandas as pd

EQUAL = 1e-7
"""Biases in units of ‖g‖ up to it are rounding."""
HOUSE = ("ad", "lvc", "loaded_dice")
FIGURES = ("steps", "sources")
"""Those with exact biases, the second of which has nothing else."""


class Measured(NamedTuple):
    """Exact biases per MDP, where the inner and the outer gradient are exact, and at which points and K they are."""

    units: Units
    points: list[float]
    steps: list[float]

    def bias(self, name: str, point: float, steps: float) -> "pd.Series[float]":
        """The length of an estimator's bias in units of ‖g‖."""
        return self.units("bias", estimator=name, updates=point, inner_steps=steps, meta_param=ALL)

    def error(self, name: str, meta_param: str, point: float, steps: float) -> "pd.Series[float]":
        """How far one entry is off, in units of the larger of it and the true one."""
        return self.units("expected_error", estimator=name, updates=point, inner_steps=steps, meta_param=meta_param)


def measured(frame: "pd.DataFrame") -> Measured:
    """Takes them from results.csv."""
    rows = frame[frame["figure"].isin(FIGURES) & frame["expected_bias_sq"].notna()]
    rows = rows.assign(bias=rows["expected_bias_sq"] ** 0.5 / rows["truth"].abs())
    return Measured(Units(rows, "mdp"), sorted(set(rows["updates"])), sorted(set(rows["inner_steps"])))


def unbiased(names: tuple[str, ...], one_step: bool, found: Measured) -> Iterator[Comparison]:
    """None of them has a bias at K = 1, or at any K above."""
    for point in found.points:
        for steps in found.steps:
            if (steps == 1) != one_step:
                continue
            for name in names:
                bias = found.bias(name, point, steps)
                if len(bias):
                    worst = float(bias.max()) if bias.notna().all() else math.nan
                    label = f"{label_of(name)}, {_place(point, steps)}"
                    yield within(label, worst, EQUAL, f"largest bias {worst:.1e} ‖g‖")
    if not found.points:
        yield check("exact biases", None, "no data")


def less_biased(first: bool, found: Measured) -> Iterator[Comparison]:
    """AD has more bias than LVC at every K > 1: of new agents, or at all later points."""
    for point in found.points:
        if (point == 0) == first:
            for steps in found.steps:
                if steps > 1:
                    ad, lvc = (found.bias(name, point, steps) for name in ("ad", "lvc"))
                    yield ratio_above(f"{_place(point, steps)}: bias of AD > of LVC", ad, lvc, DISTANCE)


def growing(found: Measured) -> Iterator[Comparison]:
    """The bias of AD and of LVC is larger with the most inner steps than with two, or the fewest above one."""
    several = [steps for steps in found.steps if steps > 1]
    for point in found.points:
        for name in ("ad", "lvc"):
            if len(several) > 1:
                most, fewest = (found.bias(name, point, steps) for steps in (several[-1], several[0]))
                label = f"{label_of(name)}, {moment(point)}: bias at K = {several[-1]:g} > at K = {several[0]:g}"
                yield ratio_above(label, most, fewest, DISTANCE)


def largest_in(meta_param: str, found: Measured) -> Iterator[Comparison]:
    """One meta-parameter's entry is further off than every other, with each estimator at every K > 1."""
    for point in found.points:
        for name in HOUSE:
            for steps in found.steps:
                for other in META_PARAMS:
                    if steps > 1 and other != meta_param:
                        mine, its = (found.error(name, each, point, steps) for each in (meta_param, other))
                        label = f"{label_of(name)}, {_place(point, steps)}: {meta_param} > {other}"
                        yield above(label, mine, its, PART)


def _place(point: float, steps: float) -> str:
    return f"K = {steps:g}, {moment(point)}"


CLAIMS: tuple[Claim[Measured], ...] = (
    Claim("MT-1", "K = 1: AD, LVC and Loaded-DiCE have no bias in MGRL", (partial(unbiased, HOUSE, True),)),
    Claim("MT-2", "K > 1, new agents: AD's meta-gradient is the more biased, LVC's the less",
        (partial(less_biased, True),), examples=3),
    Claim("MT-3", "K > 1, agents that have learnt: AD's meta-gradient is the more biased, LVC's the less",
        (partial(less_biased, False),), examples=3),
    Claim("MT-4", "the bias of AD and of LVC grows with K", (growing,), examples=3),
    Claim("MT-5", "K > 1: Loaded-DiCE has no bias in MGRL", (partial(unbiased, ("loaded_dice",), False),)),
    Claim("MT-6", "K > 1: the bias is largest in the meta-gradient of the critic's weight",
        (partial(largest_in, "value_coef"),), examples=3),
)  # fmt: skip


def claims(_settings: Settings, frame: "pd.DataFrame") -> list[Verdict]:
    """The verdicts, each with the figure that gives more of what decides it, and nothing else."""
    found = measured(frame)
    return [replace(claim.verdict(found), needs=frozenset({"sources"})) for claim in CLAIMS]
