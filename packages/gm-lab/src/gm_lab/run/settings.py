"""Settings every app shares, and the command line made from a settings dataclass."""

import contextlib
import dataclasses
import io
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gm_lab.run.errors import BadInput
from gm_lab.run.machine import working_directory
from gm_lab.run.output import home_path
from gm_lab.run.typed import program as typed_here


@dataclass(frozen=True)
class RunSettings:
    """Where and how a run is executed; only `seed` has a bearing on its results."""

    GROUPED: ClassVar[Mapping[str, str]] = {
        "how much": "seed",
        "where": "run_dir svg wandb wandb_project wandb_entity wandb_group",
        "machine": "device workers launcher ray_address cpus_per_cell gpus_per_cell",
    }
    """Under what the help has a flag that is not about what is computed."""
    EXAMPLES: ClassVar[Mapping[str, str]] = {}
    """Flags that are worth a try, with what they do."""

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
    wandb_project: str | None = None
    """The W&B project (default: WANDB_PROJECT, or the app's name)."""
    wandb_entity: str | None = None
    """The W&B user or team (default: WANDB_ENTITY, or the one of the account)."""
    wandb_group: str | None = None
    """The group of the runs in W&B (default: WANDB_RUN_GROUP, or one of this run)."""
    svg: bool = False
    """Writes the figures as SVG, too."""


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
    """Returns settings from a command line, whose attribute docstrings are the help; raises BadInput or SystemExit."""
    parsed = parsed_line(settings, app, argv)
    for name, value in vars(parsed).items():
        values = value if isinstance(value, tuple) else (value,)
        if not values:
            raise BadInput(f"{flag_of(name)}: expected at least one value, got none")
        for item in values:
            if isinstance(item, float) and not math.isfinite(item):
                raise BadInput(f"{flag_of(name)}: expected finite numbers, got {item}")
    require(parsed, "seed", "an integer of at least 0", parsed.seed >= 0)
    require(parsed, "workers", "a positive integer", parsed.workers is None or parsed.workers > 0)
    require(parsed, "cpus_per_cell", "a positive number", parsed.cpus_per_cell > 0)
    require(parsed, "gpus_per_cell", "a number of at least 0", (parsed.gpus_per_cell or 0) >= 0)
    for name in ("wandb_project", "wandb_entity", "wandb_group"):
        require(parsed, name, "a name", getattr(parsed, name) != "")
    on_ray = parsed.ray_address is None or parsed.launcher == "ray"
    require(parsed, "ray_address", "--launcher ray beside it", on_ray)
    return parsed


