"""Where results come from: the command, the code's version and the machine, a line for each session on a run."""

import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gm_lab.run import reading
from gm_lab.run.machine import working_directory
from gm_lab.run.output import quoted
from gm_lab.run.settings import RunSettings, usable_cores
from gm_lab.run.store import append
from gm_lab.run.typed import near, program

SESSIONS = "sessions.jsonl"
# what readers rely on in a line, by its event
FIELDS: dict[str, dict[str, Any]] = {
    "begun": {"command": str, "versions": dict, "machine": dict, "launcher": str},
    "computed": {"computed": int, "cells": int, "seconds": int | float, "time": str},
}
# and what may be absent
OPTIONAL: dict[str, Any] = {"cells": int, "folder": str, "git_commit": str, "untracked": list, "curves": list,
                            "foreword": list}  # fmt: skip


def command(argv: Sequence[str] | None = None) -> str:
    """Returns what to type here to run this program again, with PYTHONPATH, where one's own estimator may be."""
    arguments = sys.argv[1:] if argv is None else argv
    path = os.environ.get("PYTHONPATH")
    return " ".join([*([f"PYTHONPATH={quoted(path)}"] if path else []), program(), *map(quoted, arguments)])


def report_command(run_dir: Path) -> str:
    """Returns what to type here for a page about a run: the program beside this one, or else the module."""
    beside = Path(sys.argv[0]).resolve().with_name("report.py")
    module = [str(near(Path(sys.executable or "python"))), "-m", "gm_lab.report_command"]
    start = ["uv", "run", str(near(beside))] if beside.is_file() else module
    return " ".join(map(quoted, [*start, str(near(run_dir))]))


def code_version(folder: Path) -> dict[str, str | bool]:
    """The Git commit of a folder, and whether tracked files were changed since; empty where there is none."""
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        return {"git_commit": commit, "git_changed": bool(_git(folder, "status", "--porcelain", "-uno").strip())}
    except (OSError, subprocess.SubprocessError):
        return {}


def versions() -> dict[str, str]:
    """What the results are computed with: Python, NumPy, and those packages among the usual ones that are loaded."""
    from importlib.metadata import PackageNotFoundError, version

    numbers = {"python": sys.version.split()[0]}
    for package in ("torch", "numpy", *sorted(name for name in sys.modules if name.startswith("gm_"))):
        if (package in sys.modules or package == "numpy") and "." not in package:
            with contextlib.suppress(PackageNotFoundError):
                numbers[package.replace("_", "-")] = version(package.replace("_", "-"))
    return numbers


def imported_from(folders: Sequence[Path]) -> dict[str, Path]:
    """The files of the loaded modules that were found in these folders rather than installed, by module."""
    files = {}
    for folder in folders:
        with contextlib.suppress(OSError):  # PYTHONPATH may name what there isn't
            tops = {entry.stem for entry in folder.iterdir()}
            for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
                # a few modules name a file that there isn't, and what is installed below a folder has another name
                file = Path(getattr(sys.modules[name], "__file__", None) or "none").resolve()
                place = folder.joinpath(*name.split("."))
                if file in (place.with_name(f"{place.name}.py"), place / "__init__.py") and file.is_file():
                    files[name] = file
    return files


def untracked() -> list[str]:
    """Names of the running script and the modules beside it, in the current folder and in PYTHONPATH that Git lacks."""
    script = Path(sys.argv[0]).resolve()
    paths = [Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    files = {script.stem: script} if script.suffix == ".py" else {}
    files |= imported_from([script.parent, Path.cwd(), *paths])
    files = {name: file for name, file in files.items() if "site-packages" not in file.parts}
    tracked: set[Path] = set()
    for folder in {file.parent for file in files.values()}:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            tracked |= {folder / name for name in _git(folder, "ls-files", "-z", "--", "*.py").split("\0")}
    return sorted(name for name, file in files.items() if file not in tracked)


def _git(folder: Path, *arguments: str) -> str:
    call = ["git", "-C", str(folder), *arguments]
    return subprocess.run(call, check=True, capture_output=True, text=True, timeout=5).stdout


def machine(device: str = "cpu") -> dict[str, str | int | float]:
    """The processor, usable cores, memory in GiB, system, and the GPU if one was asked for."""
    about: dict[str, str | int | float] = {"processor": _processor(), "cores": usable_cores()}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        about["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    about["system"] = f"{platform.system()} {platform.machine()}"
    if device.startswith("cuda"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            call = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            names = subprocess.run(call, check=True, capture_output=True, text=True, timeout=10).stdout.splitlines()
            about["gpu"] = names[int(device.partition(":")[2] or 0)] if names else device
    return about


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def begun(
    run_dir: Path, argv: Sequence[str] | None, settings: RunSettings, cells: int, curves: Sequence[Mapping[str, Any]],
    foreword: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Writes down that a session begins on a run of so many cells, and returns what W&B should know of it."""
    origin = {
        "command": command(argv), "folder": str(working_directory()),
        **code_version(Path(sys.argv[0]).resolve().parent),
        "untracked": untracked(), "versions": versions(), "machine": machine(settings.device),
    }  # fmt: skip
    how = {"process": os.getpid(), "cells": cells, "workers": settings.workers, "launcher": settings.launcher}
    record(run_dir, event="begun", **how, **origin, curves=curves, foreword=list(foreword))
    return origin


@contextlib.contextmanager
def timed(run_dir: Path, cells: Sequence[Any]) -> Iterator[Callable[[], object]]:
    """Writes down how many cells were computed in how many seconds, whatever ends it; yields what to call for each.

    There may be more cells at the end than at the beginning.
    """
    start = time.monotonic()
    computed = itertools.count()
    try:
        yield lambda: next(computed)
    finally:
        seconds = round(time.monotonic() - start, 3)
        record(run_dir, event="computed", computed=next(computed), cells=len(cells), seconds=seconds)


def record(run_dir: Path, **values: Any) -> None:
    """Appends a line to sessions.jsonl as well as the file system lets us: it has no bearing on results."""
    line = {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **values}
    append(run_dir / SESSIONS, json.dumps(line, ensure_ascii=False))


def sessions(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of sessions.jsonl that are whole."""
    lines: list[bytes] = []
    with contextlib.suppress(OSError, reading.Unreadable):
        lines = reading.read_bytes(run_dir / SESSIONS).splitlines()
    records = []
    for line in lines:
        with contextlib.suppress(ValueError):
            values = reading.parsed_json(line)
            if isinstance(values, dict):
                needed = FIELDS.get(str(values.get("event")), {})
                kinds = needed | {name: kind for name, kind in OPTIONAL.items() if name in values}
                if all(isinstance(values.get(name), kind) for name, kind in kinds.items()):
                    records.append(values)
    return records
