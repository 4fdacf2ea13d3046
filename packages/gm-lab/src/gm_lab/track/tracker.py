"""Weights & Biases from a process of its own: the run neither waits for it nor fails because of it.

That process reads the run directory, and in a temporary folder what else it must know: `run.json`, and a line for each
finished cell in `progress.csv`. It answers in `answers.jsonl`. The one that follows the cells has the lowest priority,
which only root may raise again; when they are done and the run waits, another of normal priority sends what is left.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from gm_lab.run.output import quoted, say
from gm_lab.track.connection import destination
from gm_lab.track.curves import Curves

Mode = Literal["auto", "online", "offline", "disabled"]
FINISH_SECONDS = 60.0
# a run that is over sooner never shares its cores with W&B
QUIET_SECONDS = 20.0
SEND_SECONDS = 15.0  # between two requests of a W&B run
UNNOTICED_SECONDS = 3.0
ERRORS = "stderr.txt"
ALONE = "import sys; sys.path += sys.argv[2:]; from gm_lab.track import sender; sender.main(sys.argv[1])"
"""It takes modules from where our libraries are, and none from the current folder or PYTHONPATH."""


def _libraries() -> list[str]:
    """The folders that gm_lab and wandb were or would be imported from, should they not be where Python looks first."""
    found = [importlib.util.find_spec(name) for name in ("gm_lab", "wandb")]
    return [str(Path(spec.origin).resolve().parents[1]) for spec in found if spec is not None and spec.origin]


class Tracker:
    """Has a run sent to W&B; every trouble becomes one warning.

    W&B's files go to wandb/ in the run directory unless WANDB_DIR says otherwise; the app's name is the project unless
    another was `chosen`, and `run_id`, or a sweep, names the run there, so that a resumed run goes on.
    """

    def __init__(
        self, mode: Mode, run_dir: Path, app: str, run_id: str, warn: Callable[[str], None],
        curves: Sequence[Curves] = (), **chosen: str | None,
    ) -> None:  # fmt: skip
        wish = os.environ.get("WANDB_MODE")
        self._mode = wish if mode == "auto" and wish else mode
        self.disabled = self._mode == "disabled"
        # an agent of a sweep waits for the run that it named
        sweep = bool(os.environ.get("WANDB_SWEEP_ID"))
        name = os.environ.get("WANDB_RUN_ID") or run_id if sweep else run_id
        self._about: dict[str, Any] = {"run_dir": str(run_dir), "app": app, "run_id": name, "program": sys.argv[0]}
        self._about["sweep"] = sweep
        self.place = self._about["destination"] = destination(app, run_id, **chosen)
        self._about |= {"curves": [dataclasses.asdict(kind) for kind in curves], "driver": os.getpid()}
        self._warn = warn
        self._warnings: set[str] = set()
        self._heard = 0
        self._services: list[int] = []
        self._sent = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._later: threading.Timer | None = None
        self.sync_line: str | None = None

    def start(self, config: dict[str, Any]) -> None:
        """Has the run followed as soon as it has lasted a while; does nothing if W&B is disabled."""
        if not self.disabled:
            self._about["config"] = config
            self._later = threading.Timer(QUIET_SECONDS, self._launch, [True])
            self._later.daemon = True
            self._later.start()

    def progress(self, cells_done: int, cell_seconds: float) -> None:
        """Says how far the run is; never waits."""
        if self._process is not None:
            self._write(f"{cells_done},{cell_seconds}")
            self._hear()

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run, complete if the exit code is 0, and waits a limited time; a second call does nothing."""
        if self._later is None:
            return
        self._later.cancel()
        self._later.join()
        self._later = None
        end = time.monotonic() + FINISH_SECONDS
        followed = self._process is not None
        try:
            if exit_code == 0 and not followed:
                self._launch(gives_way=False)
            self._write(f"exit,{exit_code}")
            if self._ends_within(UNNOTICED_SECONDS):
                return
            say(f"waiting for W&B, at most {FINISH_SECONDS:.0f} s (Ctrl-C skips it)")
            if exit_code == 0 and followed:
                self._stop()
                self._launch(gives_way=False)
                self._write(f"exit,{exit_code}")
            if not self._ends_within(end - time.monotonic()):
                self._warn(
                    f"W&B did not finish in {FINISH_SECONDS:.0f} s{self._sent}; going on without it. "
                    f"The same settings with --run-dir {quoted(self._about['run_dir'])} send the rest"
                )
        finally:
            self._stop()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _launch(self, gives_way: bool) -> None:
        self._hear()
        about = self._about | {"gives_way": gives_way, "limit": FINISH_SECONDS, "interval": SEND_SECONDS}
        about["mode"] = "offline" if self.sync_line else self._mode  # it may have found out that it can't be online
        try:
            # W&B leaves its own temporary folders behind, so they go into ours
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="gm-lab-wandb-"))
            (self._folder / "run.json").write_text(json.dumps(about))
            (self._folder / "progress.csv").write_text("cells_done,cell_seconds\n")
            with (self._folder / ERRORS).open("wb") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-X", "utf8", "-c", ALONE, str(self._folder), *_libraries()],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                    env=os.environ | {"TMPDIR": str(self._folder)}, process_group=0,  # Ctrl-C is for the run
                )  # fmt: skip
        except OSError as error:
            self._warn(f"W&B: {error.strerror or error}; going on without it")

    def _write(self, line: str) -> None:
        if self._folder is not None:
            with contextlib.suppress(OSError), (self._folder / "progress.csv").open("a") as file:
                file.write(line + "\n")

    def _ends_within(self, seconds: float) -> bool:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, seconds))
        self._hear()
        return self._process is None or self._process.returncode is not None

    def _hear(self) -> None:
        if self._folder is None:
            return
        lines: list[str] = []
        with contextlib.suppress(OSError):
            *lines, _unfinished = (self._folder / "answers.jsonl").read_text().split("\n")
        for line in lines[self._heard :]:
            message = json.loads(line)
            if "warn" in message and message["warn"] not in self._warnings:
                self._warnings.add(message["warn"])
                self._warn(message["warn"])
            if "sync" in message:
                self.sync_line = message["sync"]
            if "sent" in message:
                self._sent = f" ({message['sent']} of {message['of']} runs of single units sent)"
            self._services = message.get("services", self._services)
        self._heard = len(lines)
        self._notice_death()

    def _notice_death(self) -> None:
        """Warns if the process ended by itself without having said why, as where an import of its fails."""
        status = self._process.poll() if self._process is not None else None
        if status and not self._warnings:
            last = ""
            with contextlib.suppress(OSError):
                last = (
                    ((self._folder or Path()) / ERRORS)
                    .read_text(encoding="utf-8", errors="replace")
                    .strip()
                    .rpartition("\n")[2]
                )
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            self._warnings.add(how)
            self._warn(f"W&B: its process ended with {how}{': ' * bool(last)}{last[:200]}; going on without it")

    def _stop(self) -> None:
        """Ends the process, and W&B's service, which would go on beside that of the next one."""
        self._hear()
        if self._process is not None and self._process.poll() is None:
            for number in (self._process.pid, *self._services):
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)
            self._process.wait()
        self._process = None
