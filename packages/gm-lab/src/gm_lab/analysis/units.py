"""One number per independent unit, such as an MDP or a seed, out of results.csv."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class Units:
    """Looks up numbers per unit, which `over` names, going over the rows once for each set of columns asked for."""

    def __init__(self, frame: "pd.DataFrame", over: str) -> None:
        _require(frame, over)
        self._frame = frame[frame[over].notna()]
        self._over, self._units = over, self._frame[over].to_numpy()
        self._values: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self._rows: dict[tuple[str, ...], dict[tuple[Any, ...], list[int]]] = {}

    def __call__(self, value: str, **where: Any) -> "pd.Series[float]":
        """Returns what `per_unit` does."""
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
        _require(self._frame, *columns)
        rows: dict[tuple[Any, ...], list[int]] = {} if columns else {(): list(range(len(self._frame)))}
        for position, place in enumerate(zip(*(self._frame[column].tolist() for column in columns), strict=True)):
            rows.setdefault(place, []).append(position)
        return rows


def per_unit(frame: "pd.DataFrame", value: str, over: str, **where: Any) -> "pd.Series[float]":
    """Returns one mean per independent unit, in ascending order, of the rows where column=value, perhaps of none.

    `Units` is quicker where many are asked for. Raises ValueError if there is no such column.

    Examples:
        >>> import pandas as pd
        >>> columns = {"estimator": ["lvc", "lvc", "ad", "ad"], "mdp": [0, 1, 0, 1], "accuracy": [0.9, 0.8, 0.5, 0.6]}
        >>> frame = pd.DataFrame(columns)
        >>> from gm_lab.analysis import per_unit
        >>> per_unit(frame, "accuracy", "mdp", estimator="lvc").tolist()
        [0.9, 0.8]
    """
    return Units(frame, over)(value, **where)


def _require(frame: "pd.DataFrame", *columns: str) -> None:
    for column in columns:
        if column not in frame.columns:
            raise ValueError(f"expected a column among {', '.join(frame.columns)}; got {column}")
