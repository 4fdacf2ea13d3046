"""Settings every app shares, and the command line made from a settings dataclass."""

import contextlib
import dataclasses
import io
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from gm_lab.errors import BadInput


@dataclass(frozen=True)
class RunSettings:
    """Where and how a run is executed; only `seed` has a bearing on its results."""

    run_dir: Path | None = None
    """Where results go (default: runs/<app>/<UTC time>-<id>). An unfinished run found there is resumed."""
    seed: int = 0
    """Root of every random stream."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto is the CPU. A GPU is used by one worker."""
    workers: int | None = None
    """How many cells are computed at once (default: one per usable core)."""
    launcher: Literal["local", "threads", "ray"] = "local"
    """local: one process per worker; threads: all workers in one process; ray: tasks on a Ray cluster."""
    ray_address: str | None = None
    """The Ray cluster: host:port, or auto for the one this machine is part of (default: one is started here)."""
    cpus_per_cell: float = 1.0
    """With --launcher ray: CPU cores that a cell needs."""
    gpus_per_cell: float | None = None
    """With --launcher ray: GPUs, or the part of one, that a cell needs (default: 1 with --device cuda, else 0)."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases: auto is online when logged in and reachable, else offline; disabled doesn't touch it."""


# how a run is executed, not what it computes: these may change when a run is resumed
EXECUTION_FIELDS = frozenset(field.name for field in dataclasses.fields(RunSettings)) - {"seed"}

SettingsT = TypeVar("SettingsT", bound=RunSettings)
FlagsT = TypeVar("FlagsT")


def usable_cores() -> int:
    """The number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(settings: RunSettings) -> int:
    """How many cells to compute at once: one on a GPU, because a forked process cannot use CUDA."""
    return 1 if settings.device.startswith("cuda") else settings.workers or usable_cores()


def parse(settings: type[SettingsT], app: str, argv: Sequence[str] | None = None) -> SettingsT:
    """Settings from a command line.

    Args:
        settings: A frozen dataclass derived from `RunSettings`; its attribute docstrings become the help.
        app: The app's name, for usage lines.
        argv: The arguments after the program's name; `sys.argv[1:]` if None.

    Raises:
        BadInput: The command line is not one of this app; the message names the flag, what was expected and what came.
        SystemExit: `--help` was asked for.
    """
    parsed = parsed_line(settings, app, argv)
    for field in dataclasses.fields(parsed):
        check_values(field.name, getattr(parsed, field.name))
    if parsed.seed < 0:
        raise BadInput(f"--seed: expected an integer of at least 0, got {parsed.seed}")
    if parsed.workers is not None and parsed.workers < 1:
        raise BadInput(f"--workers: expected a positive integer, got {parsed.workers}")
    require(parsed, "cpus_per_cell", "a positive number", parsed.cpus_per_cell > 0)
    require(parsed, "gpus_per_cell", "a number of at least 0", (parsed.gpus_per_cell or 0) >= 0)
    on_ray = parsed.ray_address is None or parsed.launcher == "ray"
    require(parsed, "ray_address", "--launcher ray beside it", on_ray)
    return parsed


def parsed_line(flags: type[FlagsT], program: str, argv: Sequence[str] | None = None) -> FlagsT:
    """A command line as a dataclass of flags, whatever they are; the rest is as in `parse`."""
    import tyro

    tokens = list(sys.argv[1:] if argv is None else argv)
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(flags, prog=program, args=tokens)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise BadInput(one_line(shown.getvalue(), tokens)) from None


def check_values(name: str, value: Any) -> None:
    """Refuses, for any flag, an empty list and numbers that aren't finite.

    Raises:
        BadInput: The flag has such a value.
    """
    values = value if isinstance(value, tuple) else (value,)
    flag = "--" + name.replace("_", "-")
    if not values:
        raise BadInput(f"{flag}: expected at least one value, got none")
    for item in values:
        if isinstance(item, float) and not math.isfinite(item):
            raise BadInput(f"{flag}: expected finite numbers, got {item}")


def one_line(boxed: str, tokens: Sequence[str]) -> str:
    """Tyro's framed complaint as a single line that says what was expected and what came.

    Args:
        boxed: What tyro printed: a box whose sections are separated by rules.
        tokens: The command line it was about.
    """
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row).strip("│ \t") for row in boxed.splitlines()]
    sections = re.split(r"[─-]{3,}", "\n".join(row for row in rows if not row.startswith(("╭", "╰"))))
    # where the terminal knows no Unicode there is no frame, and the title stands above a rule of hyphens
    message, *notes = sections if "╭" in boxed else sections[1:]
    message, help_rows = " ".join(message.split()), "\n".join(notes)
    if found := re.match(r"Error parsing (--\S+?)(/\S+)?: ", message):
        flag = found[1]
        kind = re.search(rf"^{flag}\S* (.+)$", help_rows, re.MULTILINE)
        return f"{flag}: expected {in_words(kind[1]) if kind else 'another value'}, got {given(flag, tokens)}"
    if found := re.match(r"invalid choice '(.*)' for argument '(--[^'/]+).*'\. Expected one of \((.*?),?\)", message):
        return f"{found[2]}: expected one of {found[3].replace(chr(39), '')}, got '{found[1]}'"
    if found := re.match(r"Missing value for argument '(--[^'/]+).*'\. Expected (\d+) value", message):
        return f"{found[1]}: expected {found[2]} value{'s' * (found[2] != '1')}, got none"
    if found := re.match(r"Unrecognized options: (.*)", message):
        known = re.search(r"Perhaps you meant:\s+(--\S+)", help_rows)
        hint = f" (did you mean {known[1]}?)" if known else ""
        return f"expected a flag that --help lists, got {found[1].replace(',', '')}{hint}"
    return message


def in_words(kind: str) -> str:
    """Tyro's name of a type, such as {None}|[INT [INT ...]], in words."""
    kind = re.sub(r"^\{None\}\|", "", kind)
    bare = re.fullmatch(r"\{?\[?(INT|FLOAT)\b.*", kind)
    if bare is None:
        return kind
    one, several = {"INT": ("an integer", "integers"), "FLOAT": ("a number", "numbers")}[bare[1]]
    return several if "..." in kind else one


def given(flag: str, tokens: Sequence[str]) -> str:
    """The values that follow the last `flag` in `tokens`, quoted."""
    values: list[str] = []
    inside = False
    for token in tokens:
        name, joined, value = token.partition("=")
        if token.startswith("--"):
            inside = name.replace("_", "-") == flag
            values = ([value] if joined else []) if inside else values
        elif inside:
            values.append(token)
    return " ".join(f"'{value}'" for value in values) or "nothing"


def require(settings: RunSettings, name: str, expected: str, holds: bool) -> None:
    """Refuses a setting that is out of range.

    Args:
        settings: The settings.
        name: The field.
        expected: What it must be, in words.
        holds: Whether it is.

    Raises:
        BadInput: It isn't; the message names the flag, what was expected and what came.
    """
    if not holds:
        raise BadInput(f"--{name.replace('_', '-')}: expected {expected}, got {getattr(settings, name)}")


def result_settings(settings: RunSettings) -> dict[str, Any]:
    """The settings that have a bearing on results, as plain values that YAML and JSON can hold."""
    return {
        field.name: plain(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if field.name not in EXECUTION_FIELDS
    }


def plain(value: Any) -> Any:
    """`value` made of None, bool, int, float, str, list and dict only."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
