"""The process beside a run that talks to W&B: it reads the run directory, and nobody waits for it but at the end.

One W&B run for the experiment: progress, curves with their bands, tables, figures, artifacts. Units that are trained
one by one, such as seeds, have W&B runs of their own in its group. The run directory is the buffer between the two:
live/*.csv while cells are computed, results.csv and the rest when they are finished. As long as there are cells it has
the lowest priority, so that it never competes with them for a core.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gm_lab.reporting import CAPTIONS
from gm_lab.run.live import FOLDER, Tail
from gm_lab.run.output import encoded, quoted, refuse_links_out
from gm_lab.run.reading import read_json
from gm_lab.run.store import write_atomically
from gm_lab.track.connection import chosen_mode
from gm_lab.track.curves import Curve, Curves, curve_of, curves_of, digest, history, keyed, steps, thinned

if TYPE_CHECKING:
    import pandas as pd

POLL_SECONDS = 0.2
INIT_SECONDS = 20.0
LOWEST = 19  # niceness
RUN_ID = "[0-9A-Za-z]{1,32}"
SUPERSEDED = "superseded"
"""The tag of a W&B run whose experiment has grown since: another one has the curves of the larger."""
AT_ONCE = {True: 1, False: 4}  # units sent in parallel, by whether the run is offline, where there is nothing to await


@dataclass(frozen=True)
class Sending:
    """The experiment's curves on their way: to which W&B run, what, from which step on, and whether all are there."""

    run: str
    digest: str
    step: int
    done: bool = False

    def is_one(self) -> bool:
        """Whether it may be read from a file: the run's id becomes part of paths."""
        texts = isinstance(self.run, str) and isinstance(self.digest, str)
        return texts and re.fullmatch(f"{RUN_ID}(-[0-9a-f]{{8}})?", self.run) is not None and type(self.step) is int


class Ledger:
    """Which W&B runs were sent completely, in a JSON file that survives a restart; online and offline are apart."""

    def __init__(self, path: Path, mode: str) -> None:
        self._path, self._lock = path, threading.Lock()
        self._all: dict[str, dict[str, dict[str, Any]]] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            known = read_json(path)
            self._all = {key: value for key, value in known.items() if isinstance(value, dict)}
        self._mine = self._all.setdefault(mode, {})

    def done(self, name: str) -> bool:
        """Whether this run was sent completely."""
        return self._mine.get(name) == {"done": True}

    def note(self, name: str) -> None:
        """Writes down that a run was sent completely."""
        self._write(name, {"done": True})

    @property
    def curves(self) -> Sending | None:
        """What was sent last, perhaps in part, of the experiment's curves; None for what we can't have written."""
        with contextlib.suppress(TypeError):
            sending = Sending(**self._mine.get("curves", {}))
            return sending if sending.is_one() else None
        return None

    @curves.setter
    def curves(self, sending: Sending) -> None:
        self._write("curves", dataclasses.asdict(sending))

    def _write(self, name: str, value: dict[str, Any]) -> None:
        with self._lock:
            self._mine[name] = value
            write_atomically(self._path, encoded(json.dumps(self._all)))


class CurveRun:
    """The W&B run of one unit that is trained alone, perhaps by a cell that is still computing."""

    def __init__(self, sender: "Sender", curve: Curve) -> None:
        self._sender, self.curve = sender, curve
        config = {"curve": curve.place, **sender.about["config"]}
        self._run = sender.begin(sender.name(curve), curve.name, "curve", curve.tags, config)
        self._run.define_metric(curve.kind.x)
        self._run.define_metric("*", step_metric=curve.kind.x, summary="last,mean")
        self._last = self._run.step - 1

    def log(self, row: dict[str, float], step: int) -> None:
        """Sends a point, unless one as late was sent."""
        if step > self._last:
            self._run.log(row, step=step, commit=True)  # or it would wait for the next row
            self._last = step

    def finish(self, exit_code: int) -> None:
        """Ends the run, which is complete if the exit code is 0."""
        self._run.finish(exit_code=exit_code)
        if exit_code == 0:
            self._sender.ledger.note(self._sender.name(self.curve))


