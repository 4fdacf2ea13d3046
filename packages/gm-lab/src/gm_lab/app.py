"""The whole life of an app: command line, run directory, computation, results, figures, verdicts, exit status."""

import contextlib
import dataclasses
import errno
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic

from gm_lab.experiment import CellT, Experiment
from gm_lab.growth import Growth, need_of
from gm_lab.launch.supply import Supply
from gm_lab.reporting import Reporter, reporter
from gm_lab.run import output, provenance, quitting, resources
from gm_lab.run.cells import cell_id
from gm_lab.run.errors import BadInput, CellFailed, Interrupted
from gm_lab.run.interruption import Interruption
from gm_lab.run.late import resolved
from gm_lab.run.machine import kind_of_machine, working_directory
from gm_lab.run.output import open_streams, quoted
from gm_lab.run.progress import Headway, Parts, progress
from gm_lab.run.settings import SettingsT, parse, result_settings, worker_count
from gm_lab.run.store import RunDirectory, allowed_to, compute_cell, default_run_dir, opened
from gm_lab.run.typed import near
from gm_lab.track.resolved import resolved_settings
from gm_lab.track.tracker import Tracker


def main(
    experiment: Experiment[SettingsT, CellT], argv: Sequence[str] | None = None, stop_after: float | None = None
) -> int:
    """Runs an experiment from its command line, perhaps one of several in this process, and returns the exit status.

    0 done; 1 a cell failed or vanished, or what reads our output has ended; 2 bad input, or the file system refused;
    130 after SIGINT, which lets the cells in flight finish unless it comes twice; 143 after SIGTERM and 129 after
    SIGHUP, which let cells write their checkpoints, as SIGINT does where cells are resumable; 124 after `stop_after`
    seconds, which stop it like SIGTERM. What is finished is kept. What isn't 0 comes with a line on stderr that says
    why, if anything reads us.
    """
    open_streams()

    def say(text: str) -> None:
        output.say(f"{experiment.name}: {text}")

    stores: list[RunDirectory] = []
    interruption = Interruption(experiment.name, waits=not experiment.resumable_cells)
    try:
        with interruption.handled(stop_after):
            _run(experiment, argv, say, stores, interruption)
        return 0
    except BadInput as error:
        _log(stores, str(error))
        say(str(error))
        return 2
    except CellFailed as error:
        _log(stores, f"{error}\n{error.details}")
        say(f"{error}{_details(stores) if error.details else ''}")
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        why = "its time is over" if interruption.expired else "interrupted"
        resume = f"; to go on: --run-dir {quoted(str(stores[0].path))}" if stores else ""
        say(f"{why}, every finished cell is kept{resume}")
        # a library may have turned ours into a KeyboardInterrupt
        return interruption.status or (error.status if isinstance(error, Interrupted) else 130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 1
        _log(stores, traceback.format_exc())
        if not stores:
            traceback.print_exc()
        say(f"{type(error).__name__}: {' '.join(str(error).split())}{_details(stores)}")
        return 1


def _nobody_reads() -> bool:
    """Whether what reads our output, such as `head`, has ended; then nothing is written any more."""
    out = select.poll()
    try:
        out.register(sys.stdout.fileno(), select.POLLERR)
        gone = bool(out.poll(0))
    except (OSError, ValueError):  # no file behind it
        return False
    if gone:  # else the interpreter complains when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _details(stores: list[RunDirectory]) -> str:
    return f" (traceback in {stores[0].path / 'log.txt'})" if stores else ""


def _log(stores: list[RunDirectory], text: str) -> None:
    for store in stores:
        store.log(text)


@dataclass(frozen=True)
class _Session(Generic[SettingsT, CellT]):
    experiment: Experiment[SettingsT, CellT]
    argv: Sequence[str] | None
    folder: Path
    settings: SettingsT
    cells: list[CellT]
    store: RunDirectory
    config: dict[str, Any]
    tracker: Tracker
    reporter: Reporter
    interruption: Interruption
    say: Callable[[str], None]
    warn: Callable[[str], None]


def _run(
    experiment: Experiment[SettingsT, CellT], argv: Sequence[str] | None, say: Callable[[str], None],
    stores: list[RunDirectory], interruption: Interruption,
) -> None:  # fmt: skip
    settings = parse(experiment.settings, experiment.name, argv)
    folder = working_directory()
    # whatever a user's module makes the current folder, results go here, and checkpoints from any worker
    path = folder / (settings.run_dir or default_run_dir(experiment.name))
    with allowed_to("write", path):  # said before anything is loaded
        if path.exists() and not path.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    settings = dataclasses.replace(settings, run_dir=path)
    left = quitting.refused(lambda: interruption.status is not None)
    with left, reporter(experiment, settings, path) as reports:
        notes: list[str] = []
        resources.require(need_of(experiment), settings, len(experiment.columns), notes.append)
        cells = list(experiment.cells(settings))
        # flags that are refused have nothing to be told about
        for note in notes:
            say(note)
        if not cells:
            raise BadInput("expected settings that leave at least one cell to compute, got none")
        if twice := len(cells) - len({cell_id(cell) for cell in cells}):
            raise ValueError(f"expected cells that differ from each other, got {twice} repeated")
        extra = experiment.extra_columns(settings)
        columns, key = (*experiment.columns, *extra), (*experiment.key, *extra)
        if settings.launcher == "ray" and not path.exists():
            from gm_lab.launch import ray

            ray.check(settings)  # before there is a folder

        def versions() -> dict[str, str]:
            resolved(experiment.run_cell)  # loads what the cells are computed with
            return provenance.versions()

        kept = opened(path, experiment.name, result_settings(settings), columns, key, versions, experiment.growing)
        with kept as (store, config):
            stores.append(store)

            def warn(text: str) -> None:
                store.log(f"warning: {text}")
                say(f"warning: {text}")

            chosen = {part: getattr(settings, f"wandb_{part}") for part in ("project", "entity", "group")}
            tracker = Tracker(
                settings.wandb, path, experiment.name, config["run_id"], warn, experiment.curves, **chosen
            )  # fmt: skip
            parts: Any = (settings, cells, store, config, tracker, reports, interruption, say, warn)
            _live(_Session(experiment, argv, folder, *parts))


def _live(session: _Session[SettingsT, CellT]) -> None:
    tracker = session.tracker
    try:
        _compute(session)
        _report(session)
    except BaseException:
        # what the run has so far belongs in results.csv; nothing here may hide what ended it
        with contextlib.suppress(Exception):
            session.store.collect(session.cells)
        tracker.finish(exit_code=1)
        raise
    if tracker.sync_line:
        print(f"W&B run kept offline; to upload it: {tracker.sync_line}")


def _compute(session: _Session[SettingsT, CellT]) -> None:
    store, cells = session.store, session.cells
    found = store.found(cells)
    pending = store.unfinished(found, session.warn)
    growth = _growth(session)
    if growth and not pending:
        pending = _more(session, growth)
    done = len(cells) - len(pending)
    store.log(f"{len(pending)} of {len(cells)} cells to compute")
    supply = Supply(pending, partial(_more, session, growth)) if growth else Supply(pending)
    workers = worker_count(session.settings)
    weigh = _relative(session.experiment.weight, cells)
    parts = Parts(workers if growth else max(1, min(workers, len(pending))), weigh)
    before = sum(map(weigh, cells)) - sum(map(weigh, pending))
    headway = Headway(done, len(cells), parts.in_work, parts.before, before)
    with session.interruption.computing(), _launched(session, supply, parts) as finished:
        # the workers are forked and compute: from here on threads may start, and there is time for the rest
        _begin(session)
        if pending and session.settings.launcher != "ray":
            _warn_of_mixture(session, found.kinds, kind_of_machine(session.settings.device))
        name = session.experiment.name
        with progress(name, headway) as show, provenance.timed(store.path, cells) as count:
            for step, (index, seconds) in enumerate(finished, start=done + 1):
                headway.advance(len(cells), weigh(supply[index]))
                show()
                count()
                session.tracker.progress(step, seconds)
                if growth:
                    growth.took(seconds)


def _relative(weight: Callable[[CellT], float], cells: Sequence[CellT]) -> Callable[[CellT], float]:
    """A cell's weight where the mean of all is 1."""
    return partial(_weighed, weight, sum(map(weight, cells)) / len(cells))


def _weighed(weight: Callable[[CellT], float], mean: float, cell: CellT) -> float:
    return weight(cell) / mean


def _growth(session: _Session[SettingsT, CellT]) -> Growth | None:
    """What decides how a run goes on that was asked to until its claims are decided; `None` for any other."""
    if not getattr(session.settings, "until_decided", False):
        return None

    def say(text: str) -> None:
        session.store.log(text)
        session.say(text)

    return Growth(session.experiment, session.settings, session.reporter.open_claims, say)


def _more(session: _Session[SettingsT, CellT], growth: Growth) -> list[CellT]:
    """The cells of the next look that are not finished yet, perhaps of one after it; none if no look is to come."""
    store, cells = session.store, session.cells
    while True:
        if (found := store.collect(cells)).lacking:
            raise CellFailed(store.lost(found))
        further = growth.cells()
        if not further:
            return []
        cells += further
        if pending := store.unfinished(store.found(further), session.warn):
            store.log(f"{len(pending)} more cells to compute")
            return pending


def _begin(session: _Session[SettingsT, CellT]) -> None:
    """Says the foreword, writes down where results come from, warns if that is not as when the run began, tells W&B."""
    foreword = session.experiment.foreword(session.settings)
    for sentence in foreword:
        session.say(sentence)
    begun, now = session.config.get("versions", {}), provenance.versions()
    changed = [f"{name} {begun[name]}, now {now[name]}" for name in begun if now.get(name, begun[name]) != begun[name]]
    if changed:
        session.warn(f"this run was begun with {'; '.join(changed)}")
    curves = [dataclasses.asdict(kind) for kind in session.experiment.curves]
    with _again_in(session.folder):
        origin = provenance.begun(
            session.store.path, session.argv, session.settings, len(session.cells), curves,
            foreword,
        )  # fmt: skip
    session.tracker.start(resolved_settings(session.settings, session.cells) | {"origin": origin})
    if not session.tracker.disabled:
        provenance.record(session.store.path, event="tracked", **session.tracker.place)


def _warn_of_mixture(session: _Session[SettingsT, CellT], kinds: Mapping[str, int], here: str = "") -> None:
    """Warns of cells that were computed on several kinds of machine, or on another one than this."""
    if len({*kinds, here} - {""}) > 1:
        counted = ", ".join(f"{number} on {kind}" for kind, number in kinds.items())
        session.warn(
            f"cells were computed on other kinds of machine: {counted}{f'; this one is {here}' if here else ''}. "
            "Results are the same bytes on one kind only, elsewhere they differ by rounding"
        )


@contextlib.contextmanager
def _again_in(folder: Path) -> Iterator[None]:
    """Works in the folder that the command was typed in, should a user's module have left it."""
    left = Path.cwd()
    if left != folder:
        os.chdir(folder)
    try:
        yield
    finally:
        if left != folder:
            os.chdir(left)


@contextlib.contextmanager
def _launched(
    session: _Session[SettingsT, CellT], pending: Supply, parts: Parts
) -> Iterator[Iterator[tuple[int, float]]]:
    settings, store, interruption, warn = session.settings, session.store, session.interruption, session.warn
    setup = partial(session.experiment.prepare, settings)
    if settings.launcher == "ray" and len(pending):
        from gm_lab.launch import ray

        job = ray.Job(session.experiment.run_cell, store.columns, setup)
        launched = ray.launched(job, store.save, pending, settings, interruption, warn)
        with interruption.deferred(), launched as finished:
            yield finished
        return
    from gm_lab.launch import local

    work = partial(compute_cell, store, session.experiment.run_cell)
    threads = settings.launcher == "threads"
    with local.launched(work, pending, parts, worker_count(settings), setup, interruption, warn, threads) as finished:
        yield finished


def _report(session: _Session[SettingsT, CellT]) -> None:
    store = session.store
    found = store.collect(session.cells)
    if found.lacking:
        raise CellFailed(store.lost(found))
    _warn_of_mixture(session, found.kinds)
    report = session.reporter.report()
    provenance.record(store.path, event="done", cells=len(session.cells), rows=report.rows)
    print(report.tables, end="")
    print(f"results: {store.path / 'results.csv'}")
    for image in report.images:
        print(f"figures: {store.path / 'figures' / image}")
    for step in _next_steps(session, report.open):
        print(step)
    session.tracker.finish(exit_code=0)


def _next_steps(session: _Session[SettingsT, CellT], waiting: int) -> Iterator[str]:
    """Says what to type for a page about the run, and to decide claims that more units would decide."""
    settings, unit = session.settings, session.experiment.unit
    with _again_in(session.folder):
        yield f"as one page: {provenance.report_command(session.store.path)}"
        undecided = waiting and getattr(settings, "until_decided", True) is False
        if undecided and unit and getattr(settings, unit) < getattr(settings, f"most_{unit}"):
            more = provenance.command(_until_decided(session.argv, near(session.store.path)))
            yield f"to decide {waiting} open claim{'s' * (waiting > 1)}: {more}"


def _until_decided(argv: Sequence[str] | None, path: Path) -> list[str]:
    """The arguments with which a run goes on until its claims are decided."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = any(word.partition("=")[0].replace("_", "-") == "--run-dir" for word in arguments)
    return [*arguments, "--until-decided", *([] if named else ["--run-dir", str(path)])]
