"""The whole life of an app: command line, run directory, computation, results, figures, verdicts, exit status."""

import contextlib
import dataclasses
import os
import select
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from gm_lab import claims as claims_module
from gm_lab import provenance
from gm_lab.cells import cell_id
from gm_lab.errors import BadInput, CellFailed, Interrupted
from gm_lab.experiment import CellT, Experiment
from gm_lab.interruption import Interruption
from gm_lab.launch import launched
from gm_lab.progress import progress
from gm_lab.settings import SettingsT, parse, plain, result_settings, worker_count
from gm_lab.store import RunDirectory, compute_cell, default_run_dir, make_folder, opened, versions, write_atomically
from gm_lab.tables import read_results, summary_table
from gm_lab.tracking import Tracker


def main(experiment: Experiment[SettingsT, CellT], argv: Sequence[str] | None = None) -> int:
    """Runs an experiment from its command line.

    Args:
        experiment: What to run.
        argv: The arguments after the program's name; `sys.argv[1:]` if None.

    Returns:
        The exit status: 0 done; 1 a cell failed, or what reads our output has ended; 2 bad input, or the file system
        refused; 130 after SIGINT, which lets the cells in flight finish unless it comes twice, and 143 after SIGTERM,
        which lets cells write their checkpoints, as SIGINT does where cells are resumable; everything finished so far
        is kept. Whatever isn't 0 comes with a line on stderr that says why, if anything reads us.
    """

    def say(text: str) -> None:
        print(f"{experiment.name}: {text}", file=sys.stderr, flush=True)

    where: list[RunDirectory] = []
    interruption = Interruption(experiment.name, waits=not experiment.resumable_cells)
    try:
        with interruption.handled():
            _run(experiment, argv, say, where, interruption)
        return 0
    except BadInput as error:
        _log(where, str(error))
        say(str(error))
        return 2
    except CellFailed as error:
        _log(where, f"{error}\n{error.details}")
        say(f"{error}{_details(where) if error.details else ''}")
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        resume = f"; to go on: --run-dir {where[0].path}" if where else ""
        say(f"interrupted, every finished cell is kept{resume}")
        # a library may have turned ours into a KeyboardInterrupt
        return interruption.status or (error.status if isinstance(error, Interrupted) else 130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 1
        _log(where, traceback.format_exc())
        if not where:
            traceback.print_exc()
        say(f"{type(error).__name__}: {' '.join(str(error).split())}{_details(where)}")
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


def _details(where: list[RunDirectory]) -> str:
    return f" (traceback in {where[0].path / 'log.txt'})" if where else ""


def _log(where: list[RunDirectory], text: str) -> None:
    for store in where:
        store.log(text)


def _run(
    experiment: Experiment[SettingsT, CellT],
    argv: Sequence[str] | None,
    say: Callable[[str], None],
    where: list[RunDirectory],
    interruption: Interruption,
) -> None:
    settings = parse(experiment.settings, experiment.name, argv)
    cells = list(experiment.cells(settings))
    if not cells:
        raise BadInput("expected settings that leave at least one cell to compute, got none")
    if twice := len(cells) - len({cell_id(cell) for cell in cells}):
        raise ValueError(f"expected cells that differ from each other, got {twice} repeated")
    path = settings.run_dir or default_run_dir(experiment.name)
    # so that cells may keep checkpoints there, from wherever their workers were started
    settings = dataclasses.replace(settings, run_dir=path.absolute())
    relevant = result_settings(settings)
    extra = experiment.extra_columns(settings)
    columns, key = (*experiment.columns, *extra), (*experiment.key, *extra)
    if settings.launcher == "ray" and not path.exists():
        from gm_lab import cluster

        cluster.check(settings)  # before there is a folder
    with opened(path, experiment.name, relevant, columns, key) as (store, config):
        where.append(store)

        def warn(text: str) -> None:
            store.log(f"warning: {text}")
            say(f"warning: {text}")

        _warn_of_other_versions(config, warn)
        origin = provenance.begun(path, argv, settings, len(cells), experiment.curves)
        about = plain(settings) | {"origin": origin}
        tracker = Tracker(settings.wandb, path, experiment.name, config["run_id"], about, warn, experiment.curves)
        try:
            _compute(experiment, settings, store, cells, tracker, warn, interruption)
            _report(experiment, settings, store, cells, tracker)
        except BaseException:
            # what the run has so far belongs in results.csv, unless the disk is what failed
            with contextlib.suppress(BadInput):
                store.collect(cells)
            tracker.finish(exit_code=1)
            raise
        if tracker.sync_line:
            print(f"W&B run kept offline; to upload it: {tracker.sync_line}")


def _warn_of_other_versions(config: dict[str, Any], warn: Callable[[str], None]) -> None:
    now = versions()
    begun = config.get("versions", {})
    changed = [f"{name} {begun[name]}, now {now[name]}" for name in begun if now.get(name, begun[name]) != begun[name]]
    if changed:
        warn(f"this run was begun with {'; '.join(changed)}")


def _compute(
    experiment: Experiment[SettingsT, CellT],
    settings: SettingsT,
    store: RunDirectory,
    cells: list[CellT],
    tracker: Tracker,
    warn: Callable[[str], None],
    interruption: Interruption,
) -> None:
    pending = store.unfinished(cells, warn)
    done = len(cells) - len(pending)
    store.log(f"{len(pending)} of {len(cells)} cells to compute")
    with interruption.computing(), _launched(experiment, settings, store, pending, warn, interruption) as finished:
        # from here on threads may start: the workers are forked
        tracker.start()
        importing = threading.Thread(target=_import_what_reports_need, daemon=True)
        importing.start()
        with progress(experiment.name, done, len(cells)) as advance, provenance.timed(store.path, len(cells)) as count:
            for step, seconds in enumerate(finished, start=done + 1):
                advance()
                count()
                tracker.progress(step, seconds)
        # two threads that import one package from different ends find it half-made
        importing.join()


@contextlib.contextmanager
def _launched(
    experiment: Experiment[SettingsT, CellT],
    settings: SettingsT,
    store: RunDirectory,
    pending: list[CellT],
    warn: Callable[[str], None],
    interruption: Interruption,
) -> Iterator[Iterator[float]]:
    """Starts the launcher that the settings name; iterates over the seconds that each cell took."""
    setup = partial(experiment.prepare, settings)
    if settings.launcher == "ray" and pending:
        from gm_lab import cluster

        job = cluster.Job(experiment.run_cell, store.columns, setup)
        where = cluster.place(settings)
        with (
            interruption.deferred(),
            cluster.launched(job, store.save, pending, where, interruption, warn) as finished,
        ):
            yield finished
        return
    work = partial(compute_cell, store, experiment.run_cell)
    with launched(work, pending, worker_count(settings), settings.launcher, setup, interruption, warn) as finished:
        yield finished


def _import_what_reports_need() -> None:
    """Imports what takes a second or two while the cells are being computed."""
    for module in ("pandas", "matplotlib.figure", "matplotlib.backends.backend_agg", "scipy.special"):
        import_module(module)


def _report(
    experiment: Experiment[SettingsT, CellT],
    settings: SettingsT,
    store: RunDirectory,
    cells: list[CellT],
    tracker: Tracker,
) -> None:
    from rich.console import Console

    from gm_lab.figures import save

    store.collect(cells)
    frame = read_results(store.path / "results.csv")
    figures_dir = store.path / "figures"
    figures = experiment.figures(settings, frame)
    make_folder(figures_dir)
    files = [file for name, figure in figures.items() for file in save(figure, figures_dir / name)]
    verdicts = experiment.claims(settings, frame)
    write_atomically(store.path / "claims.json", claims_module.as_json(verdicts).encode())
    summary = experiment.summary(settings, frame)
    images = [file for file in files if file.suffix == ".png"]
    write_atomically(store.path / "summary.csv", summary.to_csv(index=False).encode())
    provenance.record(store.path, event="done", cells=len(cells), rows=len(frame))
    console = Console()
    console.print(summary_table(summary))
    if verdicts:
        console.print(claims_module.as_table(verdicts))
    for name, found in {"results": [store.path / "results.csv"], "figures": images}.items():
        for file in found:
            print(f"{name}: {file}")
    tracker.finish(exit_code=0)
