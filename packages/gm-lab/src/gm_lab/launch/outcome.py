"""What became of a cell that was computed somewhere else."""

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gm_lab.launch.supply import Supply
from gm_lab.run.cells import Row, describe_cell, shorten
from gm_lab.run.context import Context
from gm_lab.run.errors import BadInput, CellFailed, Interrupted

# cells quicker than this are handed out ahead of time, so that no worker waits for the driver
QUICK_SECONDS = 0.5

Work = Callable[[Any, Context], list[Row] | None]


@dataclass(frozen=True)
class Failure:
    """What a cell raised, in a form that crosses process boundaries."""

    bad_input: bool
    summary: str
    details: str

    def error(self, cell: Any) -> BadInput | CellFailed:
        """The error to raise in the driver."""
        if self.bad_input:
            return BadInput(self.summary)
        return CellFailed(f"cell {describe_cell(cell)} failed: {self.summary}", self.details)


@dataclass(frozen=True)
class Outcome:
    """A cell's position among those launched, how long it took, how it failed if it did, and rows yet to be saved.

    Rows yet to be saved come with the kind of machine that computed them.
    """

    index: int
    seconds: float
    failure: Failure | None
    rows: list[Row] | None = None
    computed_on: str = ""


def attempt(
    work: Work, index: int, cell: Any, context: Context, signalled: Callable[[], bool] = lambda: False
) -> Outcome:
    """Runs the cell of a position; what it raises becomes part of the outcome, unless a signal to this process did."""
    start = time.perf_counter()
    failure = rows = None
    try:
        rows = work(cell, context)
    except BadInput as error:
        failure = Failure(True, str(error), "")
    except Interrupted:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and signalled():  # what a library made of ours
            raise
        said = ""
        with contextlib.suppress(Exception):  # its own text may fail
            said = shorten(str(error), 200)
        reason = f"{type(error).__name__}: {said}".removesuffix(": ")
        failure = Failure(False, reason, traceback.format_exc())
    return Outcome(index, time.perf_counter() - start, failure, rows)


def checked(cells: Supply, outcomes: Iterator[Outcome]) -> Iterator[tuple[int, float]]:
    """The position and the seconds of each outcome; raises the error of the first that failed."""
    for outcome in outcomes:
        if outcome.failure is not None:
            raise outcome.failure.error(cells[outcome.index])
        yield outcome.index, outcome.seconds
