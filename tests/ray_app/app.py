"""An app for the tests of the Ray launcher. Its other modules are gone from the disk when a worker imports them."""

import importlib
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import helper  # noqa: F401 - as an estimator of the user's is loaded while the settings are read

import gm_lab
from gm_lab.run import interruption


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """Numbers that are easy to check."""

    cells: int = 60
    """How many."""
    seconds: float = 0.0
    """How long each takes."""
    trouble: str = ""
    """What cell 7 does: kill or raise."""
    trace: Path | None = None
    """Where workers leave traces: cells begun and checkpoints written."""


@dataclass(frozen=True)
class Cell:
    number: int
    seed: int
    seconds: float
    trouble: str
    trace: str


def cells(settings):
    trace = str(settings.trace or "")
    return [Cell(number, settings.seed, settings.seconds, settings.trouble, trace) for number in range(settings.cells)]


def run_cell(cell, context):
    leave(cell, "begun")
    try:
        end = time.monotonic() + cell.seconds
        while time.monotonic() < end:
            time.sleep(0.01)  # Ray interrupts between two steps of Python, not within one
    except BaseException:
        leave(cell, "checkpoint")
        raise
    if cell.trouble and cell.number == 7:
        cause_trouble(cell.trouble)
    return importlib.import_module("helper").rows(cell)  # as an estimator is called, by its name


def leave(cell, what):
    if cell.trace:
        with (Path(cell.trace) / what).open("a") as file:
            file.write(f"{cell.number}\n")


def cause_trouble(kind):
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ZeroDivisionError("no\nway")


def prepare(settings):
    if settings.launcher == "ray":
        Path(__file__).with_name("helper.py").unlink(missing_ok=True)
        shutil.rmtree(Path(__file__).with_name("own"), ignore_errors=True)
    return gm_lab.Context(settings.run_dir)


EXPERIMENT = gm_lab.Experiment(
    name="ray_app",
    settings=Settings,
    columns=("number", "value"),
    key=("number",),
    cells=cells,
    run_cell=run_cell,
    figures=lambda _settings, _frame: {},
    claims=lambda _settings, _frame: [],
    summary=lambda _settings, frame: frame.head(1),
    prepare=prepare,
)

if __name__ == "__main__":
    # its cells have all the time that they take for their checkpoints, however busy the machine is
    interruption.GRACE_SECONDS = interruption.HURRIED_GRACE_SECONDS = 3600.0
    sys.exit(gm_lab.main(EXPERIMENT))
