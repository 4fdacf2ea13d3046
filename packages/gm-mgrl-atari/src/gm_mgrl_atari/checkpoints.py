"""Checkpoints that a kill at any moment, a full disk or a foreign file can't turn into a wrong run."""

import contextlib
import hashlib
import io
import os
import pickle
import re
import reprlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

FORMAT = "gm-mgrl-atari 4"
KEPT = 2
SEAL = b"\nsha256 "
"""Behind it, at the end of a file, stands the checksum of all that is before it."""
ROOM, ROW_ROOM = 2**20, 2**10
"""Bytes that a file may have beside its tensors, and for each update that may have left a row."""
Restored = TypeVar("Restored")


class CheckpointError(ValueError):
    """A checkpoint that can't be used; the message is one line."""


def file_of(folder: Path, updates: int, prefix: str = "checkpoint") -> Path:
    """The file of a number of updates."""
    return folder / f"{prefix}-{updates:09d}.pt"


def updates_of(path: Path) -> int | None:
    """The number of updates that a file of `file_of` is named after, `None` of another file."""
    named = re.fullmatch(r"(?:checkpoint|point)-([0-9]{9,})\.pt", path.name)
    return int(named[1]) if named else None


def listed(folder: Path) -> list[Path]:
    """The checkpoints in a folder by age, the newest first."""
    found = [path for path in folder.glob("checkpoint-*.pt") if updates_of(path) is not None]
    return sorted(found, key=lambda path: updates_of(path) or 0, reverse=True)


def save(folder: Path, record: dict[str, Any], updates: int, *, prefix: str = "checkpoint") -> Path:
    """Writes a file that is, at every moment, absent or complete; of checkpoints keeps it and the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = file_of(folder, updates, prefix)
    replace(path, sealed({"format": FORMAT, **record}))
    if prefix == "checkpoint":
        for old in [file for file in listed(folder) if (updates_of(file) or 0) < updates][KEPT - 1 :]:
            old.unlink(missing_ok=True)
    return path


def sealed(record: dict[str, Any]) -> bytes:
    """A file's bytes: the record as `torch.save` writes it, which `torch.load` reads, and its checksum."""
    buffer = io.BytesIO()
    torch.save(record, buffer)
    content = buffer.getvalue()
    return content + SEAL + hashlib.sha256(content).hexdigest().encode()


def replace(path: Path, content: bytes) -> None:
    """Puts a file in its place at once; a link or a pipe that is there is replaced, not followed."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(
    path: Path, expected: dict[str, Any], restored: Callable[[dict[str, Any]], Restored], ahead: int = 0
) -> Restored:
    """What `restored` makes of a file of mere data in the form of `expected`; else `CheckpointError`. Runs no code.

    The record may be of up to `ahead` updates more than the file's name says.
    """
    try:
        record = torch.load(io.BytesIO(_content(path, expected)), weights_only=True, map_location="cpu")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except pickle.UnpicklingError as error:
        held = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{path}: expected tensors and numbers only, got {held}") from None
    except Exception as error:
        raise CheckpointError(f"{path}: expected a complete checkpoint, got {type(error).__name__}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        format_of = reprlib.repr(record.get("format")) if isinstance(record, dict) else type(record).__name__
        raise CheckpointError(f"{path}: expected format {FORMAT!r}, got {format_of}")
    try:
        if reason := difference(expected, record):
            raise CheckpointError(reason)
        made = restored(record)
        named = updates_of(path)
        if named is None or not named <= record["updates"] <= named + ahead:
            raise CheckpointError(f"updates: expected {named}, as its name says, got {record['updates']}")
        return made
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:
        held = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: expected a record of training, got {type(error).__name__}: {held}") from None


def _content(path: Path, expected: dict[str, Any]) -> bytes:
    """What a file's checksum stands for, if it is right and takes no more memory than such a record can."""
    if not path.is_file():  # opening a pipe would wait for its other end
        raise CheckpointError("expected a complete checkpoint, got no file")
    most = 2 * sum(tensor.nbytes for _, tensor in tensors(expected)) + ROOM + ROW_ROOM * expected["settings"]["updates"]
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise CheckpointError(f"expected a checkpoint of at most {most} bytes, got {size}")
        content, seal, checksum = file.read(most).rpartition(SEAL)
    if not seal:
        raise CheckpointError("expected a complete checkpoint, got one that ends without a checksum")
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        raise CheckpointError("expected a complete checkpoint, got one that is not what its checksum says")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > len(content) or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"expected a checkpoint that is not compressed, got one that unpacks to {unpacked} bytes")
    return content


