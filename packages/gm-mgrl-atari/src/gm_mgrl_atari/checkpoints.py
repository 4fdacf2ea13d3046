"""Checkpoints that a kill at any moment, a full disk or a foreign file can't turn into a wrong run."""

import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

FORMAT = "gm-mgrl-atari 3"
KEPT = 2
Restored = TypeVar("Restored")


class CheckpointError(ValueError):
    """A checkpoint that can't be used; the message is one line."""


def file_of(folder: Path, updates: int, prefix: str = "checkpoint") -> Path:
    """The file of a number of updates; names sort by age."""
    return folder / f"{prefix}-{updates:09d}.pt"


def save(folder: Path, record: dict[str, Any], updates: int, *, prefix: str = "checkpoint") -> Path:
    """Writes a file that is, at every moment, absent or complete; of checkpoints keeps it and the one before."""
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
        for old in sorted(file for file in folder.glob("checkpoint-*.pt") if file < path)[: 1 - KEPT]:
            old.unlink(missing_ok=True)
    return path


def load(path: Path, expected: dict[str, Any], restored: Callable[[dict[str, Any]], Restored]) -> Restored:
    """What `restored` makes of a file of mere data in the form of `expected`; else `CheckpointError`. Runs no code."""
    try:
        record = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        held = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{path}: expected tensors and numbers only, got {held}") from None
    except Exception as error:
        raise CheckpointError(f"{path}: expected a complete checkpoint, got {type(error).__name__}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        format_of = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise CheckpointError(f"{path}: expected format {FORMAT!r}, got {format_of!r}")
    try:
        if reason := difference(expected, record):
            raise CheckpointError(reason)
        return restored(record)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:
        held = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: expected a record of training, got {type(error).__name__}: {held}") from None


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
        return next(
            (d for key, value in expected.items() if (d := difference(value, came[key], f"{name} {key}".strip()))), None
        )
    if name.startswith(SAME) and expected != came:
        return f"{name}: expected {expected!r}, got {came!r}"
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
    for leftover in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()
    refused: dict[Path, CheckpointError] = {}
    for path in sorted(folder.glob("checkpoint-*.pt"), reverse=True):
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
