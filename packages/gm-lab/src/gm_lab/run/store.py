"""The run directory: its lock, its settings, its finished cells, and results.csv as their sorted union."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gm_lab.run import reading
from gm_lab.run.cells import Row, cell_id, checked_rows, shorten, sort_key
from gm_lab.run.context import Context
from gm_lab.run.errors import BadInput
from gm_lab.run.machine import kind_of_machine
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


class Found(NamedTuple):
    """What cells have so far: their rows, how many each kind of machine computed, and those without rows, and why."""

    rows: list[Row]
    kinds: Counter[str]
    lacking: list[tuple[Any, OSError | ValueError]]


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
            return self._load(cell)[0]
        except FileNotFoundError:
            return None

    def _load(self, cell: Any) -> tuple[list[Row], str]:
        record = reading.read_json(self.cell_path(cell))
        if not isinstance(record, dict):
            raise ValueError("it holds no record")
        if "computed_on" not in record:
            raise ValueError("an older version wrote it, whose checksum doesn't cover whose rows they are")
        if record.get("sha256") != checksum(record):
            raise ValueError("the checksum doesn't match")
        if as_json(record["cell"]) != as_json(plain(cell)):
            raise ValueError("it holds the rows of another cell")
        try:
            return checked_rows(record["rows"], self.columns), str(record["computed_on"])
        except TypeError as error:
            raise ValueError(str(error)) from None

    def save(self, cell: Any, rows: list[Row], computed_on: str | None = None) -> None:
        """Writes the rows of a finished cell, and which kind of machine computed them, by default this one's."""
        record = {"cell": plain(cell), "computed_on": computed_on or kind_of_machine(), "rows": rows}
        write_atomically(self.cell_path(cell), as_json(record | {"sha256": checksum(record)}).encode())

    def found(self, cells: Sequence[Any]) -> Found:
        """Reads what there is of `cells`; nothing that is wrong with a file stops it."""
        found = Found([], Counter(), [])
        for cell in cells:
            try:
                rows, computed_on = self._load(cell)
            except (OSError, ValueError) as error:
                found.lacking.append((cell, error))
            else:
                found.rows.extend(rows)
                found.kinds[computed_on] += 1
        return found

    def unfinished(self, found: Found, warn: Callable[[str], None]) -> list[Any]:
        """The cells still to be computed; damaged ones count as such, with a warning.

        Raises BadInput if a file can't be read, or something else is in its place.
        """
        damaged = []
        for cell, error in found.lacking:
            path = self.cell_path(cell)
            if isinstance(error, reading.NoFile):
                raise BadInput(f"--run-dir: expected a file at {path}, which {error}")
            if isinstance(error, ValueError):
                damaged.append(f"{path} is damaged ({error})")
            elif not isinstance(error, FileNotFoundError):
                raise BadInput(f"cannot read {path}: {error.strerror or error}")
        if damaged:
            more = f", as are {len(damaged) - 1} more" if len(damaged) > 1 else ""
            warn(f"{damaged[0]}{more}; computing {'them' if more else 'it'} again")
        return [cell for cell, _ in found.lacking]

    def collect(self, cells: Sequence[Any]) -> Found:
        """Writes results.csv, the sorted union of the finished cells, which it returns; ties keep the order."""
        found = self.found(cells)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(self.columns)
        rows = sorted(found.rows, key=lambda row: sort_key(row, self.key))
        table.writerows([[row[column] for column in self.columns] for row in rows])
        write_atomically(self.path / "results.csv", encoded(text.getvalue()))
        return found

    def lost(self, found: Found) -> str:
        """Says which finished cells are gone, or are no longer what was written."""
        if not self.path.exists():
            return f"{self.path} vanished while the run went on; the same --run-dir computes it again"
        files = [
            f"{self.cell_path(cell).name} ({'gone' if isinstance(error, FileNotFoundError) else error})"
            for cell, error in found.lacking[:3]
        ]
        count, more = len(found.lacking), f" and {len(found.lacking) - 3} more" if len(found.lacking) > 3 else ""
        return (
            f"{count} of the finished cells in {self.path / 'cells'} vanished or changed while the run went on: "
            f"{', '.join(files)}{more}; the same --run-dir computes them again"
        )

    def log(self, text: str) -> None:
        """Appends to log.txt as well as the file system lets us: a full disk must not hide the message itself."""
        append(self.path / LOG, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text.rstrip()}")


def append(path: Path, line: str) -> None:
    """Appends a line to a file as well as the file system lets us, after the rest of one that was torn."""
    with contextlib.suppress(OSError, reading.NoFile), reading.opened(path, reading.APPEND) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = file.read() not in (b"", b"\n")  # a full disk or a power cut took the rest of the last line
        file.write(b"\n" * torn + encoded(line) + b"\n")


def compute_cell(
    store: RunDirectory, run_cell: Callable[[Any, Context], list[Row]], cell: Any, context: Context
) -> None:
    """Runs one cell and saves its rows, unless another process, here or elsewhere, has just done so."""
    claim = store.cell_path(cell).with_suffix(".claim")
    with lockable(claim) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = None
        with contextlib.suppress(ValueError):
            done = store.load(cell)
        if done is None:
            rows = checked_rows(run_cell(cell, context), store.columns)
            store.save(cell, rows, kind_of_machine(context.device))
        # whoever waits for this claim finds the cell finished, so the name is no longer needed
        claim.unlink(missing_ok=True)


