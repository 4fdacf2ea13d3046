"""A file that holds what a diagnosis has so far, so that a kill loses nothing that was finished."""

import contextlib
import hashlib
import io
import os
import pickle
import re
import textwrap
import time
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.diagnose.loop import kept, seed_of
from gm_estimators.diagnose.measured import Sampled
from gm_estimators.diagnose.plan import Plan
from gm_estimators.diagnose.repeat import Repeat
from gm_estimators.diagnose.sources import IDEAL, along, config_of, sources_of
from gm_estimators.parameters import Params, as_dict

FORMAT = "gm-estimators diagnosis 1"
"""To be raised when the same seed gives other numbers, or a file has other parts."""
PART = 20
"""Writing takes at most one part in so many of the time, but for the last time."""
CLOSE = 1e-3
"""Relative difference that the same estimate may have on another machine."""
SHOWN = 60
"""Characters of a description that a message shows."""


@dataclass(frozen=True)
class Done:
    """The rounds that are finished.

    Attributes:
        rounds: how often every lane had a repeat.
        env_steps: environment steps of all.
        latest: environment steps of the last round.
        seconds: what all took.
        sampled: the meta-gradients of every repeat.
    """

    rounds: int
    env_steps: int
    latest: int
    seconds: float
    sampled: Sampled


class Keep:
    """The file of one plan."""

    def __init__(self, path: str | Path, plan: Plan) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"keep: expected the path of a file, got {path!r}")
        self.path, self._plan = Path(path).resolve(), plan
        self._loop, self._proof = described(plan), proof(plan)
        self._last: Done | None = None
        self._written, self._took = -float("inf"), 0.0

    def read(self) -> Done | None:
        """What the file holds; `None` if there is none.

        Raises:
            ValueError: if it is of another loop, or no complete file of a diagnosis.
            OSError: if it can't be read.
        """
        if not self.path.exists():
            return None
        try:
            if not (self.path.is_file() or self.path.is_dir()):  # opening a pipe would wait for its other end
                raise OSError("it is no file")
            content = self.path.read_bytes()
        except OSError as error:
            raise OSError(f"keep: cannot read {self.path}: {error.strerror or error}") from None
        record = self._record(content)
        self._require_same(record)
        try:
            return self._done(record)
        except (KeyError, TypeError, ValueError):
            raise self._foreign("other parts in it") from None

    def write(self, done: Done, *, now: bool = False) -> None:
        """Puts the rounds into the file unless that was just done, warning where that fails; `now` whatever was."""
        begin = time.monotonic()
        if done is self._last or (not now and begin - self._written < PART * self._took):
            return
        sampled, configs = done.sampled, self._plan.configs
        buffer = io.BytesIO()
        torch.save({
            "format": FORMAT, "loop": self._loop, "proof": self._proof, "rounds": done.rounds,
            "env_steps": done.env_steps, "latest": done.latest, "seconds": done.seconds,
            "reference": sampled.reference, "coarser": sampled.coarser,
            "estimates": [sampled.estimates[config] for config in configs],
            "variances": [sampled.variances[config] for config in configs if config.composition],
        }, buffer)  # fmt: skip
        try:
            self._replace(buffer.getbuffer())
            self._last = done
        except OSError as error:
            warnings.warn(str(error), stacklevel=2)
        self._written = time.monotonic()
        self._took = self._written - begin

    def require_writable(self) -> None:
        """Raises `OSError` if the file could not be written."""
        self._replace(None)

    def _replace(self, content: memoryview | None) -> None:
        """Puts the file in its place at once, so that it is always absent, old or complete; `None` leaves it."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content or b"")
                file.flush()
                os.fsync(file.fileno())
            if content is not None:
                temporary.replace(self.path)
        except OSError as error:
            raise OSError(f"keep: cannot write {self.path}: {error.strerror or error}") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _record(self, content: bytes) -> dict[str, Any]:
        """What was saved, if not a byte of it is another."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                damaged = archive.testzip()
            record = None if damaged else torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError):
            record = None
        if record is None:
            raise self._foreign("one that is damaged or something else")
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise self._foreign("another format")
        return record

    def _require_same(self, record: Mapping[str, Any]) -> None:
        there = record.get("loop")
        for name, here in self._loop.items():
            found = there.get(name) if isinstance(there, dict) else None
            if found != here:
                said, came = (textwrap.shorten(str(x), SHOWN, placeholder=" …") for x in (here, found))
                raise self._foreign(f"{name} {came} in it and {said} here")
        seen = record.get("proof")
        if not (isinstance(seen, Tensor) and seen.shape == self._proof.shape and alike(seen, self._proof)):
            raise self._foreign("one whose draw, see, surrogate or optimiser gave another meta-gradient by this seed")

    def _done(self, record: Mapping[str, Any]) -> Done:
        """Raises `KeyError`, `TypeError` or `ValueError` if it is not made of the parts that `write` writes."""
        configs = self._plan.configs
        sampled = Sampled(
            record["reference"], record["coarser"], dict(zip(configs, record["estimates"], strict=True)),
            dict(zip([config for config in configs if config.composition], record["variances"], strict=True)),
        )  # fmt: skip
        rounds = int(record["rounds"])
        repeats = rounds * (self._plan.loop.lanes or 1)
        vectors = [sampled.reference, sampled.coarser, *sampled.estimates.values()]
        if {len(x) for x in (*vectors, *sampled.variances.values())} != {repeats}:
            raise ValueError
        if {x.shape for x in vectors} != {(repeats, self._proof.shape[-1])}:
            raise ValueError
        return Done(rounds, int(record["env_steps"]), int(record["latest"]), float(record["seconds"]), sampled)

    def _foreign(self, came: str) -> ValueError:
        return ValueError(
            f"keep: expected the file of this diagnosis, got {came}: {self.path}; name another or move it away"
        )