class Sender:
    """Sends one run directory to W&B; `about` is run.json, and `tell` takes what the driver is to know."""

    def __init__(self, about: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
        self.about, self._tell = about, tell
        self._run_dir = Path(about["run_dir"])
        about["config"] = sendable(about["config"])
        name = about["run_id"]
        if not isinstance(name, str) or not re.fullmatch(RUN_ID, name):  # it becomes part of paths
            raise ValueError(f"expected letters and digits as run_id in config.yaml, got {name!r}")
        self._kinds = [Curves.of(kind) for kind in about["curves"]]
        # in a sweep a run that is begun here has the id that the agent has named, whatever we say
        self._alone = [] if about["sweep"] else [kind for kind in self._kinds if kind.alone]
        self._folder = Path(os.environ.get("WANDB_DIR") or self._run_dir).resolve()
        if str(self._folder) != sendable(str(self._folder)):
            raise ValueError(f"expected a run directory or WANDB_DIR whose name is UTF-8, got {self._folder}")
        self._tails: dict[str, Tail] = {}
        self._open: dict[str, CurveRun] = {}
        self._sent, self._lock = 0, threading.Lock()
        self._offline = False
        self._run = self._begun()

    def follow(self, progress: Tail) -> None:
        """Follows the run by its lines of cells done and seconds, until "exit" and a status say that all is on disk."""
        exit_code: Any = None
        while exit_code is None:
            time.sleep(POLL_SECONDS)
            rows: list[dict[str, Any]] = list(progress.rows())
            if rows and rows[-1]["cells_done"] == "exit":
                exit_code = rows.pop()["cell_seconds"]
            elif os.getppid() != self.about["driver"]:
                exit_code = 1
            if rows:
                self._run.log(rows[-1], step=rows[-1]["cells_done"], commit=True)
            self._send_live()
        threading.Timer(self.about["limit"], os._exit, [1]).start()  # should nobody end us
        for curve in self._open.values():
            curve.finish(exit_code)
        if exit_code == 0:
            self._send_curves()
            self._send_outcome()
            self._send_units()
        self._run.finish(exit_code=exit_code)
        if exit_code == 0 and self.ledger.curves is not None:
            self.ledger.curves = dataclasses.replace(self.ledger.curves, done=True)

    def _begun(self) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")
        # artifacts of an offline run are staged here and must travel with it
        os.environ.setdefault("WANDB_DATA_DIR", str(self._folder / "wandb" / "data"))
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._offline = chosen_mode(self.about["mode"], wandb.setup().settings.base_url, self._warn) == "offline"
        try:
            run = self._experiment()
        except Exception as error:
            if self._offline:
                raise
            self._warn(f"W&B: {in_a_line(error)}; logging offline")
            self._offline = True
            wandb.teardown()  # it takes the run's id for used
            run = self._experiment()
        if self._offline:
            runs = f"offline-run-*-{self.about['run_id']}*"
            self._tell({"sync": f"wandb sync {quoted(str(self._folder / 'wandb'))}/{runs}"})
        return run

    def _experiment(self, name: str = "") -> Any:
        """Begins the experiment's run, or goes on with the one that has its curves."""
        if self._folder == self._run_dir.resolve():
            refuse_links_out(self._folder)
        self.ledger = Ledger(self._folder / "wandb" / "sent.json", "offline" if self._offline else "online")
        known = None if self._offline else self.ledger.curves
        name = name or (known.run if known else self.about["run_id"])
        run = self.begin(name, sendable(self._run_dir.name), "experiment", [], self.about["config"])
        run.config.update({"wandb": "offline" if self._offline else "online"}, allow_val_change=True)
        run.define_metric("cells_done")
        run.define_metric("cell_seconds", step_metric="cells_done")
        return run

    def begin(self, name: str, title: str, kind: str, tags: list[str], config: dict[str, Any]) -> Any:
        """Begins a W&B run, or goes on with it where it is online."""
        import wandb

        if self._rewrites:
            for before in self._folder.glob(f"wandb/offline-run-*-{name}"):
                shutil.rmtree(before, ignore_errors=True)  # it is written again, whole
        return wandb.init(
            id=name, name=title, **self.about["destination"],
            job_type=kind, tags=[self.about["app"], *(tag[:64] for tag in tags)], config=config,
            mode="offline" if self._offline else "online", dir=str(self._folder),
            resume=None if self._offline else "allow", reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, program=sendable(self.about["program"]), init_timeout=INIT_SECONDS,
                x_file_stream_transmit_interval=self.about["interval"], x_disable_stats=True,
                x_transaction_log_flush_interval=1,
                # a list of all packages takes a tenth of a second: once is enough
                x_save_requirements=kind == "experiment", x_disable_meta=kind != "experiment",
            ),
        )  # fmt: skip

    @property
    def _rewrites(self) -> bool:
        """Whether what a run has so far is written again, whole: offline, but not in a folder of the user's."""
        return self._offline and self._folder == self._run_dir.resolve()

    def name(self, curve: Curve) -> str:
        """The id of a curve's W&B run."""
        return f"{self.about['run_id']}-{curve.id}"

    def _send_live(self) -> None:
        """Sends what the live files have gained; ends the W&B runs of cells that are finished."""
        for path in sorted((self._run_dir / FOLDER).glob("*.csv")):
            cell, finished = path.stem, (self._run_dir / "cells" / f"{path.stem}.json").exists()
            for row in self._tails.setdefault(cell, Tail(path)).rows():
                point = curve_of(self._alone, row)
                if point is None or self.ledger.done(self.name(point)):
                    continue
                if cell in self._open and self._open[cell].curve.id != point.id:
                    self._open.pop(cell).finish(0)
                if cell not in self._open:
                    self._open[cell] = CurveRun(self, point)
                self._open[cell].log(point.rows[0], int(point.rows[0][point.kind.x]))
            if finished and cell in self._open:
                self._open.pop(cell).finish(0)

    def _send_curves(self) -> None:
        """Sends all curves as keys of the experiment's run, once.

        A history can't be taken back, so what has grown since goes to another run, and the one before is marked.
        """
        curves = keyed(curves_of(self._kinds, self._results()))
        rows = list(history(curves))
        now, known = digest(rows), None if self._offline else self.ledger.curves
        if not rows or (known and known.done and known.digest == now):
            return
        if known and known.digest != now:
            self._run.tags = (*self._run.tags, SUPERSEDED)
            self._run.finish(exit_code=0)
            self._run, known = self._experiment(f"{self.about['run_id']}-{now}"), None
        next_step = self._run.step
        start = known.step if known else next_step
        self.ledger.curves = Sending(self._run.id, now, start)
        for x in dict.fromkeys(curve.kind.x for curve in curves.values()):
            self._run.define_metric(x)
        for key, curve in curves.items():
            self._run.define_metric(f"{key}/*", step_metric=curve.kind.x)
        for step, row in enumerate(rows, start):
            if step >= next_step:  # else it has arrived before
                self._run.log(row, step=step, commit=True)

    def _send_units(self) -> None:
        """Sends the runs of units that are trained alone, of which no live row has come."""
        units = [kind.of_each() for kind in self._alone]
        frame = self._results() if units else None
        waiting = [] if frame is None else [
            curve for curve in curves_of(units, frame) if not self.ledger.done(self.name(curve))
        ]  # fmt: skip

        def send(curve: Curve) -> None:
            run = CurveRun(self, curve)
            numbered = zip(curve.rows, steps([row[curve.kind.x] for row in curve.rows]), strict=True)
            for row, step in thinned(list(numbered)):
                run.log(row, step)
            run.finish(0)
            with self._lock:
                self._sent += 1
                self._tell({"sent": self._sent, "of": len(waiting)})

        self._tell({"sent": 0, "of": len(waiting)})
        with ThreadPoolExecutor(AT_ONCE[self._offline]) as pool:
            for _ in pool.map(send, waiting):
                pass

    def _results(self) -> "pd.DataFrame":
        from gm_lab.analysis.tables import read_results

        return read_results(self._run_dir / "results.csv")

    def _send_outcome(self) -> None:
        """Sends headline metrics, the small tables and the figures; results.csv and all else as artifacts."""
        import pandas as pd
        import wandb

        from gm_lab.analysis.tables import headline, read_results

        summary = read_results(self._run_dir / "summary.csv")
        verdicts = read_json(self._run_dir / "claims.json")
        claims = pd.DataFrame(verdicts, columns=["id", "claim", "verdict", "measured"])
        images = sorted((self._run_dir / "figures").glob("*.png"))
        tables = {"summary": wandb.Table(dataframe=summary), "claims": wandb.Table(dataframe=claims)}
        words = _words(self._run_dir / "figures" / CAPTIONS)
        pictures = {path.stem: wandb.Image(str(path), caption=words.get(path.stem)) for path in images}
        self._run.log(tables | {f"figures/{name}": picture for name, picture in pictures.items()})
        decided = {f"claims/{verdict['id']}": verdict["verdict"] for verdict in verdicts}
        self._run.summary.update(headline(summary) | decided)
        names = ("results.csv", "summary.csv", "claims.json", "config.yaml", "sessions.jsonl")
        files = {
            "results": [self._run_dir / name for name in names],
            "figures": sorted((self._run_dir / "figures").glob("*.[ps][nv]g")),
        }
        for kind, paths in files.items():
            artifact = wandb.Artifact(f"{self.about['run_id']}-{kind}", type=kind)
            for path in paths:
                if path.exists():
                    artifact.add_file(str(path), name=path.name, skip_cache=True)
            self._run.log_artifact(artifact)

    def _warn(self, text: str) -> None:
        self._tell({"warn": text})


def _words(path: Path) -> dict[str, str]:
    """What each picture shows, in a sentence, and how to read it; nothing for a run from before there were captions."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        return {name: " ".join((said["finding"], said["caption"])) for name, said in read_json(path).items()}
    return {}


def in_a_line(error: BaseException) -> str:
    """An error's name and message, shortened."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def sendable(value: Any) -> Any:
    """A value whose texts have no bytes that are no text, such as paths may have: W&B takes none."""
    if isinstance(value, dict):
        return {sendable(name): sendable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [sendable(item) for item in value]
    return encoded(value).decode() if isinstance(value, str) else value


def services() -> list[int]:
    """The processes that this one has started, on Linux: W&B's service."""
    numbers: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            numbers += map(int, thread.read_text().split())
    return numbers


def main(place: str) -> None:
    """Runs in a process beside the run that a folder is about."""
    folder = Path(place)
    about = json.loads((folder / "run.json").read_bytes())
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
