"""The run directory: its lock, its settings, its finished cells, and results.csv as their sorted union."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gm_lab.run.cells import Row, cell_id, checked_rows, sort_key
from gm_lab.run.context import Context
from gm_lab.run.errors import BadInput
from gm_lab.run.output import encoded, own_file, refuse_links_out, refuse_other_than_file
from gm_lab.run.settings import plain

LOCK, CONFIG, LOG = ".lock", "config.yaml", "log.txt"


def default_run_dir(app: str) -> Path:
    """runs/<app>/<UTC time>-<id>: names sort by time and never collide."""
    return Path("runs", app, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}")


@contextlib.contextmanager
def allowed_to(action: str, path: Path) -> Iterator[None]:
    """Turns the refusal of a file system inside the block into a line that names the file."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot {action} {path}: {error.strerror or error}") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is always absent, old or complete, even after a power cut; raises BadInput if refused."""
    with allowed_to("write", path):
        refuse_other_than_file(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=own_file) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        room = ""
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = in_units(shutil.disk_usage(path.parent).free)
                room = f": it needs {in_units(len(content))}, {free} is free; "
                room += "with more room the same --run-dir goes on from here"
        raise BadInput(f"cannot write {path}: {error.strerror or error}{room}") from None


def in_units(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def make_folder(path: Path) -> None:
    """Creates a folder unless it is there."""
    with allowed_to("write", path):
        path.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class RunDirectory:
    """A run's folder, the columns of its results.csv, and those that sort it."""

    path: Path
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def cell_path(self, cell: Any) -> Path:
        """Where the rows of `cell` are, once it is finished."""
        return self.path / "cells" / f"{cell_id(cell)}.json"

    def load(self, cell: Any) -> list[Row] | None:
        """Returns the rows of `cell`, or None if it is not finished; raises ValueError if the file is damaged."""
        try:
            record = json.loads(self.cell_path(cell).read_bytes())
        except FileNotFoundError:
            return None
        if not isinstance(record, dict) or record.get("sha256") != checksum(record.get("rows")):
            raise ValueError("the checksum doesn't match the rows")
        return checked_rows(record["rows"], self.columns)

    def save(self, cell: Any, rows: list[Row]) -> None:
        """Writes the rows of a finished cell."""
        record = {"cell": plain(cell), "rows": rows, "sha256": checksum(rows)}
        write_atomically(self.cell_path(cell), json.dumps(record).encode())

    def unfinished(self, cells: Sequence[Any], warn: Callable[[str], None]) -> list[Any]:
        """The cells still to be computed; damaged ones count as such, with a warning."""
        pending = []
        for cell in cells:
            with allowed_to("read", self.cell_path(cell)):
                try:
                    done = self.load(cell) is not None
                except (ValueError, TypeError, KeyError) as error:
                    warn(f"{self.cell_path(cell)} is damaged ({error}); computing it again")
                    done = False
            if not done:
                pending.append(cell)
        return pending

    def collect(self, cells: Sequence[Any]) -> None:
        """Writes results.csv, the sorted union of the finished cells; ties keep the order of `cells`."""
        rows = [row for cell in cells for row in self.load(cell) or []]
        rows.sort(key=lambda row: sort_key(row, self.key))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(self.columns)
        table.writerows([[row[column] for column in self.columns] for row in rows])
        write_atomically(self.path / "results.csv", encoded(text.getvalue()))

    def log(self, text: str) -> None:
        """Appends to log.txt as well as the file system lets us: a full disk must not hide the message itself."""
        line = encoded(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text.rstrip()}\n")
        with contextlib.suppress(OSError), open(self.path / LOG, "ab", opener=own_file) as file:
            file.write(line)


def compute_cell(
    store: RunDirectory, run_cell: Callable[[Any, Context], list[Row]], cell: Any, context: Context
) -> None:
    """Runs one cell and saves its rows, unless another process, here or elsewhere, has just done so."""
    claim = store.cell_path(cell).with_suffix(".claim")
    with allowed_to("write", claim):
        file = open(claim, "a", opener=own_file)  # noqa: SIM115 - closed below
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = None
        with contextlib.suppress(ValueError, TypeError, KeyError):
            done = store.load(cell)
        if done is None:
            store.save(cell, checked_rows(run_cell(cell, context), store.columns))
        # whoever waits for this claim finds the cell finished, so the name is no longer needed
        claim.unlink(missing_ok=True)


def checksum(rows: Any) -> str:
    """SHA-256 of the rows' JSON text."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@contextlib.contextmanager
def opened(
    path: Path, app: str, settings: dict[str, Any], columns: tuple[str, ...], key: tuple[str, ...],
    versions: Callable[[], dict[str, str]],
) -> Iterator[tuple[RunDirectory, dict[str, Any]]]:  # fmt: skip
    """Creates or resumes a run directory, holds it against other writers, and yields it with its config.yaml.

    It calls `versions` for a new run only, and raises BadInput if the folder holds something else or other settings, is
    being written, or can't be written.
    """
    with allowed_to("write", path):
        path.mkdir(parents=True, exist_ok=True)
        foreign = [entry.name for entry in path.iterdir() if entry.name != LOCK and not entry.name.endswith(".tmp")]
    if foreign and CONFIG not in foreign:
        raise BadInput(f"--run-dir: expected a run directory or an empty one, got {path}, which holds {min(foreign)}")
    refuse_links_out(path)
    with locked(path):
        config = matching_config(path, app, settings, versions)
        with allowed_to("write", path):
            (path / "cells").mkdir(exist_ok=True)
            for leftover in [*path.glob(".*.tmp"), *path.glob("cells/.*.tmp")]:
                leftover.unlink()
        yield RunDirectory(path, columns, key), config


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a run directory against other writers; the hold ends with this process, however it ends."""
    name = path / LOCK
    with allowed_to("write", name):
        file = open(name, "a+", opener=own_file)  # noqa: SIM115 - closed below
    with file:
        try:
            # a record lock, unlike flock, is not inherited by forked workers, which may outlive a killed driver
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            process, _, host = file.read().partition(" ")
            holder = f"process {process} on {host}" if host else "another process"
            raise BadInput(f"--run-dir: {path} is being written by {holder}; expected one writer") from None
        with allowed_to("write", name):
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()} {socket.gethostname()}".encode())
        yield


def matching_config(
    path: Path, app: str, settings: dict[str, Any], versions: Callable[[], dict[str, str]]
) -> dict[str, Any]:
    """Returns config.yaml, written now if the run is new; raises BadInput if its app or settings are others."""
    import yaml

    name = path / CONFIG
    if not name.exists():
        config = {"app": app, "run_id": secrets.token_hex(4), "settings": settings, "versions": versions()}
        write_atomically(name, yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
        return config
    try:
        with allowed_to("read", name):
            config = yaml.safe_load(name.read_bytes())
        kept = {"app": config["app"], **config["settings"]}
    except (yaml.YAMLError, KeyError, TypeError):
        raise BadInput(f"--run-dir: expected {name} as this program writes it, got another or a damaged file") from None
    asked = {"app": app, **settings}
    for field in [*asked, *(kept.keys() - asked.keys())]:
        # by text, so that NaN agrees with itself and 1 differs from 1.0 and from True
        if repr(asked.get(field)) != repr(kept.get(field)):
            raise BadInput(
                f"--run-dir: {path} holds a run of other settings: "
                f"{field} is {kept.get(field, 'absent')} there, but {asked.get(field, 'absent')} was asked for"
            )
    return dict(config)
