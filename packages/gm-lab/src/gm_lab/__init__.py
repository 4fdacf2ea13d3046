"""What an experiment needs around its maths: run directory, resumable grid, launchers, tracking, figures, verdicts."""

from gm_lab.app import main
from gm_lab.cells import Row, cell_id, seed_of
from gm_lab.claims import Verdict, every
from gm_lab.comparisons import Comparison, above, alike, at_least, at_most, decided
from gm_lab.context import Context
from gm_lab.curves import Curves
from gm_lab.errors import BadInput, CellFailed
from gm_lab.experiment import Experiment
from gm_lab.figures import lines, panels, shared_legend, style_of
from gm_lab.late import late
from gm_lab.live import LiveRows
from gm_lab.settings import RunSettings, require
from gm_lab.statistics import Interval, greater, mean_interval, paired_difference, per_unit, similar

__all__ = [
    "BadInput",
    "CellFailed",
    "Comparison",
    "Context",
    "Curves",
    "Experiment",
    "Interval",
    "LiveRows",
    "Row",
    "RunSettings",
    "Verdict",
    "above",
    "alike",
    "at_least",
    "at_most",
    "cell_id",
    "decided",
    "every",
    "greater",
    "late",
    "lines",
    "main",
    "mean_interval",
    "paired_difference",
    "panels",
    "per_unit",
    "require",
    "seed_of",
    "shared_legend",
    "similar",
    "style_of",
]
