"""Everything of the paper that this machine can do: each app in turn, one progress display, one report at the end."""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Literal

from gm_lab import BadInput, interruption, provenance, report
from gm_lab.errors import Interrupted
from gm_lab.settings import parsed_line
from gm_lab.store import cannot, make_folder, write_atomically

NAME = "reproduce"
APPS = Path(__file__).parent
POLL_SECONDS = 0.2
SECONDS_TO_CLOSE = 5.0  # what an app gets to collect its results, after its own wait for its workers
LEAST = {"seed": 0, "mdps": 1, "repeats": 2, "seeds": 1, "updates": 1}
GAMES = ("Asteroids", "Qbert", "Tennis", "BeamRider", "Alien", "Assault", "DoubleDunk", "Seaquest")
PAPER = ("--games", *GAMES, "--seeds", "5", "--env-steps", "40_000_000")


@dataclass(frozen=True)
class Stage:
    """One run of one app.

    Args:
        name: Its folder.
        app: The app's file without its ending.
        flags: What it is asked for.
        weight: Its share of the whole time, for the display: about the seconds it takes on two cores.
        hours: When to stop it, None for never.
        drawn_by: What draws its figures if it is stopped.
    """

    name: str
    app: str
    flags: tuple[str, ...]
    weight: float
    hours: float | None = None
    drawn_by: str | None = None


STAGES = {
    "tabular": (
        Stage("maml", "maml_tabular", ("--figure", "fig1", "fig4", "fig5", "fig6"), 12),
        Stage("lirpg", "lirpg_tabular", (), 8),
        Stage("theory", "maml_tabular", ("--figure", "theory"), 17),
    ),
    "ipd": (Stage("lola", "lola_offpolicy", (), 110),),
    "atari": (Stage("atari", "mgrl_atari", (), 300),),
}


@dataclass(frozen=True)
class Settings:
    """Reproduces the paper: tables, figures and verdicts of every app, and one page about all of them.

    Stop it at any time: the same command goes on where it was, and nothing that is finished is computed again.
    """

    budget: str = "tabular,ipd,atari"
    """What to do, with commas between: tabular and ipd at the paper's full budget; atari for the demonstration of some
    minutes, atari=HOURS for as much of the paper's 8 games x 3 algorithms x 5 seeds as fits."""
    run_dir: Path = Path("runs/reproduce")
    """Holds one run directory for each app and the report; what is there is resumed."""
    device: str = "auto"
    """Of the Atari runs: auto, cpu, cuda or cuda:N; auto is the CPU."""
    seed: int = 0
    """Root of every random stream."""
    mdps: int | None = None
    """Instead of the paper's: random MDPs of the tabular apps."""
    repeats: int | None = None
    """Instead of the paper's: independent estimates in each MDP."""
    seeds: int | None = None
    """Instead of the paper's: independent runs of the IPD app."""
    updates: int | None = None
    """Instead of the paper's: updates of the IPD app."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases, as in the apps."""


def stages(settings: Settings) -> list[Stage]:
    """What a budget asks for.

    Raises:
        BadInput: It names something else, or a number is too small for the apps.
    """
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise BadInput(f"--{name}: expected an integer of at least {least}, got {value}")
    found: list[Stage] = []
    for part in dict.fromkeys(settings.budget.split(",")):
        name, _, hours = part.strip().partition("=")
        if name not in STAGES or (
            hours and (name != "atari" or not re.fullmatch(r"\d*\.?\d+", hours) or not float(hours))
        ):
            raise BadInput(
                f"--budget: expected some of tabular, ipd, atari and atari=HOURS, with commas between, got '{part}'"
            )
        if hours:
            found.append(Stage("atari-paper", "mgrl_atari", PAPER, 3600 * float(hours), float(hours), "mgrl_figures"))
        else:
            found += STAGES[name]
    return found


