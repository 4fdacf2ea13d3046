"""What a run ends with: figures, verdicts and the small table, out of results.csv and nothing else."""

import contextlib
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gm_lab.experiment import CellT, Experiment
from gm_lab.growth import Open, budget
from gm_lab.run.interruption import become_worker, held_back
from gm_lab.run.late import resolved
from gm_lab.run.output import encoded
from gm_lab.run.settings import SettingsT
from gm_lab.run.store import make_folder, write_atomically

if TYPE_CHECKING:
    from gm_lab.analysis.claims import Verdict


CAPTIONS = "captions.json"
"""What each picture shows and how to read it, in figures/."""


class Report(NamedTuple):
    """What was made of results.csv: text for the terminal, pictures' names in figures/, how many rows, open claims."""

    tables: str
    images: list[str]
    rows: int
    open: int


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
    from gm_lab.analysis.said import in_words

    frame = tables.read_results(path / "results.csv")
    said = _Said(sys.stdout.isatty())
    with contextlib.redirect_stdout(said):
        drawn = experiment.figures(settings, frame)
        make_folder(path / "figures")
        apart = "ray" not in sys.modules  # whose threads don't bear a fork
        with figures.saving(drawn, path / "figures", settings.svg, apart) as images:
            verdicts = experiment.claims(settings, frame)
            summary = experiment.summary(settings, frame)
            concluded = list(experiment.conclusion(settings, frame))
    said_of = {
        name: {"finding": figures.finding_of(figure), "caption": figures.caption_of(figure)}
        for name, figure in drawn.items()
        if figures.finding_of(figure)
    }
    circumstances, of_paper = budget(experiment, settings)
    write_atomically(path / "claims.json", encoded(claims.as_json(verdicts, circumstances)))
    write_atomically(path / "figures" / CAPTIONS, encoded(json.dumps(said_of, indent=2, ensure_ascii=False) + "\n"))
    write_atomically(path / "summary.csv", encoded(summary.to_csv(index=False)))
    console = Console()
    with console.capture() as shown:
        console.print(tables.summary_table(summary))
        if verdicts:
            console.print(
                claims.as_list(verdicts, circumstances, of_paper, _measured_by(experiment, settings, verdicts))
            )
        if sentences := [*(words["finding"] for words in said_of.values()), *concluded]:
            console.print(in_words(sentences))
    waiting = sum(verdict.is_open for verdict in verdicts)
    return Report(said.getvalue() + shown.get(), [image.name for image in images], len(frame), waiting)


def _measured_by(experiment: Experiment[SettingsT, CellT], settings: SettingsT, verdicts: "Iterable[Verdict]") -> str:
    needs = (need for verdict in verdicts if verdict.verdict == "not measured" for need in verdict.needs)
    return experiment.measured_by(settings, frozenset(needs))


def opened(experiment: Experiment[SettingsT, CellT], settings: SettingsT, path: Path) -> Open:
    """The claims of the run at `path` that more units would decide, out of its results.csv."""
    from gm_lab.analysis import tables

    with contextlib.redirect_stdout(_Said(terminal=False)):
        verdicts = experiment.claims(settings, tables.read_results(path / "results.csv"))
    waiting = [verdict for verdict in verdicts if verdict.is_open]
    needs = frozenset(need for verdict in waiting for need in verdict.needs)
    settled = sum(verdict.verdict in ("supported", "contradicted") for verdict in verdicts)
    return Open([verdict.id for verdict in waiting], needs, settled, len(verdicts))


class Reporter:
    """Makes something of results.csv, in a process that has imported what it takes, or here if there is none."""

    def __init__(
        self, experiment: Experiment[SettingsT, CellT], settings: SettingsT, path: Path, process: Any = None
    ) -> None:
        self._asked: dict[str, Any] = {
            "report": lambda: reported(experiment, settings, path), "open": lambda: opened(experiment, settings, path),
        }  # fmt: skip
        self._process = process

    def report(self) -> Report:
        """Writes figures, verdicts and the small table."""
        made: Report = self._answer("report")
        return made

    def open_claims(self) -> Open:
        """Finds the claims that more units would decide."""
        found: Open = self._answer("open")
        return found

    def serve(self) -> None:
        """Answers what is asked until nobody asks any more."""
        while True:
            self._process.send(self._asked[self._process.recv()]())

    def _answer(self, what: Literal["report", "open"]) -> Any:
        if self._process is not None:
            with contextlib.suppress(EOFError, OSError):
                self._process.send(what)
                return self._process.recv()
        return self._asked[what]()  # which says what goes wrong


@contextlib.contextmanager
def reporter(experiment: Experiment[SettingsT, CellT], settings: SettingsT, path: Path) -> Iterator[Reporter]:
    """Starts a process that imports, for a second or two, what reports need; yields what asks it for them."""
    if sys.platform != "linux" or "ray" in sys.modules:
        yield Reporter(experiment, settings, path)
        return
    fork: Any = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    there = Reporter(experiment, settings, path, theirs)
    process = fork.Process(target=_serve, args=(there, experiment, os.getpid()))
    try:
        with held_back():
            process.start()
        theirs.close()
        yield Reporter(experiment, settings, path, ours)
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        ours.close()


def _serve(reporter: Reporter, experiment: Experiment[SettingsT, CellT], driver: int) -> None:
    become_worker(driver)
    with contextlib.suppress(Exception):
        for module in ("pandas", "matplotlib.figure", "matplotlib.backends.backend_agg", "scipy.special", "rich.table"):
            import_module(module)
        for function in (experiment.figures, experiment.claims, experiment.summary, experiment.conclusion):
            resolved(function)
        reporter.serve()
