"""The process beside a run that talks to W&B: it reads the run directory, and nobody waits for it but at the end.

One W&B run for the experiment (progress, tables, figures, artifacts) and one for each curve, in one group. The run
directory is the buffer between the two: live/*.csv while cells are computed, results.csv and the rest when they are
finished. As long as there are cells it has the lowest priority, so that it never competes with them for a core.
"""

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gm_lab.run.live import FOLDER, Tail
from gm_lab.run.store import write_atomically
from gm_lab.track.connection import chosen_mode
from gm_lab.track.curves import Curve, Curves, curve_of, curves_of, steps, thinned

POLL_SECONDS = 0.2
INIT_SECONDS = 20.0
LOWEST = 19  # niceness
AT_ONCE = {True: 1, False: 4}  # curves sent in parallel, by whether the run is offline, where there is nothing to await


class Ledger:
    """Which W&B runs were sent completely, and where those kept offline are; survives a restart.

    Args:
        path: A JSON file.
        mode: "online" or "offline"; what was sent in one mode was not in the other.
    """

    def __init__(self, path: Path, mode: str) -> None:
        self._path, self._lock = path, threading.Lock()
        self._all: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            self._all = json.loads(path.read_text())
        self._mine = self._all.setdefault(mode, {})

    def done(self, name: str) -> bool:
        """Whether this run was sent completely."""
        return bool(self._mine.get(name, {}).get("done"))

    def discard(self, name: str) -> None:
        """Removes what an earlier session kept offline of a run that is now written again, whole."""
        if folder := self._mine.get(name, {}).get("folder"):
            shutil.rmtree(self._path.parent / folder, ignore_errors=True)

    def note(self, name: str, folder: str | None, done: bool) -> None:
        """Writes down how far a run is."""
        with self._lock:
            self._mine[name] = {"folder": folder, "done": done}
            write_atomically(self._path, json.dumps(self._all).encode())


@dataclass
class Open:
    """The W&B run of a curve whose cell is still computing."""

    run: Any
    curve: Curve
    last: int


