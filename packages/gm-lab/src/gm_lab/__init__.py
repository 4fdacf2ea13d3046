"""What an experiment needs around its maths: run directory, resumable grid, launchers, tracking, figures, verdicts."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gm_lab.app import main
from gm_lab.experiment import Experiment
from gm_lab.run import BadInput, CellFailed, Context, LiveRows, Row, RunSettings, cell_id, late, require, seed_of
from gm_lab.track import Curves

if TYPE_CHECKING:
    from gm_lab import analysis as analysis
    from gm_lab import report_command as report_command
    from gm_lab.analysis import Comparison as Comparison
    from gm_lab.analysis import Interval as Interval
    from gm_lab.analysis import Verdict as Verdict
    from gm_lab.analysis import above as above
    from gm_lab.analysis import alike as alike
    from gm_lab.analysis import at_least as at_least
    from gm_lab.analysis import at_most as at_most
    from gm_lab.analysis import decided as decided
    from gm_lab.analysis import every as every
    from gm_lab.analysis import greater as greater
    from gm_lab.analysis import lines as lines
    from gm_lab.analysis import mean_interval as mean_interval
    from gm_lab.analysis import paired_difference as paired_difference
    from gm_lab.analysis import panels as panels
    from gm_lab.analysis import per_unit as per_unit
    from gm_lab.analysis import shared_legend as shared_legend
    from gm_lab.analysis import similar as similar
    from gm_lab.analysis import style_of as style_of

__all__ = [
    "BadInput",
    "CellFailed",
    "Context",
    "Curves",
    "Experiment",
    "LiveRows",
    "Row",
    "RunSettings",
    "analysis",
    "cell_id",
    "late",
    "launch",
    "main",
    "report_command",
    "require",
    "run",
    "seed_of",
    "track",
]


def __getattr__(name: str) -> Any:
    """Imports `gm_lab.analysis` and `gm_lab.launch`, which take their time, when they or their names are asked for."""
    if name in ("analysis", "launch", "report_command"):
        return import_module(f"gm_lab.{name}")
    analysis = None if name.startswith("_") else import_module("gm_lab.analysis")
    if analysis is None or name not in analysis.__all__:
        raise AttributeError(f"module 'gm_lab' has no attribute '{name}'")
    return getattr(analysis, name)
