"""Whether the device computes what the CPU computes: the packages' own tests, and results side by side."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from on_gpu import learner, problems
from on_gpu.machine import CPU, Machine, Rows

PACKAGES = Path(__file__).parents[2] / "packages"
TESTED = ("gm-envs-ipd", "gm-exact")
"""Packages whose tests run on every device that there is; the others' results are compared in `agreement`."""
WINDOWS = {0: "first meta-gradient of MGRL", 20: "meta-gradient of MGRL after 20 updates"}


def tests(at: Machine) -> Rows:
    """The packages' tests on this kind of device, by name, as pytest sums them up."""
    for package in TESTED[:1] if at.small else TESTED:
        command = [sys.executable, "-m", "pytest", str(PACKAGES / package / "tests"), "-q", "-k", at.device.type]
        options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "--no-header"]
        ended = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=PACKAGES.parent)
        said = (ended.stdout or ended.stderr).strip().splitlines() or ["nothing was said"]
        yield package, said[-1]
        if ended.returncode:
            first = next((line for line in said if line.startswith(("E  ", "ERROR", "FAILED"))), "")
            raise RuntimeError(f"{package}: pytest ended with {ended.returncode}: {said[-1]} {first}".rstrip())


def agreement(at: Machine) -> Rows:
    """Largest difference from the CPU, relative to the largest number, in float64 where no other format is named.

    Adam's first steps divide by the gradient's size, so that MGRL's first window answers to the last digits; after 20
    updates it does so less. The last rows have how far a window moves on the CPU alone when θ is rounded to TF32,
    torch's default in convolutions on a GPU.
    """
    functions: dict[str, Callable[[torch.device], torch.Tensor]] = {
        "exact policy gradient": problems.policy_gradient,
        "exact Hessian": problems.hessian,
        "exact meta-gradient of MAML": lambda on: problems.maml(10, on),
        "exact meta-gradient of LOLA": lambda on: problems.lola(10, on),
        "meta-gradient of LOLA-DiCE": lambda on: problems.lola_dice(2, on, trajectories=16),
        "rollouts of the prisoner's dilemma": lambda on: problems.played(100, on).double(),
        "rollouts of random MDPs": lambda on: problems.travelled(100, on).double(),
    }
    for updates, name in WINDOWS.items():
        functions |= {name: mgrl(updates, dtype=torch.float64), f"{name}, float32": mgrl(updates, tf32=False)}
        functions |= {f"{name}, TF32": mgrl(updates, tf32=True)}
    functions |= {
        f"gradient of {name}": problems.surrogate_gradient(name) for name in ("ad", "dice", "loaded_dice", "lvc")
    }
    for name, function in functions.items():
        yield name, _difference(function(CPU), function(at.device).cpu())
    for updates, name in WINDOWS.items():
        exactly, roughly = mgrl(updates, tf32=False)(CPU), mgrl(updates, tf32=False, rounded=True)(CPU)
        yield f"{name}, CPU, θ as TF32", _difference(exactly, roughly)


def mgrl(updates: int, tf32: bool = False, **others: Any) -> Callable[[torch.device], torch.Tensor]:
    """The meta-gradient through three updates after some, with a small network."""
    return lambda on: with_tf32(tf32, learner.window(on, hidden=64, updates=updates, **others)).double()


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max())


def with_tf32(allowed: bool, work: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `work` gives with or without TensorFloat-32 in convolutions."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, allowed
    try:
        return work()
    finally:
        torch.backends.cudnn.allow_tf32 = before
