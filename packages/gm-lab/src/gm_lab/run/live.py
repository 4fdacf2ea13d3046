"""Rows of a cell that is still running, for those who watch: written by the cell, read by the tracker.

`<run dir>/live/<cell id>.csv` mirrors what the finished cell will return. It has no bearing on results.csv.
"""

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

from gm_lab.run import reading
from gm_lab.run.cells import Row, cell_id, scalar
from gm_lab.run.output import encoded, own_file

FOLDER = "live"


class LiveRows:
    """Appends rows to a cell's live file; each row is there at once, and once only.

    A cell that is begun again, from its start or from a checkpoint, appends what it computes: rows up to the last step
    in the file are skipped, so none is doubled, and a line torn by a kill is removed first, so none is lost. The column
    `step` numbers the rows; it only grows.

    Example:
        >>> live = LiveRows(run_dir, cell, step="updates")  # doctest: +SKIP
        >>> live.append({"game": "Qbert", "seed": 0, "updates": 25, "episode_return": 150.0})  # doctest: +SKIP
    """

    def __init__(self, run_dir: Path, cell: Any, step: str) -> None:
        self.path = run_dir / FOLDER / f"{cell_id(cell)}.csv"
        self._step = step
        self._begun = False
        self._columns: list[str] = []
        self._last: int | None = None
        with contextlib.suppress(OSError, reading.Unreadable):
            content = reading.read_bytes(self.path)
            with open(self.path, "r+b", opener=own_file) as file:
                file.truncate(content.rfind(b"\n") + 1)
            before = Tail(self.path)
            steps = [row.get(step) for row in before.rows()]
            if all(isinstance(number, int) for number in steps):
                self._columns, self._last = before.columns, steps[-1] if steps else None  # type: ignore[assignment]
            else:  # nothing that a cell has written
                self.path.unlink()

    def append(self, row: Row) -> None:
        """Writes a row, unless its step is in the file already: where its curve belongs, the step, and what is watched.

        A file system that refuses is no reason to end the training: the row is then in the finished cell only. Raises
        ValueError if the columns changed, the step is missing or no whole number, or a text has a line break.
        """
        step = row.get(self._step)
        if not isinstance(step, int):
            raise ValueError(f"expected a whole number in the column {self._step}, got {step!r}")
        if self._columns and set(row) != set(self._columns) and not self._begun:
            with contextlib.suppress(OSError):  # nothing that this cell has written
                self.path.unlink()
            self._columns, self._last = [], None
        self._begun = True
        if self._columns and set(row) != set(self._columns):
            raise ValueError(f"expected the columns {', '.join(self._columns)}; got {', '.join(row)}")
        if self._last is not None and step <= self._last:
            return
        lines = [] if self._columns else [list(row)]
        columns = self._columns or list(row)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*lines, [scalar(row[column], column) for column in columns]])
        if text.getvalue().count("\n") != len(lines) + 1:
            raise ValueError(f"expected text without line breaks, got {row!r}")
        with contextlib.suppress(OSError, reading.NoFile):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with reading.opened(self.path, reading.APPEND) as file:
                file.write(encoded(text.getvalue()))
            self._columns, self._last = columns, step


class Tail:
    """Reads a live file that grows, from before it exists: each complete row once, and nothing that is no row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self._offset = 0

    def rows(self) -> list[Row]:
        """The rows that were completed since the last call, numbers as numbers."""
        try:
            with reading.opened(self.path) as file:
                file.seek(self._offset)
                content = file.read(reading.LIMIT)
            whole = content[: content.rfind(b"\n") + 1]
            self._offset += len(whole)
            table = list(csv.reader(whole.decode(errors="replace").splitlines()))
        except (OSError, reading.NoFile, csv.Error):
            return []
        if table and not self.columns:
            self.columns = table.pop(0)
        # others are not what a cell writes
        fitting = [values for values in table if len(values) == len(self.columns)]
        return [dict(zip(self.columns, map(_value, values), strict=True)) for values in fitting]


def _value(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
