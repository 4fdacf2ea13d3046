"""Measurements are averaged over the rows of each independent unit, in one pass over results.csv."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import pandas as pd

    ByUnit = dict[tuple[str | float, ...], pd.Series[float]]


def by_unit(rows: "pd.DataFrame", value: str, unit: str, *keys: Sequence[str]) -> "ByUnit":
    """Averages a column over the rows of each unit, once for every key.

    Args:
        rows: of results.csv.
        value: the column.
        unit: the column that names the independent unit, such as "mdp" or "seed".
        keys: the columns that tell apart what is measured.

    Returns:
        The means by the values of a key, indexed by unit in ascending order.
    """
    means: ByUnit = {}
    for key in keys:
        for group, series in rows.groupby([*key, unit])[value].mean().groupby(level=[*key]):
            means[cast("tuple[str | float, ...]", group)] = series.droplevel([*key])
    return means


def at(means: "ByUnit", *key: str | float) -> "pd.Series[float]":
    """Returns the means of one key; there are none if it was not measured."""
    import pandas as pd

    return means.get(key, pd.Series(dtype=float))
