"""Each experiment is run in turn in this process, and one page is written about all of them."""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType

import gm_lab
from gm_experiments.common.checks import require_device
from gm_experiments.reproduce.display import Display
from gm_experiments.reproduce.settings import Settings, Stage, arguments, stages
from gm_lab import report_command
from gm_lab.run import (
    BadInput,
    Interrupted,
    allowed_to,
    make_folder,
    output,
    parse,
    parsed_line,
    receiving,
    resources,
    shown_by,
)

NAME = "reproduce"
EXPIRED = 124
INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
COLUMNS = "200"  # of the tables in output that no terminal shows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiments; status 0, 1 if one failed, 2 for bad input, 130 after Ctrl-C, 143 or 129 after a signal."""
    output.open_streams()
    try:
        settings = parsed_line(Settings, NAME, argv)
        asked = stages(settings)
        require_device(gm_lab.RunSettings(device=settings.device))
        for stage in asked:
            require_room(stage, settings)
        with receiving(_interrupted):
            failed = run_all(asked, settings)
            print(f"report: {written(asked, settings, argv)}")
        return int(failed)
    except BadInput as error:
        output.say(f"{NAME}: {error}")
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        output.say(f"{NAME}: interrupted, every finished cell is kept; the same command goes on")
        return error.status if isinstance(error, Interrupted) else 130


def require_room(stage: Stage, settings: Settings) -> None:
    """Refuses, before any is begun, an experiment that would take more than there is."""
    experiment = import_module(stage.module).EXPERIMENT
    given = parse(experiment.settings, experiment.name, arguments(stage, settings))

    def say(line: str) -> None:
        if stage.hours is None:  # else it is stopped in time
            print(f"{NAME}: {stage.name}: {line}", file=sys.stderr)

    resources.require(experiment.need, given, len(experiment.columns), say)


def _interrupted(number: int, _frame: FrameType | None) -> None:
    """Receives signals between experiments, which receive their own."""
    raise Interrupted(number)


def run_all(asked: Sequence[Stage], settings: Settings) -> bool:
    """Runs the stages and says how they ended; returns whether one failed."""
    display, lines, failed = Display(NAME, asked), [], False
    with display.visible():
        for index, stage in enumerate(asked):
            begun = time.monotonic()
            status = run(stage, settings, display, index)
            lines.append(outcome(stage, settings, status, time.monotonic() - begun))
            failed = failed or status != 0
            display.update(index, 1.0)
    print("\n".join(lines))
    return failed


def run(stage: Stage, settings: Settings, display: Display, index: int) -> int:
    """Runs an experiment, its words to a file beside its folder; returns its status, 0 if its hours are over."""
    folder, words = settings.run_dir / stage.name, words_of(stage, settings)
    make_folder(settings.run_dir)
    display.update(index, 0.0)
    with written_to(words), shown_by(partial(display.following, index)):
        try:
            status = in_this_process(stage, settings)
            if status == EXPIRED and stage.drawn_by:
                import_module(stage.drawn_by).main([str(folder), "--svg"])
        except Exception:  # as in a process of its own: the others are run all the same
            traceback.print_exc()
            status = 1
    if status in INTERRUPTED:
        display.say(last_line(words))
        raise Interrupted(status - 128)
    return 0 if status == EXPIRED else status


def in_this_process(stage: Stage, settings: Settings) -> int:
    """Runs an experiment as if its command had been typed, which the run directory also says; returns its status."""
    module = import_module(stage.module)
    own = Path(sys.argv[0]).with_name(f"{module.EXPERIMENT.name}.py")
    program = own if own.is_file() else Path(str(module.__file__)).with_name("__main__.py")
    ours, sys.argv = sys.argv, [str(program), *arguments(stage, settings)]
    try:
        return gm_lab.main(module.EXPERIMENT, sys.argv[1:], stop_after=stage.hours and 3600 * stage.hours)
    finally:
        sys.argv = ours


@contextlib.contextmanager
def written_to(file: Path) -> Iterator[None]:
    """Has what is printed written to a file, wide enough for tables."""
    with allowed_to("write", file.parent):
        words = file.open("w", buffering=1, encoding="utf-8")
    unset = "COLUMNS" not in os.environ
    os.environ.setdefault("COLUMNS", COLUMNS)
    try:
        with words, contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
            yield
    finally:
        if unset:
            del os.environ["COLUMNS"]


def words_of(stage: Stage, settings: Settings) -> Path:
    """Names the file for what a stage prints."""
    return settings.run_dir / f"{stage.name}.txt"


def last_line(words: Path) -> str:
    """Returns the last line that a stage has printed; it is empty if there is none."""
    return ["", *words.read_text(encoding="utf-8", errors="replace").strip().splitlines()][-1]


def outcome(stage: Stage, settings: Settings, status: int, seconds: float) -> str:
    """Says in a line how a stage has ended."""
    folder = settings.run_dir / stage.name
    if status:
        return f"{stage.name}: failed: {last_line(words_of(stage, settings)) or f'exit status {status}'}"
    claims = json.loads((folder / "claims.json").read_bytes()) if (folder / "claims.json").exists() else []
    held = sum(claim["verdict"] == "supported" for claim in claims)
    return f"{stage.name}: {seconds:.0f} s, {held} of {len(claims)} claims supported, {folder}"


def written(asked: Sequence[Stage], settings: Settings, argv: Sequence[str] | None) -> Path:
    """Writes the page about all stages that have begun; returns where it is."""
    folders = [settings.run_dir / stage.name for stage in asked]
    path = settings.run_dir / "report.html"
    report_command.write([folder for folder in folders if (folder / "config.yaml").exists()], path, argv)
    return path
