"""One HTML page about any runs, finished or not, that needs no account and no network; on request a W&B Report, too."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro

from gm_lab import BadInput, provenance, report
from gm_lab.settings import parsed_line
from gm_lab.store import make_folder, write_atomically

NAME = "report"


@dataclass(frozen=True)
class Settings:
    """Figures, verdicts, settings, speed and how to reproduce, of one or more runs on one page."""

    run_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories, of one app or of several."""
    out: Path | None = None
    """Where the page goes (default: report.html in the run directory; runs/report-<UTC time>.html for several)."""
    entity: str | None = None
    """With --project: also write a W&B Report for this user or team, and print its link."""
    project: str | None = None
    """The W&B project that the Report belongs to; its panels show the runs where the apps sent them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; exit status 0, or 2 with one line on stderr."""
    try:
        settings = parsed_line(Settings, NAME, argv)
        if not settings.run_dirs:
            raise BadInput("expected at least one run directory, got none")
        if (settings.entity is None) != (settings.project is None):
            raise BadInput("expected --entity and --project together, got one of them")
        if "" in (settings.entity, settings.project):
            raise BadInput("--entity, --project: expected the names of a W&B user or team and of a project, got ''")
        runs = [report.load(path) for path in settings.run_dirs]
        out = settings.out or default_out(settings.run_dirs)
        make_folder(out.parent)
        write_atomically(out, report.rendered(runs, provenance.command(argv)).encode())
        print(f"report: {out}")
        if settings.entity is not None and settings.project is not None:
            from gm_lab.wandb_report import published

            print(f"W&B Report: {published(runs, settings.entity, settings.project)}")
        return 0
    except BadInput as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2


def default_out(run_dirs: Sequence[Path]) -> Path:
    """In the run directory if there is one only."""
    if len(run_dirs) == 1:
        return run_dirs[0] / "report.html"
    return Path("runs", f"report-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.html")


if __name__ == "__main__":
    sys.exit(main())
