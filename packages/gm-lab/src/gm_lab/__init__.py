"""What an experiment needs around its maths: run directory, resumable grid, launchers, tracking, figures, verdicts."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gm_lab import run, track
from gm_lab.app import main
from gm_lab.experiment import Experiment
from gm_lab.run import (
    BadInput,
    CellFailed,
    Context,
    LiveRows,
    Need,
    Row,
    RunSettings,
    cell_id,
    got,
    late,
    progressed,
    require,
    seed_of,
)  # fmt: skip
from gm_lab.track import Curves, log_diagnosis

if TYPE_CHECKING:
    from gm_lab import analysis, launch, pages, report_command
    from gm_lab.analysis import *  # noqa: F403

__all__ = [
    "BadInput", "CellFailed", "Context", "Curves", "Experiment", "LiveRows", "Need", "Row", "RunSettings",
    "analysis", "cell_id", "got", "late", "launch", "log_diagnosis", "main", "pages", "progressed", "report_command",
    "require", "run", "seed_of", "track",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports what takes its time only when it, or a name of `gm_lab.analysis`, is asked for."""
    if name in ("analysis", "launch", "pages", "report_command"):
        return import_module(f"gm_lab.{name}")
    analysis = None if name.startswith("_") else import_module("gm_lab.analysis")
    if analysis is None or name not in analysis.__all__:
        raise AttributeError(f"module 'gm_lab' has no attribute '{name}'")
    return getattr(analysis, name)
