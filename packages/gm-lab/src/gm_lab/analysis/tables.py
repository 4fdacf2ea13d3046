"""results.csv as a data frame, and small data frames as tables for the terminal."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gm_lab.run.output import own_file

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table


def read_results(path: Path) -> "pd.DataFrame":
    """Reads results.csv: every number exactly as it was written, and text such as "NA" or "None" as text.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from gm_lab.analysis import read_results
        >>> file = Path(tempfile.mkdtemp(), "results.csv")
        >>> _ = file.write_text(chr(10).join(["estimator,accuracy", "lvc,0.1", "NA,nan"]))
        >>> read_results(file)["estimator"].tolist()
        ['lvc', 'NA']
    """
    import pandas as pd

    # pandas 3 reads floats exactly by default and deprecates saying so
    exact: Any = {"float_precision": "round_trip"} if pd.__version__.startswith("2.") else {}
    with open(path, encoding="utf-8", newline="", opener=own_file) as file:
        frame: pd.DataFrame = pd.read_csv(file, keep_default_na=False, na_values=["nan", ""], low_memory=False, **exact)
    return frame


def summary_table(frame: "pd.DataFrame") -> "SmallTable":
    """A small data frame as a table that is whole at any width; fractions with three significant digits."""
    texts = [is_text(frame, column) for column in frame.columns]
    rows = [[shown(value) for value in row] for row in frame.itertuples(index=False)]
    return SmallTable([str(column) for column in frame.columns], rows, texts)


def shown(value: Any) -> str:
    """A value as it is in a table: fractions with three significant digits, the rest in full, a dash if unknown."""
    fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    if fraction and math.isnan(value):
        return "–"
    return f"{value:.3g}" if fraction else str(value)


@dataclass(frozen=True)
class SmallTable:
    """Heads and rows for the terminal, of which nothing is left out or cut, however narrow it is.

    What is too wide for one table becomes several of some columns each, under the columns that tell rows apart; or one
    for each value of the first column; or for each row a block of lines. Text may then go over several lines between
    words. Of all that fits, the lowest is taken.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[bool]

    def __rich_console__(self, _console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yields what is shown in the width that there is."""
        yield from self._lowest(options.max_width)[1]

    def _lowest(self, room: int) -> "tuple[int, list[RenderableType]]":
        """One table if it fits as it is, else the arrangement with the fewest lines; and how many lines it has."""
        one = dict(enumerate(self._widths(texts_whole=True)))
        if _total(one.values()) <= room:
            return self._height([one]), [self._table(one)]
        found = [(len(self.rows) * (len(self.heads) + 1), self._blocks())]
        if len(self.keys) > 1:
            found.append(self._by_first_column(room))
        for whole in (False, True):
            if parts := self._parts(room, whole):
                found.append((self._height(parts), [self._table(part) for part in parts]))
        return min(reversed(found), key=itemgetter(0))  # of equal ones a table

    def _by_first_column(self, room: int) -> "tuple[int, list[RenderableType]]":
        from rich.text import Text

        height, below = 0, list[Any]()
        for value, rows in groupby(self.rows, key=itemgetter(0)):
            rest = SmallTable(self.heads[1:], [row[1:] for row in rows], self.texts[1:])
            lines, parts = rest._lowest(room)
            height += 1 + lines
            below += [Text(f"{self.heads[0]}: {value}", style="bold", overflow="fold"), *parts]
        return height, below

    @property
    def keys(self) -> list[int]:
        """The first columns, as many as tell all rows apart; one if no number of them does."""
        for count in range(1, len(self.heads)):
            if len({tuple(row[:count]) for row in self.rows}) == len(self.rows):
                return list(range(count))
        return [0][: len(self.heads)]

    def _parts(self, room: int, whole: bool) -> list[dict[int, int]]:
        """Tables that together have every column, each as column ↦ width; none if a column is too wide for all."""
        least, most = self._widths(texts_whole=False), self._widths(texts_whole=True)
        parts: list[dict[int, int]] = []
        keys, others = self.keys, [column for column in range(len(self.heads)) if column not in self.keys]
        for columns in _packed(keys, others, most if whole else least, room):
            widths = {column: most[column] for column in columns}
            while _total(widths.values()) > room:
                wrapped = [column for column in columns if widths[column] > least[column]]
                if not wrapped:
                    return []
                widths[max(wrapped, key=widths.__getitem__)] -= 1
            parts.append(widths)
        return parts

    def _widths(self, texts_whole: bool) -> list[int]:
        """The width of each column: its longest number and word of the head; of texts the whole or the longest word."""
        from rich.cells import cell_len

        def width(column: int) -> int:
            cells, head = [row[column] for row in self.rows], self.heads[column]
            if self.texts[column] and texts_whole:
                return max(map(cell_len, (head, *cells)))
            words = (word for cell in cells for word in (cell.split() if self.texts[column] else [cell]))
            return max(map(cell_len, (*head.split(), *words)), default=0)

        return [width(column) for column in range(len(self.heads))]

    def _height(self, parts: Sequence[Mapping[int, int]]) -> int:
        """How many lines some tables have, about: a cell has at least as many as its text needs."""

        def lines(row: Sequence[str], part: Mapping[int, int]) -> int:
            heights = (math.ceil(len(row[column]) / max(width, 1)) for column, width in part.items())
            return max(heights, default=1)

        return sum(3 + sum(lines(row, part) for row in (self.heads, *self.rows)) for part in parts)

    def _table(self, widths: Mapping[int, int]) -> "Table":
        from rich.table import Column, Table
        from rich.text import Text

        columns = [
            Column(Text(self.heads[i]), justify="left" if self.texts[i] else "right", width=width, overflow="fold")
            for i, width in widths.items()
        ]
        table = Table(*columns)
        for row in self.rows:
            table.add_row(*(Text(row[i]) for i in widths))
        return table

    def _blocks(self) -> "list[RenderableType]":
        """Each row as lines of a name and its value, with an empty line after the row."""
        from rich.text import Text

        texts = ((f"{head.strip()}: {cell}\n" for head, cell in zip(self.heads, row, strict=True)) for row in self.rows)
        return [Text("".join(lines), overflow="fold") for lines in texts]


def _packed(keys: Sequence[int], others: Sequence[int], widths: Sequence[int], room: int) -> list[list[int]]:
    """Groups of columns that fit side by side, each after the key columns, in order; at least one in each."""
    groups = [list(keys)]
    for column in others:
        if len(groups[-1]) > len(keys) and _total(widths[i] for i in (*groups[-1], column)) > room:
            groups.append(list(keys))
        groups[-1].append(column)
    return groups


def _total(widths: Iterable[int]) -> int:
    """The width of a table: each column has a line and two spaces beside it, and the last a line at its end."""
    return 1 + sum(width + 3 for width in widths)


def headline(summary: "pd.DataFrame") -> dict[str, float]:
    """The numbers of a small table, each named by the text in its row and by its column: "lvc/SSE/accuracy"."""
    texts = [column for column in summary.columns if is_text(summary, column)]
    return {
        "/".join([*(str(row[text]) for text in texts), str(column)]): float(row[column])
        for _, row in summary.iterrows()
        for column in summary.columns
        if column not in texts
    }


def is_text(frame: "pd.DataFrame", column: str) -> bool:
    """Whether a column holds anything but numbers."""
    return frame[column].dtype.kind not in "iuf"
