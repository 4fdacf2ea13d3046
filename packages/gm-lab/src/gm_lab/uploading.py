"""The process beside a run that talks to W&B: it reads the run directory, and nobody waits for it but at the end.

One W&B run for the experiment (progress, tables, figures, artifacts) and one for each curve, in one group. The run
directory is the buffer between the two: live/*.csv while cells are computed, results.csv and the rest when they are
finished. W&B is imported only once a run has lasted a while or is over, and while there are cells at the lowest
priority, so that it never competes with them for a core.
"""

import contextlib
import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gm_lab.connection import chosen_mode
from gm_lab.curves import Curve, Curves, curve_of, curves_of, steps, thinned
from gm_lab.ledger import Ledger
from gm_lab.live import FOLDER, Tail
from gm_lab.priority import children_give_way
from gm_lab.tables import headline, read_results

POLL_SECONDS = 1.0
INIT_SECONDS = 20.0
AT_ONCE = {True: 1, False: 4}  # curves sent in parallel, by whether the run is offline, where there is nothing to await
Tell = Callable[[dict[str, Any]], None]


@dataclass
class Open:
    """The W&B run of a curve whose cell is still computing."""

    run: Any
    curve: Curve
    last: int


class Uploader:
    """Sends one run directory to W&B.

    Args:
        spec: What `gm_lab.tracking` says about the run: mode, run_dir, app, run_id, config and curves, and whether we
            give way to it.
        tell: Takes lines for the driver: warnings, what was sent, how to upload an offline run.
    """

    def __init__(self, spec: dict[str, Any], tell: Tell) -> None:
        self._spec, self._tell = spec, tell
        self._run_dir = Path(spec["run_dir"])
        self._kinds = [Curves.of(kind) for kind in spec["curves"]]
        self._folder = Path(os.environ.get("WANDB_DIR") or self._run_dir).resolve()
        self._mode: Any = ""
        self._run: Any = None
        self._ledger: Ledger
        self._tails: dict[str, Tail] = {}
        self._open: dict[str, Open] = {}
        self._sent, self._lock = 0, threading.Lock()

    def serve(self, messages: "queue.SimpleQueue[dict[str, Any]]") -> None:
        """Follows the run until it is over: `{"exit": status}` comes when everything it made is on disk."""
        begun, done = time.monotonic(), 0
        while True:
            latest: dict[str, Any] = {}
            with contextlib.suppress(queue.Empty):
                latest = messages.get(timeout=POLL_SECONDS)
                while "exit" not in latest:
                    latest = messages.get_nowait()
            over = "exit" in latest
            if self._run is None and (latest.get("exit") == 0 or time.monotonic() - begun > self._spec["quiet"]):
                self._tell({"begun": True})
                # W&B's own service has a session of its own
                with children_give_way() if self._spec["gives_way"] else contextlib.nullcontext():
                    self._begin()
            if self._run is not None:
                if latest.get("cells_done", 0) > done:
                    done = latest["cells_done"]
                    self._run.log({"cells_done": done, "cell_seconds": latest["cell_seconds"]}, step=done, commit=True)
                self._follow()
            if over:
                if self._run is not None:
                    self._end(latest["exit"])
                return

    def _begin(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        # artifacts of an offline run are staged here and must travel with it
        os.environ.setdefault("WANDB_DATA_DIR", str(self._folder / "wandb" / "data"))
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._mode = chosen_mode(self._spec["mode"], wandb.setup().settings.base_url, self._warn)
        name = self._spec["run_id"]
        try:
            self._run = self._init(name, self._run_dir.name, "experiment", [], self._spec["config"])
        except Exception as error:
            if self._mode == "offline":
                raise
            self._warn(f"W&B: {in_a_line(error)}; logging offline")
            self._mode = "offline"
            del self._ledger
            wandb.teardown()  # it takes the run's id for used
            self._run = self._init(name, self._run_dir.name, "experiment", [], self._spec["config"])
        self._run.define_metric("cells_done")
        self._run.define_metric("cell_seconds", step_metric="cells_done")
        if self._mode == "offline":
            self._tell({"sync": f"wandb sync {self._folder / 'wandb'}/offline-run-*"})

    def _init(self, name: str, title: str, kind: str, tags: list[str], config: dict[str, Any]) -> Any:
        import wandb

        offline = self._mode == "offline"
        if not hasattr(self, "_ledger"):
            self._ledger = Ledger(self._folder / "wandb" / "sent.json", "offline" if offline else "online")
        if offline:
            self._ledger.discard(name)
        main = kind == "experiment"
        run = wandb.init(
            project=self._spec["app"],
            id=name,
            name=title,
            group=f"{self._spec['app']}-{self._spec['run_id']}",
            job_type=kind,
            tags=[self._spec["app"], *(tag[:64] for tag in tags)],
            config=config,
            mode=self._mode,
            dir=str(self._folder),
            resume=None if offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                program=self._spec["program"],
                init_timeout=INIT_SECONDS,
                x_file_stream_transmit_interval=self._spec["interval"],
                x_disable_stats=True,
                x_transaction_log_flush_interval=1,
                # a list of all packages takes a tenth of a second: once is enough
                x_save_requirements=main,
                x_disable_meta=not main,
            ),
        )
        kept = Path(run.settings.sync_dir).name if offline else None
        self._ledger.note(name, kept, done=False)
        return run

    def _begin_curve(self, curve: Curve) -> Any:
        name = self._id(curve)
        config = {"curve": curve.place, **self._spec["config"]}
        run = self._init(name, curve.name, "curve", curve.tags, config)
        run.define_metric(curve.kind.x)
        run.define_metric("*", step_metric=curve.kind.x, summary="last,mean")
        return run

    def _id(self, curve: Curve) -> str:
        return f"{self._spec['run_id']}-{curve.id}"

    def _finish_curve(self, run: Any, curve: Curve, exit_code: int) -> None:
        folder = Path(run.settings.sync_dir).name if self._mode == "offline" else None
        run.finish(exit_code=exit_code)
        self._ledger.note(self._id(curve), folder, done=exit_code == 0)

    def _follow(self) -> None:
        """Sends what the live files have gained; ends the W&B runs of cells that are finished."""
        for path in sorted((self._run_dir / FOLDER).glob("*.csv")):
            finished = (self._run_dir / "cells" / f"{path.stem}.json").exists()
            for row in self._tails.setdefault(path.stem, Tail(path)).rows():
                if point := curve_of(self._kinds, row):
                    self._log_live(path.stem, point)
            if finished and path.stem in self._open:
                self._close(path.stem)

    def _log_live(self, cell: str, point: Curve) -> None:
        name = self._id(point)
        if self._ledger.done(name):
            return
        held = self._open.get(cell)
        if held is not None and held.curve.id != point.id:
            self._close(cell)
            held = None
        if held is None:
            run = self._begin_curve(point)
            held = self._open[cell] = Open(run, point, run.step - 1)
        (row,) = point.rows
        step = int(row[point.kind.x])
        if step > held.last:
            held.run.log(row, step=step, commit=True)  # or it would wait for the next row
            held.last = step

    def _close(self, cell: str, exit_code: int = 0) -> None:
        held = self._open.pop(cell)
        self._finish_curve(held.run, held.curve, exit_code)

    def _end(self, exit_code: int) -> None:
        for cell in list(self._open):
            self._close(cell, exit_code)
        if exit_code == 0:
            frame = read_results(self._run_dir / "results.csv")
            self._outcome()
            waiting = [curve for curve in curves_of(self._kinds, frame) if not self._ledger.done(self._id(curve))]
            self._send_all(waiting)
        self._run.finish(exit_code=exit_code)

    def _send_all(self, waiting: list[Curve]) -> None:
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
        with ThreadPoolExecutor(AT_ONCE[self._mode == "offline"]) as pool:
            for _ in pool.map(send, waiting):
                pass

    def _outcome(self) -> None:
        """Headline metrics, the small tables, the figures; results.csv and all else as artifacts."""
        import pandas as pd
        import wandb

        summary = read_results(self._run_dir / "summary.csv")
        claims = pd.DataFrame(
            json.loads((self._run_dir / "claims.json").read_text()), columns=["id", "claim", "verdict", "measured"]
        )
        figures = sorted((self._run_dir / "figures").glob("*.png"))
        self._run.log(
            {
                "summary": wandb.Table(dataframe=summary),
                "claims": wandb.Table(dataframe=claims),
                **{f"figures/{path.stem}": wandb.Image(str(path)) for path in figures},
            }
        )
        self._run.summary.update(
            headline(summary) | {f"claims/{row['id']}": row["verdict"] for _, row in claims.iterrows()}
        )
        files = {
            "results": ["results.csv", "summary.csv", "claims.json", "config.yaml", "sessions.jsonl"],
            "figures": [f"figures/{path.name}" for path in sorted((self._run_dir / "figures").glob("*.[ps][nv]g"))],
        }
        for kind, names in files.items():
            artifact = wandb.Artifact(f"{self._spec['run_id']}-{kind}", type=kind)
            for name in names:
                if (self._run_dir / name).exists():
                    artifact.add_file(str(self._run_dir / name), name=Path(name).name, skip_cache=True)
            self._run.log_artifact(artifact)

    def _warn(self, text: str) -> None:
        self._tell({"warn": text})