def tensors(record: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of nested dictionaries with its name."""
    if isinstance(record, torch.Tensor):
        yield name, record
    elif isinstance(record, dict):
        for key, value in record.items():
            yield from tensors(value, f"{name} {key}".strip())


SAME = ("settings", "game", "seed")


def difference(expected: Any, came: Any, name: str = "") -> str | None:
    """Where a record isn't of the form of another: `SAME` are equal, tensors finite and of the same shape and type."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(came, torch.Tensor):
            return f"{name}: expected {_form(expected)}, got {type(came).__name__}"
        if _form(came) != _form(expected):
            return f"{name}: expected {_form(expected)}, got {_form(came)}"
        if came.is_floating_point() and not bool(came.isfinite().all()):
            return f"{name}: expected finite numbers, got NaN or infinity"
        return None
    if isinstance(expected, dict):
        if not isinstance(came, dict) or (missing := expected.keys() - came.keys()):
            lacking = ", ".join(sorted(missing)) if isinstance(came, dict) else "a dictionary"
            return f"{name or 'record'}: expected {lacking}, got none"
        of_tensors = all(isinstance(value, torch.Tensor) for value in expected.values())
        if of_tensors and (more := sorted(map(str, came.keys() - expected.keys()))):
            return f"{name}: expected {', '.join(expected)} alone, got {reprlib.repr(more)} as well"
        return next(
            (d for key, value in expected.items() if (d := difference(value, came[key], f"{name} {key}".strip()))), None
        )
    if name == "network" and isinstance(expected, str) and isinstance(came, str) and expected != came:
        same = next((i for i, pair in enumerate(zip(expected, came, strict=False)) if len({*pair}) > 1), len(expected))
        at = max(0, same - 40)
        return f"{name}: expected {expected[at : at + 80]!r}, got {came[at : at + 80]!r}"
    if name.startswith(SAME) and expected != came:
        return f"{name}: expected {expected!r}, got {reprlib.repr(came)}"
    if type(expected) is not type(came):
        return f"{name}: expected {type(expected).__name__}, got {type(came).__name__}"
    return None


def _form(tensor: torch.Tensor) -> str:
    notes = [] if tensor.layout == torch.strided else [f"{tensor.layout}"]
    notes += ["without data"] if tensor.is_meta else []
    return ", ".join([f"{tensor.dtype} of shape {tuple(tensor.shape)}", *notes])


def latest(
    folder: Path, expected: dict[str, Any], restored: Callable[[dict[str, Any]], Restored], warn: Callable[[str], None]
) -> Restored | None:
    """The newest checkpoint that `load` takes, newer ones being refused; `None` if there are none at all."""
    for pattern in ("checkpoint-*.tmp", "point-*.tmp", "log.csv.*.tmp"):
        for leftover in folder.glob(pattern):
            with contextlib.suppress(OSError):
                leftover.unlink()
    refused: dict[Path, CheckpointError] = {}
    for path in listed(folder):
        try:
            usable = load(path, expected, restored)
        except CheckpointError as error:
            warn(f"refused {error}; trying the one before")
            refused[path] = error
            continue
        for newer in refused:
            # so that it isn't taken for the newest again
            with contextlib.suppress(OSError):
                newer.rename(newer.with_name(f"{newer.name}.refused"))
        return usable
    if refused:
        last = list(refused.values())[-1]
        raise CheckpointError(f"no usable checkpoint in {folder}: {last}; move them away to begin anew")
    return None
