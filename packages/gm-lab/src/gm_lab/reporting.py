"""What a run ends with: figures, verdicts and the small table, out of results.csv and nothing else."""

import contextlib
import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from gm_lab.experiment import CellT, Experiment
from gm_lab.run.interruption import become_worker
from gm_lab.run.late import resolved
from gm_lab.run.output import encoded
from gm_lab.run.settings import SettingsT
from gm_lab.run.store import make_folder, write_atomically


class Report(NamedTuple):
    """What was made of results.csv: text for the terminal, the pictures' names in figures/, the number of rows."""

    tables: str
    images: list[str]
    rows: int


class _Said(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def reported(experiment: Experiment[SettingsT, CellT], settings: SettingsT, path: Path) -> Report:
    """Writes figures/, claims.json and summary.csv of the run at `path`, out of its results.csv."""
    from rich.console import Console

    from gm_lab.analysis import claims, figures, tables

    frame = tables.read_results(path / "results.csv")
    said = _Said(sys.stdout.isatty())
    with contextlib.redirect_stdout(said):
        drawn = experiment.figures(settings, frame)
        make_folder(path / "figures")
        apart = "ray" not in sys.modules  # whose threads don't bear a fork
        with figures.saving(drawn, path / "figures", settings.svg, apart) as images:
            verdicts = experiment.claims(settings, frame)
            summary = experiment.summary(settings, frame)
    write_atomically(path / "claims.json", encoded(claims.as_json(verdicts)))
    write_atomically(path / "summary.csv", encoded(summary.to_csv(index=False)))
    console = Console()
    with console.capture() as shown:
        console.print(tables.summary_table(summary))
        if verdicts:
            console.print(claims.as_table(verdicts))
    return Report(said.getvalue() + shown.get(), [image.name for image in images], len(frame))


@contextlib.contextmanager
def reporter(
    experiment: Experiment[SettingsT, CellT], settings: SettingsT, path: Path
) -> Iterator[Callable[[], Report]]:
    """Starts a process that imports, for a second or two, what reports need; yields a function that has it report."""
    if sys.platform != "linux" or "ray" in sys.modules:
        yield lambda: reported(experiment, settings, path)
        return
    fork: Any = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_wait_and_report, args=(theirs, experiment, settings, path, os.getpid()))
    process.start()
    theirs.close()

    def report() -> Report:
        made = None
        with contextlib.suppress(EOFError, OSError):
            ours.send(None)
            made = ours.recv()
        return made or reported(experiment, settings, path)  # which says what goes wrong

    try:
        yield report
    finally:
        process.kill()
        process.join()
        ours.close()


def _wait_and_report(
    connection: Any, experiment: Experiment[SettingsT, CellT], settings: SettingsT, path: Path, driver: int
) -> None:
    become_worker(driver)
    with contextlib.suppress(Exception):
        for module in ("pandas", "matplotlib.figure", "matplotlib.backends.backend_agg", "scipy.special", "rich.table"):
            import_module(module)
        for function in (experiment.figures, experiment.claims, experiment.summary):
            resolved(function)
        connection.recv()
        connection.send(reported(experiment, settings, path))
