"""What a GPU does for this project, in at most eight minutes: `uv run benchmarks/gpu.py --device cuda --out gpu`.

In this order: do the packages' tests pass on it, and does it compute what the CPU computes; how much faster are MAML's
Figure 4, LOLA and exact solutions; what could the learner of MGRL gain from CUDA graphs, bfloat16 and compilation;
emulator, learner and whole on Atari; then, with what time is left, training. Whenever something is known,
`figures.json` and `page.md` hold all that is, so that a machine that is taken away loses nothing. A step that fails or
takes longer than its time says so, and the next one begins.
"""

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from on_gpu import agreement, atari, exact, learner
from on_gpu.machine import Machine, Over, Rows, machine
from on_gpu.page import page

Figures = dict[str, dict[str, Any]]


class Step(NamedTuple):
    """What is measured, and the seconds that it may take."""

    rows: Callable[[Machine], Rows]
    seconds: float


STEPS: dict[str, Step] = {
    "machine": Step(machine, 10),
    "tests": Step(agreement.tests, 50),
    "agreement": Step(agreement.agreement, 20),
    "apps": Step(exact.apps, 100),
    "lola": Step(exact.lola, 15),
    "exact": Step(exact.exact, 25),
    "learner": Step(learner.learner, 60),
    "compiled": Step(learner.compiled, 40),
    "atari": Step(atari.atari, 100),
    "training": Step(atari.training, 480),
}
LEAST = 1.0
"""Seconds with which it is worth to begin a step."""


@contextlib.contextmanager
def ending_after(seconds: float) -> Iterator[None]:
    """Raises `Over` in the block, wherever it is, once the seconds are over."""

    def ended(_number: int, _frame: FrameType | None) -> None:
        raise Over(f"its {seconds:.0f} s are over")

    before = signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, should somebody catch it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(name: str, at: Machine, seconds: float, figures: Figures, write: Callable[[], None]) -> bool:
    """Takes one step and keeps what it finds as soon as it is known; says whether all went well."""
    found, begin, fine = figures.setdefault(name, {}), time.perf_counter(), True
    at.end = begin + seconds
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        with ending_after(seconds):
            for label, row in STEPS[name].rows(at):
                found[label] = row
                write()
    except Over as error:
        found["left out"] = str(error)
    except Exception as error:  # the next step may still answer
        found["failed"], fine = f"{type(error).__name__}: {error}", False
    found["seconds"] = time.perf_counter() - begin
    write()
    print(f"{name}: {found['seconds']:.0f} s", file=sys.stderr, flush=True)
    return fine


def device_of(name: str) -> str:
    """A device that is there."""
    if name != "cpu" and not (name.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        raise argparse.ArgumentTypeError(f"expected cpu, or cuda where there is a GPU, got {name!r}")
    return name


def main(argv: list[str] | None = None) -> int:
    """Runs the steps until the time is up; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=device_of, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    every = list(STEPS)
    parser.add_argument("--steps", nargs="+", choices=every, default=every, metavar="STEP", help=", ".join(every))
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds that all steps take together at most")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    given = parser.parse_args(argv)
    at, end, fine = Machine(given.device, given.seconds, given.small), time.perf_counter() + given.limit, True
    figures: Figures = {}
    given.out.mkdir(parents=True, exist_ok=True)

    def write() -> None:
        (given.out / "figures.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False))
        (given.out / "page.md").write_text(page(figures, {name: step.rows for name, step in STEPS.items()}))

    for name in given.steps:
        left = end - time.perf_counter()
        if left < LEAST:
            figures[name] = {"left out": "the time was up"}
            write()
        else:
            fine = measure(name, at, min(left, STEPS[name].seconds), figures, write) and fine
    print((given.out / "page.md").read_text())
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
