"""What W&B costs a run while its cells are computed: unreachable, slow, refusing the key, and well, beside disabled.

Every core is busy with cells, W&B starts at once instead of after 20 s, and each cell writes live rows. In each round
every mode runs beside a run of its own with `--wandb disabled`, in turn before and after it. Two figures against that
run, means with 95% intervals over rounds:

- the time that the workers take from the start of their first cell to the end of their last, which a shared machine
  blurs by some percent (the control, `disabled again`, shows by how much);
- the wall time of the cells over their own processor time: how much of a core was taken from them.

The exit status is 1 if the first shows that a mode costs more than 2%, or the second fails to show that it costs less.

    uv run benchmarks/wandb_cost.py 10        # rounds
    uv run benchmarks/wandb_cost.py 20 slow   # of these modes alone
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
from gm_lab.analysis import Interval, mean_interval
from gm_lab.run.provenance import sessions
from gm_lab.track import tracker

STAND_IN = Path(__file__).parents[1] / "packages" / "gm-lab" / "tests" / "standin.py"
CELLS, LOOPS, LIVE = 24, 60_000_000, 20
LIMIT = 0.02
BASE = "disabled"
MODES = {
    "disabled again": None,
    "unreachable": None,
    "slow": {"delay": 10.0},
    "refusing": {"refuse": True},
    "online": {},
}
Measured = tuple[float, float, float]


@dataclass(frozen=True)
class Cell:
    """A fixed amount of arithmetic."""

    run_dir: str
    number: int


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """Nothing of its own."""


def run_cell(cell: Cell, _context: gm_lab.Context) -> list[gm_lab.Row]:
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
    curves=(gm_lab.Curves(by=(), x="step", y=("value",), alone="number"),),
)


def seconds(mode: str, path: Path) -> Measured:
    """Seconds of the workers, from the last cell to the end, and the cells' wall time over their processor time."""
    spec = importlib.util.spec_from_file_location("standin", STAND_IN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answers = MODES.get(mode)
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


@dataclass(frozen=True)
class Cost:
    """What a mode costs: computing time and processor share, both as parts of those with `--wandb disabled`."""

    computing: Interval
    taken: Interval
    then: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[Measured, Measured]]) -> "Cost":
        """From a mode's runs, each with the run beside it."""
        computing, taken = (mean_interval([run[i] / base[i] - 1 for run, base in pairs]) for i in (0, 2))
        return cls(computing, taken, statistics.median(run[1] for run, _ in pairs))


def main(argv: Sequence[str]) -> int:
    """Measures rounds (3) of the modes that are asked for (all) and prints a line for each; the exit status."""
    unknown = set(argv[1:]) - set(MODES)
    if unknown or not (argv or ["3"])[0].isdecimal():
        print(f"wandb_cost: expected ROUNDS and some of {', '.join(MODES)}, got {' '.join(argv)}", file=sys.stderr)
        return 2
    os.environ["WANDB_API_KEY"] = "a" * 40
    tracker.QUIET_SECONDS, tracker.FINISH_SECONDS = 0.0, 8.0
    found: dict[str, list[tuple[Measured, Measured]]] = {mode: [] for mode in argv[1:] or MODES}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(int(argv[0]) if argv else 3):
            for mode, pairs in found.items():
                order = (mode, BASE) if round_ % 2 else (BASE, mode)
                runs = {name: seconds(name, Path(folder, f"{name}, {mode} {round_}")) for name in order}
                pairs.append((runs[mode], runs[BASE]))
    costs = {mode: Cost.of(pairs) for mode, pairs in found.items()}
    for mode, cost in costs.items():
        print(f"{mode}: computing {percent(cost.computing)}, of a core {percent(cost.taken)}, then {cost.then:.1f} s")
    complaint = judged(costs)
    if complaint:
        print(f"wandb_cost: {complaint}", file=sys.stderr)
    return int(bool(complaint))


def judged(costs: Mapping[str, Cost]) -> str:
    """What is wrong with what the modes cost; empty if nothing is."""
    slow = [f"{mode} {percent(cost.computing)}" for mode, cost in costs.items() if cost.computing.low > LIMIT]
    if slow:
        return f"expected at most {LIMIT:+.0%} of computing time, got {', '.join(slow)}"
    taken = [f"{mode} {percent(cost.taken)}" for mode, cost in costs.items() if not cost.taken.high <= LIMIT]
    return f"expected less than {LIMIT:.0%} of a core taken, got {', '.join(taken)}; more rounds?" if taken else ""


def percent(part: Interval) -> str:
    """A mean and its interval."""
    return f"{part.mean:+.1%} [{part.low:+.1%}, {part.high:+.1%}]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
