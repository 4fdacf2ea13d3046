"""Weights & Biases from a thread of its own: the run neither waits for it nor fails because of it."""

import contextlib
import netrc
import os
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from gm_lab.claims import Verdict
from gm_lab.tables import headline

if TYPE_CHECKING:
    import pandas as pd

Mode = Literal["auto", "online", "offline", "disabled"]
PROBE_SECONDS = 2.0
FINISH_SECONDS = {True: 20.0, False: 120.0}  # by whether the run is offline


class Tracker:
    """Sends what it is told to W&B; every trouble becomes one warning.

    Args:
        mode: As `--wandb`.
        run_dir: The run directory; W&B's files go to its wandb/ unless WANDB_DIR says otherwise.
        app: The experiment's name, the project in W&B.
        run_id: Names the run in W&B, so that a resumed run goes on there.
        config: The run's settings, as plain values.
        warn: Shows a line.
    """

    def __init__(
        self, mode: Mode, run_dir: Path, app: str, run_id: str, config: dict[str, Any], warn: Callable[[str], None]
    ) -> None:
        wish = os.environ.get("WANDB_MODE")
        self._mode: Any = wish if mode == "auto" and wish else mode
        self._run_dir, self._app, self._run_id, self._config = run_dir, app, run_id, config
        self._warn = warn
        self._jobs: queue.SimpleQueue[Callable[[Any], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._offline = True
        self._exit_code = 0
        self.sync_line: str | None = None

    def start(self) -> None:
        """Imports W&B and begins its run in the background; does nothing if it is disabled."""
        if self._mode != "disabled":
            self._thread.start()

    def log(self, values: dict[str, Any], step: int) -> None:
        """Logs one row of metrics."""
        self._jobs.put(lambda run: run.log(values, step=step))

    def log_outcome(
        self, step: int, frame: "pd.DataFrame", summary: "pd.DataFrame", verdicts: list[Verdict], images: list[Path]
    ) -> None:
        """Logs what a finished run has to show: headline metrics, the results and claims tables, the figures."""

        def job(run: Any) -> None:
            import pandas as pd
            import wandb

            # no row is left out of the table silently
            wandb.Table.MAX_ROWS = max(wandb.Table.MAX_ROWS, len(frame))
            claims = pd.DataFrame(
                [(item.id, item.claim, item.verdict, item.measured) for item in verdicts],
                columns=["id", "claim", "verdict", "measured"],
            )
            run.log(
                {
                    "results": wandb.Table(dataframe=frame),
                    "claims": wandb.Table(dataframe=claims),
                    **{f"figures/{path.stem}": wandb.Image(str(path)) for path in images},
                },
                step=step,
            )
            run.summary.update(headline(summary) | {f"claims/{item.id}": item.verdict for item in verdicts})

        self._jobs.put(job)

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run and waits for it a limited time; a second call does nothing."""
        if not self._thread.is_alive():
            return
        self._exit_code = exit_code
        self._jobs.put(None)
        self._thread.join(FINISH_SECONDS[self._offline])
        if self._thread.is_alive():
            self._warn(f"W&B did not finish in {FINISH_SECONDS[self._offline]:.0f} s; going on without it")

    def _serve(self) -> None:
        try:
            run = self._begin()
            while (job := self._jobs.get()) is not None:
                job(run)
            run.finish(exit_code=self._exit_code)
        except BaseException as error:  # W&B also raises SystemExit and KeyboardInterrupt subclasses
            self.sync_line = None
            self._warn(f"W&B: {type(error).__name__}: {' '.join(str(error).split())[:200]}; going on without it")

    def _begin(self) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")
        # artifacts of an offline run are staged here and must travel with it
        folder = Path(os.environ.get("WANDB_DIR", self._run_dir)).resolve()
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / "data"))
        import wandb

        mode = self._chosen_mode(wandb.setup().settings.base_url)
        self._offline = mode == "offline"
        run = wandb.init(
            project=self._app,
            id=self._run_id,
            name=self._run_dir.name,
            config=self._config,
            mode=mode,
            dir=str(folder),
            resume=None if self._offline else "allow",
            settings=wandb.Settings(
                console="off",
                silent=True,
                finish_timeout=FINISH_SECONDS[self._offline],
                init_timeout=30,
                x_disable_stats=True,
                x_transaction_log_flush_interval=1,
            ),
        )
        if run.settings.mode == "offline":
            self.sync_line = f"wandb sync {Path(run.settings.sync_dir)}"
        return run

    def _chosen_mode(self, base_url: str) -> Any:
        """What to ask W&B for: offline unless it can be online, because W&B itself would wait and then fail."""
        if self._mode not in ("auto", "online"):
            return self._mode
        ready = has_key(base_url) and reachable(base_url)
        if self._mode == "online" and not ready:
            reason = "is not reachable" if has_key(base_url) else "has no API key configured (run `wandb login`)"
            self._warn(f"--wandb online: {urlsplit(base_url).hostname} {reason}; logging offline")
        return "online" if ready else "offline"


def has_key(base_url: str) -> bool:
    """Whether an API key is configured, by environment or netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(base_url).hostname or "")
        return found is not None
    return False


def reachable(base_url: str) -> bool:
    """Whether the server, or the proxy on the way to it, accepts a connection within two seconds."""
    url = urlsplit(base_url)
    url = urlsplit(getproxies().get(url.scheme, base_url))
    try:
        with socket.create_connection((url.hostname, url.port or {"http": 80}.get(url.scheme, 443)), PROBE_SECONDS):
            return True
    except OSError:
        return False
