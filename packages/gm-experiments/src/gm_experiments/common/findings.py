"""Sentences about results, true for whatever was measured: what intervals tell apart is said, what they don't isn't."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd

    Values = Mapping[str, pd.Series[float]]
    """One number for each unit, by name."""

ROUNDING = 1e-9
"""What an estimator written in other words differs by, in units of the largest value."""
FEW = 4
"""Of more names than these, a sentence has the first, and how many more there are."""
HELD = {"sample_size": "trajectories", "inner_steps": "K", "inner_lr": "α"}


def two_places(value: float) -> str:
    """A number with two digits behind the point."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−", 1)


def two_digits(value: float) -> str:
    """A number of any size with the two digits that count, written out."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-6 <= abs(value) < 1e7:
        return f"{value:.1e}".replace("e+", "e").replace("e-0", "e-").replace("-", "−")
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, 1 - math.floor(math.log10(abs(value)))):,.{min(digits, 6)}f}".replace("-", "−", 1)


def values_of(frame: "pd.DataFrame", metric: str, by: str = "estimator", over: str = "mdp") -> "Values":
    """A metric by name, one number for each unit that has one."""
    units = analysis.Units(frame, over)
    return {str(name): units(metric, **{by: name}).dropna() for name in frame[by].unique()}


def difference(first: "pd.Series[float]", second: "pd.Series[float]") -> analysis.Interval | None:
    """The interval of the difference over the units that both have; nothing if there are fewer than two."""
    shared = first.index.intersection(second.index)
    return analysis.paired_difference(first.loc[shared], second.loc[shared]) if len(shared) > 1 else None


def apart(first: "pd.Series[float]", second: "pd.Series[float]") -> bool:
    """Whether the interval of the difference leaves out zero, and more than rounding differs."""
    found = difference(first, second)
    rounding = ROUNDING * max(first.abs().max(), second.abs().max())
    return found is not None and (found.low > 0 or found.high < 0) and abs(found.mean) > rounding


def tiers(values: "Values", largest: bool = True) -> list[list[str]]:
    """Names from the best on; whoever isn't told apart from the first of a tier is in it."""
    known = {name: numbers for name, numbers in values.items() if len(numbers)}
    found: list[list[str]] = []
    for name in sorted(known, key=lambda name: known[name].mean(), reverse=largest):
        if found and not apart(known[found[-1][0]], known[name]):
            found[-1].append(name)
        else:
            found.append([name])
    return found


def ranked(
    values: "Values", labels: Mapping[str, str], most: tuple[str, str], nothing: str, *, largest: bool = True,
    show: Callable[[float], str] = two_places, tiers_shown: int | None = None,
) -> str:  # fmt: skip
    """Says who is first, who comes next and so on, with means that `show` words.

    `most` says of one and of several, which stand for {}, that they are first; `nothing` is what can't be told apart,
    as "accuracy". Only the first `tiers_shown` ranks are named, or all if they are few.
    """
    order = tiers(values, largest)
    names = [name for tier in order for name in tier]

    def means(tier: Sequence[str]) -> str:
        shown = [show(float(values[name].mean())) for name in tier]
        if len(set(shown)) == 1:
            return shown[0]
        return joined(shown) if len(tier) <= FEW else f"{shown[0]} to {shown[-1]}"

    def named(tier: Sequence[str]) -> str:
        return few([labels[name] for name in tier])

    if not order:
        return f"no {nothing} is known"
    if len(names) == 1:
        return f"the {nothing} of {labels[names[0]]} is {means(names)}"
    if len(order) == 1:
        return f"{named(names)} are not told apart in {nothing} ({means(names)})"
    first = most[len(order[0]) > 1].format(named(order[0]))
    shown = order[1:tiers_shown]
    if len(shown) >= FEW:  # all that come late are one
        shown = [*shown[: FEW - 2], [name for tier in shown[FEW - 2 :] for name in tier]]
    rest = (f"then {named(tier)} ({means(tier)})" for tier in shown)
    return ", ".join([f"{first} ({means(order[0])})", *rest])


def changed(before: "Values", after: "Values", labels: Mapping[str, str], verb: str, what: str) -> str:
    """Who loses something between two points, in words: "{verb} every estimator {what}"."""
    both = [name for name in before if name in after]
    losing = [name for name in both if before[name].mean() > after[name].mean() and apart(before[name], after[name])]
    if not losing:
        return f"{verb} no estimator {what} that intervals tell from none"
    named = joined(labels[name] for name in losing)
    return f"{verb} {'every estimator' if len(losing) == len(both) > 1 else named} {what}"


def few(words: Sequence[str]) -> str:
    """A, B and C; of many the first three, and how many more."""
    return joined(words if len(words) <= FEW else [*words[: FEW - 1], f"{len(words) - FEW + 1} others"])


def joined(words: Iterable[str]) -> str:
    """A, B and C."""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def capital(sentence: str) -> str:
    """A sentence that begins with a capital, whatever it begins with."""
    return sentence[:1].upper() + sentence[1:]


def held(frame: "pd.DataFrame") -> str:
    """What was the same in all rows: trajectories, K and α."""
    same = {column: frame[column].iloc[0] for column in HELD if column in frame and frame[column].nunique() == 1}
    words = [f"{HELD[column]} = {value:g}" for column, value in same.items() if column != "sample_size"]
    return ", ".join(words + [f"{value:g} {HELD[column]}" for column, value in same.items() if column == "sample_size"])


def intervals(shown: str, count: int, units: str) -> str:
    """What is shown as an interval, such as "Bands", and of how many units, as a sentence."""
    if count > 1:
        return f"{shown}: 95% interval{'s' * shown.endswith('s')} over {count} {units}."
    return f"One {units.removesuffix('s')}, so there are no intervals."


def bands(frame: "pd.DataFrame", unit: str = "MDP", over: str = "mdp", shown: str = "bands") -> str:
    """What bands are, and of how many units."""
    count = frame[over].nunique()
    return f"{shown} are 95% intervals over {count} {unit}s" if count > 1 else f"one {unit}, so there are no intervals"
