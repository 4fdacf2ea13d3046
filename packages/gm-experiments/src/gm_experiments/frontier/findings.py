"""What the frontier's pictures find, in words that are true for the results they are computed from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gm_experiments.common.claims import VARIANCE
from gm_experiments.common.findings import joined, two_digits
from gm_experiments.common.labels import estimator as label_of
from gm_experiments.common.labels import short
from gm_experiments.common.words import either, span
from gm_experiments.frontier import choices
from gm_lab.analysis import Interval, mean_interval, paired_difference

if TYPE_CHECKING:
    import pandas as pd

Choice = tuple[Any, ...]
MATTERS = float(np.exp(VARIANCE.delta))
"""The smallest ratio of two errors that matters."""


@dataclass(frozen=True)
class Factor:
    """One of the decisions that a choice is made of: which it took, and that in words."""

    level: Callable[[Choice], Any]
    name: Callable[[Any], str]


FACTORS = (
    Factor(lambda choice: choice[0], label_of),
    Factor(
        lambda choice: choices.batches(choice[2]), lambda n: "one batch for I and II" if n == 2 else "separate batches"
    ),
    Factor(lambda choice: choice[3] == "none", lambda plain: "no jackknife" if plain else "a jackknife"),
)


def of_kinds(table: "pd.DataFrame") -> dict[Choice, Interval]:
    """How many times the least error the best choice of each kind has, whatever its λ and the parts of its split."""
    first: dict[Choice, Choice] = {}
    for choice in table.index:
        first.setdefault(tuple(factor.level(choice) for factor in FACTORS), choice)
    return {kind: times(table.loc[choice], table.iloc[0]) for kind, choice in first.items()}


def name_of(kind: Choice, labels: Mapping[str, str]) -> str:
    """A kind of choice in words, with what estimators are called."""
    name, count, plain = kind
    return f"{labels[name]}, {'one batch' if count == 2 else 'separate'}{'' if plain else ', jackknife'}"


def times(errors: "pd.Series[float]", least: "pd.Series[float]") -> Interval:
    """How many times the least mean error another is, with the interval of their difference within MDPs."""
    more, unit = paired_difference(errors, least), float(least.mean())
    mean, low, high = (1 + end / unit for end in (more.mean, more.low, more.high))
    return Interval(mean, low, high, more.count)


def is_worse(ratio: Interval) -> bool:
    """Whether it is told apart from 1, and may be as much as matters."""
    return bool(ratio.low > 1 and ratio.high > MATTERS)


def frontier(rows: "pd.DataFrame") -> str:
    """What to choose at one K, α and budget, and what the rest costs, over all points of training."""
    tables = [choices.ranked(of_point) for _, of_point in rows.groupby("updates", sort=True)]
    advice: list[str] = []
    costs: dict[str, list[float]] = {}
    for factor in FACTORS:
        worse = _worse(tables, factor)
        never = [level for level, ratios in worse.items() if not ratios]
        if never and len(never) < len(worse):
            advice.append(either([factor.name(level) for level in never]))
            costs |= {factor.name(level): ratios for level, ratios in worse.items() if ratios}
    place = f"{rows['sample_size'].iloc[0]:,g} trajectories, K = {rows['inner_steps'].iloc[0]:g}"
    if not costs:
        return f"{place}: neither an estimator nor the sharing of batches nor a jackknife is told apart from the best"
    order = sorted(costs, key=lambda name: -max(costs[name]))
    most = {name: f"up to {two_digits(max(costs[name]))}" for name in order}
    said = [f"{name} {span(costs[name]) if len(costs[name]) == len(tables) else most[name]}" for name in order]
    said[0] = said[0].replace(f"{order[0]} ", f"{order[0]} costs ", 1) + " times the error"
    return f"{place}: use {', '.join(advice)}. {', '.join(said)}"


def _worse(tables: "Sequence[pd.DataFrame]", factor: Factor) -> dict[Any, list[float]]:
    """Each level of a factor, and how many times the least error its best choice has where that is told apart."""
    ratios: dict[Any, list[float]] = {}
    for table in tables:
        first: dict[Any, Choice] = {}
        for choice in table.index:
            first.setdefault(factor.level(choice), choice)
        for level, choice in first.items():
            ratio = times(table.loc[choice], table.iloc[0])
            ratios.setdefault(level, []).extend([ratio.mean] if is_worse(ratio) else [])
    return ratios


def of_estimators(rows: "pd.DataFrame") -> "pd.DataFrame":
    """For each place of the map and estimator how many times the least error its best choice has, and the interval."""
    import pandas as pd

    lines = []
    for place, here in rows.groupby(list(choices.MAP), sort=True):
        table = choices.ranked(here)
        for name in dict.fromkeys(choice[0] for choice in table.index):
            first = next(choice for choice in table.index if choice[0] == name)
            ratio = times(table.loc[first], table.iloc[0])
            at = dict(zip(choices.MAP, place, strict=True))
            lines.append({**at, "estimator": name, "times": ratio.mean, "worse": is_worse(ratio)})
    return pd.DataFrame(lines)


def budgets(ratios: "pd.DataFrame") -> str:
    """Which estimators are not told to be worse with each budget, at any α or point of training."""
    called = short(ratios["estimator"].unique())
    beaten = ratios.groupby(["sample_size", "estimator"], sort=True)["worse"].any()
    never = {int(size): [name for name in beaten[size].index if not beaten[size, name]]
             for size in beaten.index.unique("sample_size")}  # fmt: skip
    count = ratios["estimator"].nunique()
    known = {size: names for size, names in never.items() if 0 < len(names) < count}
    if not known:
        return "No estimator is told apart as the better one with any number of trajectories"
    sizes: dict[str, list[str]] = {}
    for size, names in known.items():
        sizes.setdefault(either([called[name] for name in names]), []).append(f"{size:,g}")
    first, *rest = [f"{names} with {joined(of_names)}" for names, of_names in sizes.items()]
    return f"Never told to be worse than another: {', '.join([f'{first} trajectories', *rest])}"


def training(gaps: "pd.DataFrame") -> str:
    """What training on estimates ends with, over exact training in the same MDP, and what remedies for bias change."""
    last = gaps["updates"].max()
    ends = gaps[gaps["updates"] == last]
    plain = ends[ends["debias"] == "none"] if (ends["debias"] == "none").any() else ends
    found = {str(name): _apart(rows) for name, rows in plain.groupby("choice", sort=False)}
    sides = {"below": [gap for gap in found.items() if max(gap[1], default=0) < 0],
             "above": [gap for gap in found.items() if min(gap[1], default=0) > 0]}  # fmt: skip
    said = [f"{joined([name for name, _ in side])} {_ends(side)} {word}" for word, side in sides.items() if side]
    rest = [name for name in found if all(name not in dict(side) for side in sides.values())]
    if not said:
        return f"After {last:g} updates no training on estimates is told apart from exact training"
    alike = [f"{joined(rest)} {'is' if len(rest) == 1 else 'are'} not told apart from it"] if rest else []
    first = f"After {last:g} updates {joined(said)} exact training"
    return "; ".join([first, *alike, *_remedies(ends)])


def _apart(rows: "pd.DataFrame") -> list[float]:
    """The mean differences of one choice, at each place, that are told apart from zero."""
    intervals = [mean_interval(here.groupby("mdp")["gap"].mean()) for _, here in rows.groupby(choices.PLACE)]
    return [gap.mean for gap in intervals if gap.low > 0 or gap.high < 0]


def _ends(side: "Sequence[tuple[str, list[float]]]") -> str:
    return f"{'ends' if len(side) == 1 else 'end'} {span([abs(gap) for _, gaps in side for gap in gaps])}"


def _remedies(ends: "pd.DataFrame") -> list[str]:
    """Whether remedies for bias change where training ends."""
    kind = [*choices.PLACE, *choices.CHOICE[:-1]]
    told, seen = [], set()
    for _, rows in ends.groupby(kind):
        table = rows.pivot_table(index="debias", columns="mdp", values="value")
        for remedy in table.index.difference(["none"]) if "none" in table.index else []:
            change = paired_difference(table.loc[remedy], table.loc["none"])
            seen.add(remedy)
            told += [change] if change.low > 0 or change.high < 0 else []
    if not seen:
        return []
    remedies = ["a jackknife" if remedy == "jackknife" else remedy for remedy in sorted(seen)]
    return [f"{joined(remedies)} changes it by up to {two_digits(max(abs(change.mean) for change in told))}" if told
            else f"{joined(remedies)} changes nothing that is told apart"]  # fmt: skip
