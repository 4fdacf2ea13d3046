"""Kills the tabular and IPD apps at random moments, resumes them, and compares their results with undisturbed ones.

A run is started and its whole process group is killed (SIGKILL) at a moment drawn from the time that an undisturbed run
takes, up to three times in a row. After each kill a copy of its run directory is resumed until it is finished and
compared. A run that is finished before its moment counts as no kill. The table says, too, how many of the kills left
finished cells behind.

    uv run benchmarks/kill_apps.py --kills 100
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

APPS = Path(__file__).parents[1] / "apps"
BUDGETS = {
    "maml_tabular": "--mdps 10 --repeats 2 --sample-sizes 2 8 --figure fig1 fig5",
    "lirpg_tabular": "--mdps 10 --repeats 2 --sample-sizes 2 8",
    "lola_offpolicy": "--seeds 2 --updates 4 --horizon 10 --replay-capacity 1024",
}
KILLS_OF_A_RUN = 3
COMPARED = ("results.csv", "claims.json")


@dataclass
class Tally:
    """What became of an app's killed runs."""

    app: str
    kills: int = 0
    midway: int = 0
    identical: int = 0

    def __str__(self) -> str:
        return f"{self.app:<16}{self.kills:>7}{self.midway:>20}{self.identical:>11}"


def command(app: str, run_dir: Path) -> list[str]:
    """How an app is started on a small budget."""
    flags = ["--run-dir", str(run_dir), "--workers", "2", "--wandb", "disabled", *BUDGETS[app].split()]
    return [sys.executable, str(APPS / f"{app}.py"), *flags]


def results(run_dir: Path) -> list[bytes]:
    """What is compared byte for byte."""
    return [(run_dir / name).read_bytes() for name in COMPARED]


def finish(app: str, run_dir: Path) -> list[bytes]:
    """Brings a run to its end.

    Raises:
        RuntimeError: It ends with another status than 0.
    """
    process = subprocess.run(command(app, run_dir), check=False, capture_output=True, text=True)
    if process.returncode:
        said = (process.stderr.splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"{app} ended with status {process.returncode}, its last line: {said}")
    return results(run_dir)


def resumed(app: str, run_dir: Path) -> list[bytes]:
    """What a run would end with if nothing more happened to it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        if run_dir.exists():  # not if it was killed early
            shutil.copytree(run_dir, copy)
        return finish(app, copy)


def killed(app: str, run_dir: Path, seconds: float) -> bool:
    """Starts or resumes a run and kills its process group after some time; whether it was still running."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command(app, run_dir), stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        if process.wait(seconds) != 0:
            raise RuntimeError(f"{app} ended with status {process.returncode}")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
    return False


def torment(app: str, kills: int, seed: int, folder: Path) -> Tally:
    """Kills an app's runs so often in all, and compares each run's results with an undisturbed one's."""
    tally, moments = Tally(app), random.Random(f"{seed} {app}")
    begun = time.monotonic()
    expected = finish(app, folder / f"{app} undisturbed")
    duration = time.monotonic() - begun
    run_dir = folder / f"{app} killed"
    while tally.kills < kills:
        shutil.rmtree(run_dir, ignore_errors=True)
        for _ in range(min(KILLS_OF_A_RUN, kills - tally.kills)):
            if not killed(app, run_dir, moments.uniform(0, duration)):
                break
            tally.kills += 1
            tally.midway += any(run_dir.glob("cells/*.json"))
            tally.identical += resumed(app, run_dir) == expected
    return tally


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one table; the exit status is 1 if any result differs, or a run fails of itself."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs that hit a running process, over all apps")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--apps", nargs="+", choices=sorted(BUDGETS), default=sorted(BUDGETS))
    asked = parser.parse_args(argv)
    tallies = []
    print(f"{'app':<16}{'kills':>7}{'with finished cells':>20}{'identical':>11}")
    for number, app in enumerate(asked.apps):
        share = (asked.kills + number) // len(asked.apps)
        try:
            with tempfile.TemporaryDirectory() as folder:
                tallies.append(torment(app, share, asked.seed, Path(folder)))
        except RuntimeError as error:
            print(f"kill_apps: {error}", file=sys.stderr)
            return 1
        print(tallies[-1], flush=True)
    return int(any(tally.identical != tally.kills for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