def lockable(path: Path) -> BinaryIO:
    """Opens a file to lock it, created if need be; raises BadInput if it is something else, or refused."""
    with allowed_to("write", path):
        try:
            return reading.opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        except reading.NoFile as error:
            raise BadInput(f"--run-dir: expected a file at {path}, which {error}") from None


def as_json(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(value)


def checksum(record: dict[str, Any]) -> str:
    """SHA-256 of a cell's record: whose rows they are, where they were computed, and the rows."""
    return hashlib.sha256(as_json([record.get(name) for name in ("cell", "computed_on", "rows")]).encode()).hexdigest()


def kinds_of_machine(run_dir: Path) -> dict[str, int]:
    """How many of a run's finished cells each kind of machine computed; several are worth a line in a report."""
    kinds: Counter[str] = Counter()
    for path in sorted(run_dir.glob("cells/[!.]*.json")):
        with contextlib.suppress(OSError, ValueError):
            record = reading.read_json(path)
            if isinstance(record, dict) and isinstance(record.get("computed_on"), str):
                kinds[record["computed_on"]] += 1
    return dict(kinds)


@contextlib.contextmanager
def opened(
    path: Path, app: str, settings: dict[str, Any], columns: tuple[str, ...], key: tuple[str, ...],
    versions: Callable[[], dict[str, str]], growing: Collection[str] = (),
) -> Iterator[tuple[RunDirectory, dict[str, Any]]]:  # fmt: skip
    """Creates or resumes a run directory, holds it against other writers, and yields it with its config.yaml.

    It calls `versions` for a new run only, and raises BadInput if the folder holds something else or other settings, is
    being written, or can't be written. The settings in `growing` may be larger than they were.
    """
    with allowed_to("write", path):
        path.mkdir(parents=True, exist_ok=True)
        foreign = [entry.name for entry in path.iterdir() if entry.name != LOCK and not entry.name.endswith(".tmp")]
    if foreign and CONFIG not in foreign:
        raise BadInput(f"--run-dir: expected a run directory or an empty one, got {path}, which holds {min(foreign)}")
    refuse_links_out(path)
    with locked(path):
        config = matching_config(path, app, settings, versions, growing)
        with allowed_to("write", path / "cells"):
            (path / "cells").mkdir(exist_ok=True)
        with allowed_to("write", path):
            for leftover in [*path.glob(".*.tmp"), *path.glob("cells/.*.tmp")]:
                if not leftover.is_dir():
                    leftover.unlink()
        yield RunDirectory(path, columns, key), config


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a run directory against other writers; the hold ends with this process, however it ends."""
    name = path / LOCK
    with lockable(name) as file:
        try:
            # a record lock, unlike flock, is not inherited by forked workers, which may outlive a killed driver
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            process, _, host = file.read(300).decode(errors="replace").partition(" ")
            holder = f"process {process} on {host}" if host else "another process"
            raise BadInput(f"--run-dir: {path} is being written by {holder}; expected one writer") from None
        with allowed_to("write", name):
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()} {socket.gethostname()}".encode())
        yield


def matching_config(
    path: Path, app: str, settings: dict[str, Any], versions: Callable[[], dict[str, str]],
    growing: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Returns config.yaml, written now if the run is new or has grown; raises BadInput if its settings are others."""
    import yaml

    name = path / CONFIG
    damaged = BadInput(f"--run-dir: expected {name} as this program writes it, got another or a damaged file")
    try:
        config: dict[str, Any] = reading.read_yaml(name)
    except reading.Unreadable:
        raise damaged from None
    except FileNotFoundError:
        config = {"app": app, "run_id": secrets.token_hex(4), "settings": settings, "versions": versions()}
        write_atomically(name, yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
        return config
    except OSError as error:
        raise BadInput(f"cannot read {name}: {error.strerror or error}") from None
    kinds = {"app": str, "run_id": str, "settings": dict, "versions": dict}
    if not isinstance(config, dict) or any(not isinstance(config.get(part), kind) for part, kind in kinds.items()):
        raise damaged
    if not re.fullmatch(r"[\w-]{1,64}", config["run_id"], re.ASCII):
        raise damaged
    kept, asked = {"app": config["app"], **config["settings"]}, {"app": app, **settings}
    for field in [*asked, *(kept.keys() - asked.keys())]:
        # by text, so that NaN agrees with itself and 1 differs from 1.0 and from True
        if repr(asked.get(field)) != repr(kept.get(field)) and not (field in growing and _grows(kept, asked, field)):
            there, here = (shorten(str(some.get(field, "absent")), 200) for some in (kept, asked))
            raise BadInput(
                f"--run-dir: {path} holds a run of other settings: {field} is {there} there, but {here} was asked for"
            )
    if repr(config["settings"]) != repr(settings):
        config["settings"] = settings
        write_atomically(name, yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
    return config


def _grows(kept: dict[str, Any], asked: dict[str, Any], field: str) -> bool:
    """Whether a number is at least what it was, which an older version may not have written down."""
    before, now = kept.get(field), asked.get(field)
    if before is None:
        return True
    return isinstance(before, int) and isinstance(now, int) and type(before) is type(now) and before <= now
