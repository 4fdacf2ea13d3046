"""What W&B costs a run while its cells are computed: unreachable, slow, refusing the key, and well, beside disabled.

Every core is busy with cells, W&B starts at once instead of after 20 s, and each cell writes live rows. The order of
the modes is turned in each round. Two figures, medians over rounds: the time that the workers take from the start of
their first cell to the end of their last against that with `--wandb disabled` in the same round, which a shared machine
blurs by some percent; and the wall time of the cells over their own processor time, against the same with `--wandb
disabled`, which says how much of a core was taken from them.

The exit status is 1 if by the first figure a mode costs more than 2%. Noise: each round runs `--wandb disabled` twice.
Where the second costs more or less than the first by over 2%, the machine can't tell, and the exit status is 1, too: it
takes more rounds, or a machine that does nothing else.

    uv run benchmarks/wandb_cost.py 5
"""

import contextlib
import importlib.util
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import gm_lab
from gm_lab import tracking
from gm_lab.provenance import sessions

STAND_IN = Path(__file__).parents[1] / "packages" / "gm-lab" / "tests" / "standin.py"
CELLS, LOOPS, LIVE = 24, 60_000_000, 20
LIMIT = 0.02  # of the time that computing takes
CONTROL = "disabled again"
MODES = {
    "disabled": None,
    CONTROL: None,
    "unreachable": None,
    "slow": {"delay": 10.0},
    "refusing": {"refuse": True},
    "online": {},
}


@dataclass(frozen=True)
class Cell:
    """A fixed amount of arithmetic."""

    run_dir: str
    number: int


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """Nothing of its own."""


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """Counts, and says so now and then."""
    begun, worked = time.monotonic(), time.process_time()
    live = gm_lab.LiveRows(Path(cell.run_dir), cell, step="step")
    total = 0
    for step in range(LIVE):
        for i in range(LOOPS // LIVE):
            total += i
        live.append({"number": cell.number, "step": step, "value": float(total)})
    row: gm_lab.Row = {"number": cell.number, "step": LIVE, "value": float(total), "worker": os.getpid()}
    return [row | {"begun": begun, "ended": time.monotonic(), "cpu": time.process_time() - worked}]


EXPERIMENT = gm_lab.Experiment(
    name="wandb_cost",
    settings=Settings,
    columns=("number", "step", "value", "worker", "begun", "ended", "cpu"),
    key=("number",),
    cells=lambda settings: [Cell(str(settings.run_dir), number) for number in range(CELLS)],
    run_cell=run_cell,
    figures=lambda _settings, _frame: {},
    claims=lambda _settings, _frame: [],
    summary=lambda _settings, frame: frame.head(1),
    curves=(gm_lab.Curves(by=("number",), x="step", y=("value",)),),
)


def seconds(mode: str, path: Path) -> tuple[float, float, float]:
    """Seconds of the workers, from the last cell to the end, and the cells' wall time over their processor time."""
    spec = importlib.util.spec_from_file_location("standin", STAND_IN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answers = MODES[mode]
    with module.StandIn(**answers) if answers is not None else contextlib.nullcontext() as server:
        os.environ["WANDB_BASE_URL"] = server.url if server else "http://127.0.0.1:9"
        start = time.monotonic()
        flags = ["--run-dir", str(path), "--wandb", "disabled" if mode.startswith("disabled") else "online"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            status = gm_lab.main(EXPERIMENT, flags)
        if status:  # of a signal, too: gm-lab takes SIGINT and SIGTERM to mean that the run be ended
            print(errors.getvalue(), end="", file=sys.stderr)
            raise SystemExit(status)
        whole = time.monotonic() - start
    (computed,) = [line["seconds"] for line in sessions(path) if line["event"] == "computed"]
    cells = pd.read_csv(path / "results.csv")
    workers = cells.groupby("worker").agg(begun=("begun", "min"), ended=("ended", "max"))
    taken = (cells["ended"] - cells["begun"]).sum() / cells["cpu"].sum()
    return (workers["ended"] - workers["begun"]).sum(), whole - computed, taken


def main(argv: Sequence[str]) -> int:
    """Measures as many rounds as asked for (3) and prints a line for each mode; the exit status."""
    os.environ["WANDB_API_KEY"] = "a" * 40
    tracking.QUIET_SECONDS, tracking.FINISH_SECONDS = 0.0, 8.0
    found: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(int(argv[0]) if argv else 3):
            order = list(MODES)[round_ % len(MODES) :] + list(MODES)[: round_ % len(MODES)]
            for mode in order:
                found[mode].append(seconds(mode, Path(folder, f"{mode}{round_}")))
    slower = {}
    for mode, runs in found.items():
        computing, taken = ([a[i] / b[i] for a, b in zip(runs, found["disabled"], strict=True)] for i in (0, 2))
        slower[mode] = statistics.median(computing) - 1
        print(f"{mode}: computing x {spread(computing)}, wall over cpu x {spread(taken)}, then {middle(runs, 1):.1f} s")

    complaint = judged(slower)
    if complaint:
        print(f"wandb_cost: {complaint}", file=sys.stderr)
    return int(bool(complaint))


def judged(slower: Mapping[str, float]) -> str:
    """What is wrong with the median slow-down of each mode; empty if nothing is."""
    if abs(slower[CONTROL]) > LIMIT:
        off = f"{slower[CONTROL]:+.1%} without W&B"
        return f"expected a machine that repeats itself within {LIMIT:.0%}, got {off}; more rounds"
    above = [f"{mode} {value:+.1%}" for mode, value in slower.items() if value > LIMIT]
    return f"expected at most {LIMIT:+.0%} of computing time, got {', '.join(above)}" if above else ""


def middle(runs: Sequence[Sequence[float]], at: int) -> float:
    """The median of one number of the runs."""
    return statistics.median(run[at] for run in runs)


def spread(ratios: Sequence[float]) -> str:
    """Median and extremes."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
