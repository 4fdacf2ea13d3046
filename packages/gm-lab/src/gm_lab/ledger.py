"""Which W&B runs of a run directory were sent completely, over restarts."""

import contextlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

from gm_lab.store import write_atomically


class Ledger:
    """Which W&B runs were sent completely, and where those kept offline are; survives a restart.

    Args:
        path: A JSON file.
        mode: "online" or "offline"; what was sent in one mode was not in the other.
    """

    def __init__(self, path: Path, mode: str) -> None:
        self._path, self._mode, self._lock = path, mode, threading.Lock()
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