class Sender:
    """Sends one run directory to W&B.

    Args:
        about: What `gm_lab.track.tracker` says about the run: mode, run_dir, app, run_id, config and curves.
        tell: Takes what the driver is to know: warnings, what was sent, how to upload an offline run.
    """

    def __init__(self, about: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
        self._about, self._tell = about, tell
        self._run_dir = Path(about["run_dir"])
        self._kinds = [Curves.of(kind) for kind in about["curves"]]
        self._folder = Path(os.environ.get("WANDB_DIR") or self._run_dir).resolve()
        self._tails: dict[str, Tail] = {}
        self._open: dict[str, Open] = {}
        self._sent, self._lock = 0, threading.Lock()
        self._offline = False
        self._run = self._begun()

    def follow(self, progress: Tail) -> None:
        """Follows the run until it is over: the line "exit" and the status come when everything it made is on disk.

        Args:
            progress: Cells done and the seconds that the last one took, a line for each.
        """
        exit_code: Any = None
        while exit_code is None:
            time.sleep(POLL_SECONDS)
            rows: list[dict[str, Any]] = list(progress.rows())
            if rows and rows[-1]["cells_done"] == "exit":
                exit_code = rows.pop()["cell_seconds"]
            elif os.getppid() != self._about["driver"]:
                exit_code = 1
            if rows:
                self._run.log(rows[-1], step=rows[-1]["cells_done"], commit=True)
            self._send_live()
        threading.Timer(self._about["limit"], os._exit, [1]).start()  # should nobody end us
        for cell in list(self._open):
            self._close(cell, exit_code)
        if exit_code == 0:
            self._send_outcome()
            self._send_curves()
        self._run.finish(exit_code=exit_code)

    def _begun(self) -> Any:
        """Begins the experiment's W&B run, online if it can be and is asked for."""
        os.environ.setdefault("WANDB_SILENT", "true")
        # artifacts of an offline run are staged here and must travel with it
        os.environ.setdefault("WANDB_DATA_DIR", str(self._folder / "wandb" / "data"))
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._offline = chosen_mode(self._about["mode"], wandb.setup().settings.base_url, self._warn) == "offline"
        named: Any = (self._about["run_id"], self._run_dir.name, "experiment", [], self._about["config"])
        try:
            run = self._init(*named)
        except Exception as error:
            if self._offline:
                raise
            self._warn(f"W&B: {in_a_line(error)}; logging offline")
            self._offline = True
            wandb.teardown()  # it takes the run's id for used
            run = self._init(*named)
        run.define_metric("cells_done")
        run.define_metric("cell_seconds", step_metric="cells_done")
        if self._offline:
            self._tell({"sync": f"wandb sync {self._folder / 'wandb'}/offline-run-*"})
        return run

    def _init(self, name: str, title: str, kind: str, tags: list[str], config: dict[str, Any]) -> Any:
        import wandb

        if kind == "experiment":
            self._ledger = Ledger(self._folder / "wandb" / "sent.json", "offline" if self._offline else "online")
        if self._offline:
            self._ledger.discard(name)
        run = wandb.init(
            project=self._about["app"],
            id=name,
            name=title,
            group=f"{self._about['app']}-{self._about['run_id']}",
            job_type=kind,
            tags=[self._about["app"], *(tag[:64] for tag in tags)],
            config=config,
            mode="offline" if self._offline else "online",
            dir=str(self._folder),
            resume=None if self._offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                program=self._about["program"],
                init_timeout=INIT_SECONDS,
                x_file_stream_transmit_interval=self._about["interval"],
                x_disable_stats=True,
                x_transaction_log_flush_interval=1,
                # a list of all packages takes a tenth of a second: once is enough
                x_save_requirements=kind == "experiment",
                x_disable_meta=kind != "experiment",
            ),
        )
        self._ledger.note(name, self._kept(run), done=False)
        return run

    def _kept(self, run: Any) -> str | None:
        """The folder of an offline run."""
        return Path(run.settings.sync_dir).name if self._offline else None

    def _begin_curve(self, curve: Curve) -> Any:
        config = {"curve": curve.place, **self._about["config"]}
        run = self._init(self._id(curve), curve.name, "curve", curve.tags, config)
        run.define_metric(curve.kind.x)
        run.define_metric("*", step_metric=curve.kind.x, summary="last,mean")
        return run

    def _id(self, curve: Curve) -> str:
        return f"{self._about['run_id']}-{curve.id}"

    def _finish_curve(self, run: Any, curve: Curve, exit_code: int) -> None:
        folder = self._kept(run)
        run.finish(exit_code=exit_code)
        self._ledger.note(self._id(curve), folder, done=exit_code == 0)

    def _send_live(self) -> None:
        """Sends what the live files have gained; ends the W&B runs of cells that are finished."""
        for path in sorted((self._run_dir / FOLDER).glob("*.csv")):
            finished = (self._run_dir / "cells" / f"{path.stem}.json").exists()
            for row in self._tails.setdefault(path.stem, Tail(path)).rows():
                if point := curve_of(self._kinds, row):
                    self._log_live(path.stem, point)
            if finished and path.stem in self._open:
                self._close(path.stem)

    def _log_live(self, cell: str, point: Curve) -> None:
        if self._ledger.done(self._id(point)):
            return
        if cell in self._open and self._open[cell].curve.id != point.id:
            self._close(cell)
        if cell not in self._open:
            run = self._begin_curve(point)
            self._open[cell] = Open(run, point, run.step - 1)
        held = self._open[cell]
        (row,) = point.rows
        step = int(row[point.kind.x])
        if step > held.last:
            held.run.log(row, step=step, commit=True)  # or it would wait for the next row
            held.last = step

    def _close(self, cell: str, exit_code: int = 0) -> None:
        held = self._open.pop(cell)
        self._finish_curve(held.run, held.curve, exit_code)

    def _send_curves(self) -> None:
        from gm_lab.analysis.tables import read_results

        frame = read_results(self._run_dir / "results.csv")
        waiting = [curve for curve in curves_of(self._kinds, frame) if not self._ledger.done(self._id(curve))]

        def send(curve: Curve) -> None:
            run = self._begin_curve(curve)
            numbered = zip(steps([row[curve.kind.x] for row in curve.rows]), curve.rows, strict=True)
            for step, row in thinned(list(numbered)):
                run.log(row, step=step)
            self._finish_curve(run, curve, 0)
            with self._lock:
                self._sent += 1
                self._tell({"sent": self._sent, "of": len(waiting)})

        self._tell({"sent": 0, "of": len(waiting)})
        with ThreadPoolExecutor(AT_ONCE[self._offline]) as pool:
            for _ in pool.map(send, waiting):
                pass

    def _send_outcome(self) -> None:
        """Sends headline metrics, the small tables and the figures; results.csv and all else as artifacts."""
        import pandas as pd
        import wandb

        from gm_lab.analysis.tables import headline, read_results

        summary = read_results(self._run_dir / "summary.csv")
        verdicts = json.loads((self._run_dir / "claims.json").read_text())
        claims = pd.DataFrame(verdicts, columns=["id", "claim", "verdict", "measured"])
        images = sorted((self._run_dir / "figures").glob("*.png"))
        tables = {"summary": wandb.Table(dataframe=summary), "claims": wandb.Table(dataframe=claims)}
        self._run.log(tables | {f"figures/{path.stem}": wandb.Image(str(path)) for path in images})
        decided = {f"claims/{verdict['id']}": verdict["verdict"] for verdict in verdicts}
        self._run.summary.update(headline(summary) | decided)
        names = ("results.csv", "summary.csv", "claims.json", "config.yaml", "sessions.jsonl")
        files = {
            "results": [self._run_dir / name for name in names],
            "figures": sorted((self._run_dir / "figures").glob("*.[ps][nv]g")),
        }
        for kind, paths in files.items():
            artifact = wandb.Artifact(f"{self._about['run_id']}-{kind}", type=kind)
            for path in paths:
                if path.exists():
                    artifact.add_file(str(path), name=path.name, skip_cache=True)
            self._run.log_artifact(artifact)

    def _warn(self, text: str) -> None:
        self._tell({"warn": text})