def described(plan: Plan) -> dict[str, str]:
    """What a loop is, as far as it can be told without running it, by the names of `diagnose`'s arguments."""
    loop = plan.loop
    alone = replace(loop, lanes=None, tasks=None)  # with θ⁰ once, which may be a function of φ
    told: dict[str, object] = {
        "params": _digest(alone.start(alone.phi)), "meta_params":
        None if loop.meta_params is None else _digest(loop.meta_params),
        "sizes": loop.sizes, "surrogate": ", ".join(each.name for each in plan.estimators),
        "inner_steps": loop.inner_steps, "optimiser": loop.update, "gae_lambda": loop.gae_lambda, "tasks": loop.tasks,
        "ideals": ", ".join(loop.ideals) or None, "estimand": "adapted" if loop.adapted else "exact",
        "batch_of": loop.batch_of, "lanes": loop.lanes, "blocks": plan.blocks, "seed": plan.seed,
    }  # fmt: skip
    # where a function lies in memory is no part of it
    return {name: re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(x).split())) for name, x in told.items()}


def proof(plan: Plan) -> Float[Tensor, "config size"]:
    """One estimate by each estimator and an ideal one, in the first lane, which tell loops of other functions apart."""
    loop, repeat = plan.loop, Repeat(plan.loop, seed_of(plan.seed, "proof"))
    configs = [config_of(loop, each, sources_of(loop, each)) for each in plan.estimators]
    if not loop.adapted:
        configs.append(config_of(loop, IDEAL, ()))
    return torch.stack([kept(along(repeat, config, (0,)))[0] for config in configs])


def alike(one: Float[Tensor, "config size"], other: Float[Tensor, "config size"]) -> bool:
    """Whether these are the same estimates but for rounding."""
    return bool(((one - other).norm(dim=-1) <= CLOSE * other.norm(dim=-1)).all())


def _digest(params: Params) -> str:
    """How many numbers there are, and which, in eight characters."""
    digest, named = hashlib.blake2b(digest_size=4), as_dict(params)
    for name, x in named.items():
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return f"of {sum(x.numel() for x in named.values())} numbers ({digest.hexdigest()})"