def command(stage: Stage, settings: Settings) -> list[str]:
    """The app's own command line: the same results as if it were typed."""
    tabular, ipd = stage.app in ("maml_tabular", "lirpg_tabular"), stage.app == "lola_offpolicy"
    asked = {
        "--mdps": settings.mdps if tabular else None,
        "--repeats": settings.repeats if tabular else None,
        "--seeds": settings.seeds if ipd else None,
        "--updates": settings.updates if ipd else None,
        "--device": settings.device if stage.app == "mgrl_atari" else None,
    }
    flags = [text for name, value in asked.items() if value is not None for text in (name, str(value))]
    where = ["--run-dir", str(settings.run_dir / stage.name), "--seed", str(settings.seed), "--wandb", settings.wandb]
    return [str(APPS / f"{stage.app}.py"), *stage.flags, *flags, *where]


def progress_of(folder: Path, process: int) -> float:
    """The finished part of a run that a process works on, from 0 to 1; an earlier session's end says nothing."""
    begun = [
        line for line in provenance.sessions(folder) if line["event"] == "begun" and line.get("process") == process
    ]
    if not begun:
        return 0.0
    return min(1.0, len(list((folder / "cells").glob("[!.]*.json"))) / int(begun[-1]["cells"]))


@contextlib.contextmanager
def display(found: Sequence[Stage]) -> Iterator[Callable[[int, float], None]]:
    """One progress display for all stages: a bar on a terminal, a line now and then elsewhere.

    Yields:
        A function that takes the number of the current stage and the part of it that is finished.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    total = sum(stage.weight for stage in found)
    shown = {"when": 0.0, "stage": -1, "done": -1.0}
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(NAME, total=total)

        def update(index: int, part: float) -> None:
            done = sum(stage.weight for stage in found[:index]) + part * found[index].weight
            title = f"{NAME} {index + 1}/{len(found)} {found[index].name}"
            bar.update(task, completed=done, description=title)
            now = time.monotonic()
            due = index != shown["stage"] or now - shown["when"] > 10 or done >= total > shown["done"]
            if not console.is_terminal and due:
                print(f"{title}: {100 * done / total:.0f}%", file=sys.stderr, flush=True)
                shown.update(when=now, stage=index, done=done)

        yield update


class Signals:
    """SIGINT and SIGTERM, which are the app's while one runs and raise `Interrupted` at other moments."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.passing_on = False

    @contextlib.contextmanager
    def passed_on(self) -> Iterator[None]:
        """Only collects them; raises `Interrupted` at the end if there were any."""
        self.passing_on = True
        try:
            yield
        finally:
            self.passing_on = False
        if self.received:
            raise Interrupted(self.received[-1])

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Takes one."""
        self.received.append(number)
        if not self.passing_on:
            raise Interrupted(number)


def start(command: Sequence[str], words: BinaryIO) -> "subprocess.Popen[bytes]":
    """A program in a group of its own, since we pass Ctrl-C on, which gets SIGTERM when we end in any way."""
    us = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # here: nothing is loaded after the fork

    def end_with_us() -> None:
        if prctl is not None:
            prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
            if os.getppid() != us:  # we ended before it asked
                os._exit(1)

    call = [sys.executable, *command]
    return subprocess.Popen(call, stdout=words, stderr=words, start_new_session=True, preexec_fn=end_with_us)


def follow(process: "subprocess.Popen[bytes]", signals: Signals, look: Callable[[], bool]) -> bool:
    """Waits for an app and passes signals on: to finish its cells, to stop with checkpoints; the third one kills it.

    Args:
        process: The app.
        signals: What has been received.
        look: Called several times a second; it says whether the app's time is over. Then the app is told to stop with
            checkpoints, and the first signal asks for nothing more.

    Returns:
        Whether the app was stopped since its time was over.
    """
    sent, end, over = 0, float("inf"), False
    while process.poll() is None:
        if look() and not over and not signals.received:
            process.send_signal(signal.SIGTERM)
            over = True
        if sent < len(signals.received):  # one at a time: two at once are one
            if sent or not over:
                process.send_signal(signals.received[sent])
            sent += 1
            if over or sent > 1 or signals.received[0] == signal.SIGTERM:
                end = min(end, time.monotonic() + interruption.GRACE_SECONDS + SECONDS_TO_CLOSE)
        if sent > 2 or time.monotonic() > end:
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    return over


def run(stage: Stage, settings: Settings, update: Callable[[float], None], signals: Signals) -> int:
    """Runs an app in a process of its own, whose words go to a file beside its folder; after a signal to stderr, too.

    Returns:
        Its exit status; 0 if its hours are over.

    Raises:
        Interrupted: A signal came, and the app has ended.
    """
    folder, file = settings.run_dir / stage.name, settings.run_dir / f"{stage.name}.txt"
    make_folder(settings.run_dir)
    begun = time.monotonic()
    try:
        words = file.open("wb")
    except OSError as error:
        raise cannot("write", settings.run_dir, error) from None
    with words, file.open("rb") as heard, signals.passed_on(), start(command(stage, settings), words) as process:

        def hear() -> None:
            if not signals.received:
                heard.seek(0, os.SEEK_END)
            text = heard.read()
            whole = text[: text.rfind(b"\n") + 1]
            heard.seek(len(whole) - len(text), os.SEEK_CUR)
            for line in whole.decode(errors="replace").splitlines():
                if line.startswith(f"{stage.app}: "):
                    print(line, file=sys.stderr, flush=True)

        def look() -> bool:
            hear()
            seconds = time.monotonic() - begun
            update(seconds / stage.weight if stage.hours else progress_of(folder, process.pid))
            return stage.hours is not None and seconds > 3600 * stage.hours

        try:
            stopped = follow(process, signals, look)
            hear()
        except BaseException:
            process.terminate()
            raise
        if stopped and stage.drawn_by and not signals.received:
            start([str(APPS / f"{stage.drawn_by}.py"), str(folder)], words).wait()
    return 0 if stopped else process.returncode


def outcome(stage: Stage, settings: Settings, status: int, seconds: float) -> str:
    """A line on a stage that has ended."""
    folder = settings.run_dir / stage.name
    if status:
        words = (settings.run_dir / f"{stage.name}.txt").read_text(errors="replace").strip().splitlines()
        return f"{stage.name}: failed: {words[-1] if words else f'exit status {status}'}"
    claims = json.loads((folder / "claims.json").read_text()) if (folder / "claims.json").exists() else []
    held = sum(claim["verdict"] == "holds" for claim in claims)
    return f"{stage.name}: {seconds:.0f} s, {held} of {len(claims)} claims hold, {folder}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the apps; exit status 0, 1 if an app failed, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    signals = Signals()
    try:
        settings = parsed_line(Settings, NAME, argv)
        found = stages(settings)
        failed = False
        lines = []
        with interruption.receiving(signals.receive):
            with display(found) as update:
                for index, stage in enumerate(found):
                    begun = time.monotonic()
                    status = run(stage, settings, lambda part, index=index: update(index, part), signals)  # type: ignore[misc]
                    lines.append(outcome(stage, settings, status, time.monotonic() - begun))
                    failed = failed or status != 0
                    update(index, 1.0)
            print("\n".join(lines))
            print(f"report: {written(found, settings, argv)}")
        return int(failed)
    except BadInput as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"{NAME}: interrupted, every finished cell is kept; the same command goes on", file=sys.stderr)
        return error.status if isinstance(error, Interrupted) else 130


def written(found: Sequence[Stage], settings: Settings, argv: Sequence[str] | None) -> Path:
    """Writes the page about all stages that have begun."""
    folders = [settings.run_dir / stage.name for stage in found]
    runs = [report.load(folder) for folder in folders if (folder / "config.yaml").exists()]
    path = settings.run_dir / "report.html"
    write_atomically(path, report.rendered(runs, provenance.command(argv)).encode())
    return path


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "200")  # of the tables in output that no terminal shows
    sys.exit(main())
