"""One number per independent unit, such as an MDP or a seed, out of results.csv."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class Units:
    """Looks numbers per unit up in a data frame; it goes over its rows once for each set of columns that is asked for.

    Args:
        frame: results.csv, or a part of it.
        over: The column that names the unit, such as "mdp" or "seed"; rows of one unit are averaged.

    Example:
        >>> units = Units(frame, over="mdp")  # doctest: +SKIP
        >>> units("accuracy", estimator="lvc", sample_size=8)  # doctest: +SKIP
    """

    def __init__(self, frame: "pd.DataFrame", over: str) -> None:
        _require(frame, over)
        self._frame = frame[frame[over].notna()]
        self._over, self._units = over, self._frame[over].to_numpy()
        self._values: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self._rows: dict[tuple[str, ...], dict[tuple[Any, ...], list[int]]] = {}

    def __call__(self, value: str, **where: Any) -> "pd.Series[float]":
        """One number per unit, ready to be paired; as `per_unit`."""
        import pandas as pd

        columns = tuple(where)
        if columns not in self._rows:
            self._rows[columns] = self._grouped(columns)
        if value not in self._values:
            _require(self._frame, value)
            self._values[value] = self._frame[value].to_numpy(dtype=np.float64)
        rows = np.array(self._rows[columns].get(tuple(where.values()), []), dtype=np.intp)
        ordered = rows[np.argsort(self._units[rows], kind="stable")]
        units = self._units[ordered]
        if (units[1:] == units[:-1]).any():
            return self._frame.take(rows).groupby(self._over, sort=True)[value].mean()
        return pd.Series(self._values[value][ordered], index=pd.Index(units, name=self._over), name=value)

    def _grouped(self, columns: tuple[str, ...]) -> dict[tuple[Any, ...], list[int]]:
        """The positions of the rows by what stands in some columns."""
        _require(self._frame, *columns)
        rows: dict[tuple[Any, ...], list[int]] = {} if columns else {(): list(range(len(self._frame)))}
        for position, place in enumerate(zip(*(self._frame[column].tolist() for column in columns), strict=True)):
            rows.setdefault(place, []).append(position)
        return rows


def per_unit(frame: "pd.DataFrame", value: str, over: str, **where: Any) -> "pd.Series[float]":
    """One number per independent unit, ready to be paired; `Units` is quicker where many are asked for.

    Args:
        frame: results.csv, or a part of it.
        value: The column measured.
        over: The column that names the unit, such as "mdp" or "seed"; rows of one unit are averaged.
        where: Conditions column=value that select rows.

    Returns:
        The means, indexed by unit in ascending order; empty if no row fulfils the conditions.

    Raises:
        ValueError: There is no such column.
    """
    return Units(frame, over)(value, **where)


def _require(frame: "pd.DataFrame", *columns: str) -> None:
    for column in columns:
        if column not in frame.columns:
            raise ValueError(f"expected a column among {', '.join(frame.columns)}; got {column}")
