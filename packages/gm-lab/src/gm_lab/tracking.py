"""Weights & Biases from a process of its own: the run neither waits for it nor fails because of it.

That process reads the run directory, so that nothing is queued here: the pipe to it holds 64 KiB of progress
messages, and one that doesn't fit is dropped. While cells are computed it has the lowest priority, which only root may
raise again. When they are done and the run waits for it, another of normal priority takes over what is left.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from gm_lab.curves import Curves
from gm_lab.priority import descendants, give_way

Mode = Literal["auto", "online", "offline", "disabled"]
FINISH_SECONDS = 60.0
# a run that is over sooner never shares its cores with W&B
QUIET_SECONDS = 20.0
SEND_SECONDS = 15.0  # between two requests of a W&B run
UNNOTICED_SECONDS = 3.0


class Tracker:
    """Has a run sent to W&B; every trouble becomes one warning.

    Args:
        mode: As `--wandb`.
        run_dir: The run directory; W&B's files go to its wandb/ unless WANDB_DIR says otherwise.
        app: The experiment's name, the project in W&B.
        run_id: Names the run in W&B, so that a resumed run goes on there.
        config: The run's settings, code version and command, as plain values.
        warn: Shows a line.
        curves: How its rows form curves.
    """

    def __init__(
        self,
        mode: Mode,
        run_dir: Path,
        app: str,
        run_id: str,
        config: dict[str, Any],
        warn: Callable[[str], None],
        curves: Sequence[Curves] = (),
    ) -> None:
        wish = os.environ.get("WANDB_MODE")
        self._spec = {
            "mode": wish if mode == "auto" and wish else mode,
            "run_dir": str(run_dir),
            "app": app,
            "run_id": run_id,
            "config": config,
            "curves": [dataclasses.asdict(kind) for kind in curves],
            "program": sys.argv[0],
            "driver": os.getpid(),
            "limit": FINISH_SECONDS,
            "quiet": QUIET_SECONDS,
            "interval": SEND_SECONDS,
        }
        self._run_dir, self._warn = run_dir, warn
        self._process: subprocess.Popen[str] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._answers = threading.Thread(target=lambda: None)
        self._warnings: set[str] = set()
        self._begun = self._complete = False
        self._progress = ""
        self.sync_line: str | None = None

    def start(self) -> None:
        """Starts the process beside the run; does nothing if W&B is disabled."""
        if self._spec["mode"] != "disabled":
            self._launch(gives_way=True)

    def _launch(self, gives_way: bool) -> None:
        try:
            if self._temporary is None:  # W&B leaves its own temporary folders behind
                self._temporary = tempfile.TemporaryDirectory(prefix="gm-lab-wandb-", ignore_cleanup_errors=True)
            spec = self._spec | {"gives_way": gives_way, "temporary": self._temporary.name}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gm_lab.uploading"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"TMPDIR": self._temporary.name},
                start_new_session=True,  # Ctrl-C is for the run
            )
            assert self._process.stdin is not None
            if gives_way:
                give_way(self._process.pid)
            self._process.stdin.write(json.dumps(spec) + "\n")
            self._process.stdin.flush()
            os.set_blocking(self._process.stdin.fileno(), False)
        except OSError as error:
            self._warn(f"W&B: {error.strerror or error}; going on without it")
            self._stop()
            return
        self._answers = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._answers.start()

    def _take_over(self) -> None:
        """Puts a process of normal priority in the place of the one that gives way; it sends what is left."""
        if self._process is None:
            return
        for process in descendants(self._process.pid):  # W&B's service would go on beside the new one's
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        self._stop()
        if self.sync_line:  # it has found out that it can't be online
            self._spec["mode"] = "offline"
        self._launch(gives_way=False)

    def progress(self, cells_done: int, cell_seconds: float) -> None:
        """Says how far the run is; never waits."""
        self._send({"cells_done": cells_done, "cell_seconds": cell_seconds})

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run and waits for it a limited time; a second call does nothing.

        Args:
            exit_code: 0 if everything that there is to show lies in the run directory.
        """
        if self._process is None:
            return
        end = time.monotonic() + FINISH_SECONDS
        lowered = True
        try:
            if exit_code == 0 and not self._begun:
                self._take_over()
                lowered = False
            self._send({"exit": exit_code})
            self._answers.join(UNNOTICED_SECONDS)
            if self._answers.is_alive():
                print(f"waiting for W&B, at most {FINISH_SECONDS:.0f} s (Ctrl-C skips it)", file=sys.stderr)
                if exit_code == 0 and lowered:
                    self._take_over()
                    self._send({"exit": exit_code})
                self._answers.join(max(0.0, end - time.monotonic()))
            if not self._complete and self._answers.is_alive():
                self._warn(
                    f"W&B did not finish in {FINISH_SECONDS:.0f} s{self._progress}; going on without it. "
                    f"The same settings with --run-dir {self._run_dir} send the rest"
                )
        finally:
            self._stop()
            if self._temporary is not None:
                self._temporary.cleanup()

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            return
        end = time.monotonic() + (1.0 if "exit" in message else 0.0)
        line = (json.dumps(message) + "\n").encode()
        while True:
            try:
                os.write(self._process.stdin.fileno(), line)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    return
                time.sleep(0.01)
            except OSError:  # it is gone
                return

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            if "warn" in message and message["warn"] not in self._warnings:
                self._warnings.add(message["warn"])
                self._warn(message["warn"])
            self._begun = self._begun or "begun" in message
            if "sync" in message:
                self.sync_line = message["sync"]
            if "sent" in message:
                self._progress = f" ({message['sent']} of {message['of']} curves sent)"
            self._complete = self._complete or "complete" in message

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._answers.ident is not None:  # it was started
            self._answers.join(1.0)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
