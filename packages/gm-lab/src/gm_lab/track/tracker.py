"""Weights & Biases from a process of its own: the run neither waits for it nor fails because of it.

That process reads the run directory, so that nothing is queued here: the pipe to it holds 64 KiB of progress
messages, and one that doesn't fit is dropped. The one that follows the cells has the lowest priority, which only root
may raise again. When they are done and the run waits, another of normal priority sends what is left.
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

from gm_lab.track.curves import Curves

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
        warn: Shows a line.
        curves: How its rows form curves.
    """

    def __init__(
        self,
        mode: Mode,
        run_dir: Path,
        app: str,
        run_id: str,
        warn: Callable[[str], None],
        curves: Sequence[Curves] = (),
    ) -> None:
        wish = os.environ.get("WANDB_MODE")
        self._mode = wish if mode == "auto" and wish else mode
        self._spec: dict[str, Any] = {
            "run_dir": str(run_dir),
            "app": app,
            "run_id": run_id,
            "curves": [dataclasses.asdict(kind) for kind in curves],
            "program": sys.argv[0],
            "driver": os.getpid(),
        }
        self._warn = warn
        self._process: subprocess.Popen[str] | None = None
        self._services: list[int] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._answers: threading.Thread | None = None
        self._later: threading.Timer | None = None
        self._warnings: set[str] = set()
        self._progress = ""
        self.sync_line: str | None = None

    def start(self, config: dict[str, Any]) -> None:
        """Has the run followed as soon as it has lasted a while; does nothing if W&B is disabled.

        Args:
            config: The run's settings, code version and command, as plain values.
        """
        if self._mode != "disabled":
            self._spec["config"] = config
            self._later = threading.Timer(QUIET_SECONDS, self._launch, [True])
            self._later.daemon = True
            self._later.start()

    def progress(self, cells_done: int, cell_seconds: float) -> None:
        """Says how far the run is; never waits."""
        self._send({"cells_done": cells_done, "cell_seconds": cell_seconds})

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run and waits for it a limited time; a second call does nothing.

        Args:
            exit_code: 0 if everything that there is to show lies in the run directory.
        """
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
            self._send({"exit": exit_code})
            if self._ends_within(UNNOTICED_SECONDS):
                return
            print(f"waiting for W&B, at most {FINISH_SECONDS:.0f} s (Ctrl-C skips it)", file=sys.stderr)
            if exit_code == 0 and followed:
                self._stop()
                self._launch(gives_way=False)
                self._send({"exit": exit_code})
            if not self._ends_within(end - time.monotonic()):
                self._warn(
                    f"W&B did not finish in {FINISH_SECONDS:.0f} s{self._progress}; going on without it. "
                    f"The same settings with --run-dir {self._spec['run_dir']} send the rest"
                )
        finally:
            self._stop()
            if self._temporary is not None:
                self._temporary.cleanup()

    def _launch(self, gives_way: bool) -> None:
        try:
            if self._temporary is None:  # W&B leaves its own temporary folders behind
                self._temporary = tempfile.TemporaryDirectory(prefix="gm-lab-wandb-", ignore_cleanup_errors=True)
            spec = self._spec | {
                "mode": "offline" if self.sync_line else self._mode,  # it may have found out that it can't be online
                "gives_way": gives_way,
                "temporary": self._temporary.name,
                "limit": FINISH_SECONDS,
                "interval": SEND_SECONDS,
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gm_lab.track.sender"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"TMPDIR": self._temporary.name},
                process_group=0,  # Ctrl-C is for the run
            )
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(spec) + "\n")
            self._process.stdin.flush()
            os.set_blocking(self._process.stdin.fileno(), False)
        except OSError as error:
            self._warn(f"W&B: {error.strerror or error}; going on without it")
            self._stop()
            return
        self._answers = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._answers.start()

    def _ends_within(self, seconds: float) -> bool:
        if self._answers is not None:
            self._answers.join(max(0.0, seconds))
        return self._answers is None or not self._answers.is_alive()

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
            if "sync" in message:
                self.sync_line = message["sync"]
            if "sent" in message:
                self._progress = f" ({message['sent']} of {message['of']} curves sent)"
            self._services += message.get("services", [])

    def _stop(self) -> None:
        """Ends the process, and W&B's service, which would go on for a while beside that of the next one."""
        process, self._process = self._process, None
        services, self._services = self._services, []
        if process is None:
            return
        if process.poll() is None:
            for number in (process.pid, *services):
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)
            process.wait()
        self._ends_within(1.0)
        self._answers = None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