def in_a_line(error: BaseException) -> str:
    """An error's name and message, shortened."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def received(lines: Iterable[str], messages: "queue.SimpleQueue[dict[str, Any]]", limit: float) -> None:
    """Reads what the driver says; when it is over, or the driver is gone, arranges that we are, too, before long."""
    ended: dict[str, Any] = {"exit": 1}
    for line in lines:
        message = json.loads(line)
        if "exit" in message:
            ended = message
            break
        messages.put(message)
    messages.put(ended)
    time.sleep(limit)
    os._exit(1)


def main() -> None:
    """Runs as `python -m gm_lab.uploading`; stdin and stdout belong to the driver."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # W&B may print
    spec = json.loads(sys.stdin.readline())

    def tell(message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError):  # the driver is gone
            out.write(json.dumps(message) + "\n")

    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=received, args=(sys.stdin, messages, spec["limit"]), daemon=True).start()
    try:
        Uploader(spec, tell).serve(messages)
        tell({"complete": True})
    except BaseException as error:  # W&B also raises SystemExit and KeyboardInterrupt subclasses
        tell({"warn": f"W&B: {in_a_line(error)}; going on without it", "sync": None})
    finally:
        if os.getppid() != spec["driver"]:  # else it does so
            shutil.rmtree(spec["temporary"], ignore_errors=True)
        os._exit(0)  # W&B's own exit hooks may wait


if __name__ == "__main__":
    main()
