"""Exact solutions, sampled LOLA and MAML's Figure 4 on the device beside the CPU."""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd

from on_gpu import problems
from on_gpu.machine import Machine, Rows

ROOT = Path(__file__).parents[2]


def apps(at: Machine) -> Rows:
    """Seconds of whole processes with one worker, on the CPU's cores and on the device, and how far results differ."""
    for count in (2,) if at.small else (10, 200):
        flags = ["--figure", "fig4", "--mdps", str(count), "--wandb", "disabled", "--workers", "1"]
        with tempfile.TemporaryDirectory() as folder:
            seconds: list[float] = []
            results: list[pd.DataFrame] = []
            for device in ("cpu", str(at.device)):
                run = Path(folder) / f"{len(results)}"
                begin = time.perf_counter()
                app("maml_tabular", *flags, "--device", device, "--run-dir", str(run))
                seconds.append(time.perf_counter() - begin)
                results.append(pd.read_csv(run / "results.csv").select_dtypes("number"))
        apart = ((results[0] - results[1]).abs().max() / results[0].abs().max()).max()
        factor = seconds[0] / seconds[1]
        found = {"cpu": seconds[0], "device": seconds[1], "factor": factor, "difference": float(apart)}
        yield f"MAML Figure 4, {count} MDPs", found


def app(name: str, *flags: str) -> None:
    """An app as its users run it; raises `RuntimeError` with its last line unless it ends well."""
    command = [sys.executable, str(ROOT / "apps" / f"{name}.py"), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{name} ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-1]}")


def lola(at: Machine) -> Rows:
    """Meta-gradients of LOLA-DiCE a second, rollouts included: both players of some seeds at once, 128 trajectories."""
    for seeds in (2,) if at.small else (10, 100):
        work = partial(problems.lola_dice, seeds, trajectories=4 if at.small else 128)
        yield f"LOLA-DiCE, {seeds} seeds at once", at.beside_the_cpu(work, times=seeds)


def exact(at: Machine) -> Rows:
    """Exact solutions a second, on the CPU's cores and on the device, by the number that is solved at once."""
    known = {"MAML meta-gradient, K = 3": problems.maml, "LOLA meta-gradient, K = 3": problems.lola}
    for name, function in known.items():
        for size in (1, 10) if at.small else (10, 1_000, 5_000):
            yield f"{name}, {size} at once", at.beside_the_cpu(partial(function, size), times=size)
