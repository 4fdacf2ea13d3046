"""The command that writes one HTML page about any runs, and on request a W&B Report, too."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gm_lab.run import BadInput, make_folder, output, parsed_line, provenance, write_atomically

if TYPE_CHECKING:
    from gm_lab.analysis.report import Run

__all__ = ["Settings", "main", "write"]

NAME = "report"


@dataclass(frozen=True)
class Settings:
    """Figures, verdicts, settings, speed and how to reproduce, of one or more runs on one page."""

    GROUPED: ClassVar[Mapping[str, str]] = {"where": "out entity project"}
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "runs/maml_tabular/* --out runs/maml.html": "All runs of an app on one page:",
        "--table runs/decided/maml runs/paper/maml": "The verdicts of two runs as a Markdown table:",
    }

    run_dirs: tuple[Path, ...]
    """Run directories, of one app or of several."""
    out: Path | None = None
    """Where the page goes (default: report.html in the run directory; runs/report-<UTC time>.html for several)."""
    table: bool = False
    """Prints the verdicts as a Markdown table instead: those of the first run with what was measured, and beside them
    those of the others."""
    entity: str | None = None
    """With --project: also write a W&B Report for this user or team (default: WANDB_ENTITY), and print its link."""
    project: str | None = None
    """The W&B project of the Report (default: WANDB_PROJECT); its panels show the runs where the apps sent them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; exit status 0, or 2 with one line on stderr."""
    output.open_streams()
    try:
        settings = parsed_line(Settings, NAME, argv)
        if not settings.run_dirs:
            raise BadInput("expected at least one run directory, got none")
        entity = settings.entity if settings.project is None else settings.entity or os.environ.get("WANDB_ENTITY")
        project = settings.project if settings.entity is None else settings.project or os.environ.get("WANDB_PROJECT")
        if (entity is None) != (project is None):
            raise BadInput("expected --entity and --project together, got one of them")
        if "" in (settings.entity, settings.project):
            raise BadInput("--entity, --project: expected the names of a W&B user or team and of a project, got ''")
        if settings.table:
            from gm_lab.analysis import report

            print(report.verdict_table([report.load(path) for path in settings.run_dirs]), end="")
            return 0
        out = settings.out or default_out(settings.run_dirs)
        if _is_something_else(out):
            raise BadInput(f"--out: expected a new file or a page to write over, got {out}, which is something else")
        runs = write(settings.run_dirs, out, argv)
        print(f"report: {out}")
        if entity is not None and project is not None:
            from gm_lab.track.wandb_report import published

            print(f"W&B Report: {published(runs, entity, project)}")
        return 0
    except BadInput as error:
        output.say(f"{NAME}: {error}")
        return 2


def _is_something_else(out: Path) -> bool:
    """Whether a file is there, of a run for example, that is neither empty nor a page."""
    try:
        if out.is_symlink() or not out.is_file():
            return False  # which `write_atomically` refuses
        with out.open("rb") as file:
            return file.read(15).lower() not in (b"", b"<!doctype html>")
    except OSError:
        return False


def write(run_dirs: Sequence[Path], out: Path, argv: Sequence[str] | None = None) -> "list[Run]":
    """Writes the page about some runs, which shows the command, and returns them; raises BadInput if one is none."""
    from gm_lab.analysis import report

    runs = [report.load(path) for path in run_dirs]
    make_folder(out.parent)
    write_atomically(out, output.encoded(report.rendered(runs, provenance.command(argv))))
    return runs


def default_out(run_dirs: Sequence[Path]) -> Path:
    """Returns a place in the run directory if there is one only."""
    if len(run_dirs) == 1:
        return run_dirs[0] / "report.html"
    return Path("runs", f"report-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.html")


if __name__ == "__main__":
    sys.exit(main())
