"""A tiny experiment, run as a program by the tests. TOY_* variables make it slow or make it fail."""

import dataclasses
import fcntl
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import gm_lab
from gm_lab.run import interruption


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """A sum that is easy to check."""

    mdps: int = 4
    """How many problems."""
    estimators: tuple[str, ...] = ("ad", "lvc", "mine")
    """Which estimators."""
    scale: float = 1.0
    """What to multiply by."""
    until_decided: bool = False
    """Goes on until the claim is decided."""
    most_mdps: int = 160
    """At most so many problems."""


@dataclass(frozen=True)
class Cell:
    estimator: str
    mdp: int
    seed: int
    scale: float


def cells(settings):
    if settings.mdps < 1:
        raise gm_lab.BadInput(f"--mdps: expected a positive integer, got '{settings.mdps}'")
    return [
        Cell(estimator, mdp, settings.seed, settings.scale)
        for estimator in settings.estimators
        for mdp in range(settings.mdps)
    ]


def further_cells(settings, mdps, needs):
    return [Cell(name, mdp, settings.seed, settings.scale) for name in sorted(needs) for mdp in mdps]


def run_cell(cell, context):
    if "TOY_STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trace = os.environ.get("TOY_TRACE")
    try:
        if trace:
            Path(trace, f"begun {cell.estimator} {cell.mdp}").touch()
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
        while cell.estimator == os.environ.get("TOY_HELD") and not Path(os.environ["TOY_UNTIL"]).exists():
            time.sleep(0.01)
    except BaseException:
        # as a trainer writes its checkpoint, which takes a moment
        if trace:
            time.sleep(float(os.environ.get("TOY_CHECKPOINT", "0.5")))
            Path(trace, f"checkpoint {cell.estimator} {cell.mdp}").touch()
        raise
    if os.environ.get("TOY_BAD") == cell.estimator:
        raise gm_lab.BadInput(f"--estimators: expected a gradient of shape (2,), got (3,) from {cell.estimator}")
    if os.environ.get("TOY_RAISE") == cell.estimator:
        raise ZeroDivisionError("no\nway")
    if os.environ.get("TOY_KILL") == cell.estimator and killing():
        os.kill(os.getpid(), signal.SIGKILL)
    random = gm_lab.seed_of(cell.seed, cell.estimator, cell.mdp)
    return [
        {
            "estimator": cell.estimator,
            "mdp": cell.mdp,
            "size": size,
            "accuracy": cell.scale * (1 - (random % 1000 / 999 + 0.1) / size),
            "bias": float("nan") if size == 2 else 0.1 + 0.2,
        }
        for size in (2, 4, 8)
    ]


def killing():
    """Whether to die now: TOY_TIMES times, counted in the file TOY_COUNT, which other cells and processes share."""
    with Path(os.environ["TOY_COUNT"]).open("a") as count:
        fcntl.flock(count, fcntl.LOCK_EX)  # two workers may come at once
        died = count.seek(0, os.SEEK_END)
        if died < int(os.environ["TOY_TIMES"]):
            count.write("x")
            return True
    return False


def figures(settings, frame):
    figure = gm_lab.panels(["toy"])
    gm_lab.lines(figure.axes[0], frame, x="size", y="accuracy", by="estimator", over="mdp", x_scale="log2")
    gm_lab.shared_legend(figure)
    gm_lab.entitle(figure, "The larger the better", "Bands are 95% intervals.")
    return {"toy": figure}


def claims(settings, frame):
    at = {name: gm_lab.per_unit(frame, "accuracy", "mdp", estimator=name, size=8) for name in ("lvc", "ad")}
    compared = gm_lab.above("lvc > ad", at["lvc"], at["ad"], gm_lab.Metric("accuracy", 0.05, 0.1))
    return [dataclasses.replace(gm_lab.decided("TOY-1", "lvc > ad", [compared]), needs=frozenset(at))]


def summary(settings, frame):
    return frame[frame["size"] == 8].groupby("estimator", as_index=False)["accuracy"].mean()


def prepare(settings):
    # workers are forked before any thread of ours starts; those of Ray are not forked
    assert __name__ != "__main__" or "ray" in sys.modules or threading.active_count() == 1
    return gm_lab.Context(settings.run_dir)


EXPERIMENT = gm_lab.Experiment(
    name="toy",
    settings=Settings,
    columns=("estimator", "mdp", "size", "accuracy", "bias"),
    key=("estimator", "size", "mdp"),
    cells=cells,
    run_cell=run_cell,
    figures=figures,
    claims=claims,
    summary=summary,
    prepare=prepare,
    unit="mdps",
    budget=("mdps",),
    further_cells=further_cells,
    curves=(gm_lab.Curves(by=("estimator",), x="size", y=("accuracy", "bias"), over="mdp"),),
    resumable_cells="TOY_RESUMABLE" in os.environ,
)


def hold_fork(number, told, go_on):
    """Has the process that is forked as that one say so, and wait there until it is told to go on."""
    forked = []

    def wait():
        if len(forked) == number:
            Path(told).touch()
            while not Path(go_on).exists():
                time.sleep(0.01)

    os.register_at_fork(before=lambda: forked.append(1), after_in_child=wait)


if __name__ == "__main__":
    if "TOY_FORKED" in os.environ:
        hold_fork(2, os.environ["TOY_FORKED"], os.environ["TOY_FORK_ON"])
    interruption.GRACE_SECONDS = float(os.environ.get("TOY_GRACE", interruption.GRACE_SECONDS))
    sys.exit(gm_lab.main(EXPERIMENT))