def in_a_line(error: BaseException) -> str:
    """An error's name and message, shortened."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def services() -> list[int]:
    """The processes that this one has started, on Linux: W&B's service."""
    numbers: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            numbers += map(int, thread.read_text().split())
    return numbers


def main(folder: Path) -> None:
    """Runs as `python -m gm_lab.track.sender`, beside the run that a folder is about."""
    about = json.loads((folder / "run.json").read_text())
    if about["gives_way"]:
        os.setpriority(os.PRIO_PROCESS, 0, LOWEST)

    def tell(message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), (folder / "answers.jsonl").open("a") as file:  # unless the driver is gone
            file.write(json.dumps(message) + "\n")

    try:
        sender = Sender(about, tell)
        tell({"services": services()})
        for service in services() if about["gives_way"] else []:
            with contextlib.suppress(OSError):  # its session has a share of its own, where Linux has such shares
                Path(f"/proc/{service}/autogroup").write_text(str(LOWEST))
        sender.follow(Tail(folder / "progress.csv"))
    except BaseException as error:  # W&B also raises SystemExit and KeyboardInterrupt subclasses
        tell({"warn": f"W&B: {in_a_line(error)}; going on without it", "sync": None})
    finally:
        if os.getppid() != about["driver"]:  # else it does so
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # W&B's own exit hooks may wait


if __name__ == "__main__":
    main(Path(sys.argv[1]))
