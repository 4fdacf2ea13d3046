"""Checkpoints that a kill at any moment, a full disk or a foreign file can't turn into a wrong run."""

import contextlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FORMAT = "gm-mgrl-atari 2"
KEPT = 2


class CheckpointError(ValueError):
    """A checkpoint that can't be used; the message is one line."""


def file_of(folder: Path, updates: int, prefix: str = "checkpoint") -> Path:
    """The file of a number of updates; names sort by age."""
    return folder / f"{prefix}-{updates:09d}.pt"


def save(folder: Path, record: dict[str, Any], updates: int, *, prefix: str = "checkpoint") -> Path:
    """Writes a checkpoint that is, at every moment, either absent or complete, and keeps the last two.

    Args:
        folder: where; created if absent.
        record: tensors, numbers, text, and lists and dictionaries of these.
        updates: names the file.
        prefix: names its kind; only checkpoints are ever removed.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = file_of(folder, updates, prefix)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **record}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if prefix == "checkpoint":
        for old in sorted(folder.glob("checkpoint-*.pt"))[:-KEPT]:
            old.unlink(missing_ok=True)
    return path


def load(path: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Reads a checkpoint without running any code that it may contain.

    Args:
        path: the file.
        expected: a record of the same run at its beginning, whose settings and tensors' shapes it must have.

    Raises:
        CheckpointError: it is truncated, of another kind, of other settings, or holds more than data.
    """
    try:
        record = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        held = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{path}: expected tensors and numbers only, got {held}") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: expected a complete checkpoint, got {type(error).__name__}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise CheckpointError(f"{path}: expected format {FORMAT!r}, got {found!r}")
    if reason := difference(expected, record):
        raise CheckpointError(f"{path}: {reason}")
    return record


def difference(expected: Any, found: Any, name: str = "") -> str | None:
    """Where a record isn't of the form of another: settings are equal, tensors finite and of the same shape and type.

    Args:
        expected: the form.
        found: what came.
        name: of this part, for the message.

    Returns:
        What was expected and what came, or `None`.
    """
    if isinstance(expected, torch.Tensor):
        want = f"{expected.dtype} of shape {tuple(expected.shape)}"
        if not isinstance(found, torch.Tensor):
            return f"{name}: expected {want}, got {type(found).__name__}"
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return f"{name}: expected {want}, got {found.dtype} of shape {tuple(found.shape)}"
        if found.is_floating_point() and not bool(found.isfinite().all()):
            return f"{name}: expected finite numbers, got NaN or infinity"
        return None
    if isinstance(expected, dict):
        if not isinstance(found, dict) or (missing := expected.keys() - found.keys()):
            lacking = ", ".join(sorted(missing)) if isinstance(found, dict) else "a dictionary"
            return f"{name or 'record'}: expected {lacking}, got none"
        return next(
            (d for key, value in expected.items() if (d := difference(value, found[key], f"{name} {key}".strip()))),
            None,
        )
    if name.startswith("settings") and expected != found:
        return f"{name}: expected {expected!r}, got {found!r}"
    if type(expected) is not type(found):
        return f"{name}: expected {type(expected).__name__}, got {type(found).__name__}"
    return None


def latest(folder: Path, expected: dict[str, Any], warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint that can be used, or `None` if there is none at all.

    Args:
        folder: where to look.
        expected: as in `load`.
        warn: shows why a newer one was refused.

    Raises:
        CheckpointError: there are some, and none can be used.
    """
    for leftover in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()
    refused = None
    for path in sorted(folder.glob("checkpoint-*.pt"), reverse=True):
        try:
            return load(path, expected)
        except CheckpointError as error:
            warn(f"refused {error}; going on with the one before")
            refused = error
    if refused is not None:
        raise CheckpointError(f"no usable checkpoint in {folder}: {refused}; move them away to begin anew")
    return None