def parsed_line(flags: type[FlagsT], program: str, argv: Sequence[str] | None = None) -> FlagsT:
    """A command line as a dataclass of flags, those without a default by position; the rest is as in `parse`."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & {*tokens}:
        from gm_lab.run.help import help_of

        print(help_of(flags, typed_here()), end="")
        raise SystemExit(0)
    import tyro

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its complaint is a box of several lines
            parsed = tyro.cli(flags, prog=program, args=tokens, config=(tyro.conf.PositionalRequiredArgs,))
            working_directory()  # so that nothing relative fails later
            return at_home(parsed)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
    raise BadInput(refusal(flags, tokens))


def at_home(flags: FlagsT) -> FlagsT:
    """The same flags with ~ spelled out in their paths."""
    paths: dict[str, Any] = {}
    for name, value in vars(flags).items():
        if isinstance(value, Path):
            paths[name] = home_path(value)
        elif isinstance(value, tuple) and any(isinstance(item, Path) for item in value):
            paths[name] = tuple(map(home_path, value))
    return dataclasses.replace(flags, **paths)  # type: ignore[type-var]


def refusal(flags: type[Any], tokens: Sequence[str]) -> str:
    """Says what is wrong with a command line that tyro refuses, by the types of the flags."""
    known = [field.name for field in dataclasses.fields(flags)]
    hints, noted = get_type_hints(flags), get_type_hints(flags, include_extras=True)
    kinds = {flag_of(name): hints[name] for name in known}
    for name, kind in ((name, noted[name]) for name in known):
        notes = getattr(kind, "__metadata__", ())
        kinds |= {alias: kinds[flag_of(name)] for note in notes for alias in getattr(note, "aliases", None) or ()}
    kinds |= {flag.replace("--", "--no-", 1): bool for flag, kind in kinds.items() if kind is bool}
    given: list[tuple[str, list[str]]] = [("", [])]
    for token in tokens:
        if token.startswith("--"):
            name, joined, value = token.partition("=")
            given.append((name, [value] if joined else []))
        else:
            given[-1][1].append(token)
    stray = given[0][1]
    for name, values in given[1:]:
        flag = flag_of(name.removeprefix("--"))
        if flag not in kinds:
            return f"expected a flag that --help lists, got {' '.join([name, *values])}{_meant(flag, kinds)}"
        if complaint := mismatch(kinds[flag], values):
            return f"{flag}: {complaint}"
    return f"expected a flag that --help lists, got {' '.join(stray or tokens)}"


def mismatch(kind: Any, values: Sequence[str]) -> str:
    """Says what a flag of some type expects and what came instead; empty if the values are of that type."""
    if get_origin(kind) in (Union, UnionType):
        if list(values) == ["None"]:
            return ""
        kind = next(option for option in get_args(kind) if option is not NoneType)
    several = get_origin(kind) is tuple
    item = get_args(kind)[0] if several else kind
    least, most = (0, len(values)) if several else (0, 0) if kind is bool else (1, 1)
    quoted = " ".join(f"'{value}'" for value in values) or "none"
    if not least <= len(values) <= most:
        return f"expected {most or 'no'} value, got {quoted}"
    if get_origin(item) is Literal:
        choices = [str(choice) for choice in get_args(item)]
        unknown = [value for value in values if value not in choices]
        return f"expected one of {', '.join(choices)}, {got(unknown[0], choices)}" if unknown else ""
    words = {int: ("an integer", "integers"), float: ("a number", "numbers")}.get(item)
    if words is not None:
        try:
            for value in values:
                item(value)
        except ValueError:
            return f"expected {words[several]}, got {quoted}"
    return ""


def got(given: str, known: Iterable[str]) -> str:
    """Says what came instead of one of the known words, and which of them may have been meant.

    Examples:
        >>> from gm_lab import got
        >>> got("lcv", ("ad", "dice", "lvc"))
        "got 'lcv' (did you mean lvc?)"
        >>> got("mine", ("ad", "dice", "lvc"))
        "got 'mine'"
    """
    return f"got '{given}'{_meant(given, known)}"


def _meant(given: str, known: Iterable[str]) -> str:
    lower = {word.lower(): word for word in reversed(list(known))}
    close = get_close_matches(given.lower(), lower, 1)
    return f" (did you mean {lower[close[0]]}?)" if close else ""


def flag_of(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def require(settings: RunSettings, name: str, expected: str, holds: bool) -> None:
    """Refuses a setting unless it `holds`; raises BadInput with the flag, what was expected in words, and what came."""
    if not holds:
        raise BadInput(f"{flag_of(name)}: expected {expected}, got {getattr(settings, name)}")


def result_settings(settings: RunSettings) -> dict[str, Any]:
    """The settings that have a bearing on results, as plain values that YAML and JSON can hold."""
    return {name: plain(value) for name, value in vars(settings).items() if name not in EXECUTION_FIELDS}


def plain(value: Any) -> Any:
    """`value` made of None, bool, int, float, str, list and dict only.

    Examples:
        >>> from pathlib import Path
        >>> from gm_lab.run import plain
        >>> plain({"sizes": (2, 4), "out": Path("runs")})
        {'sizes': [2, 4], 'out': 'runs'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
