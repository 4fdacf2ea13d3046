"""What is made of results.csv: statistics, claims and their verdicts, figures, tables and reports."""

from gm_lab.analysis import claims, figures, report, statistics, tables, units
from gm_lab.analysis.claims import (
    Comparison,
    Verdict,
    above,
    alike,
    as_table,
    at_least,
    at_most,
    decided,
    every,
    judged,
    within,
)
from gm_lab.analysis.figures import COLOURS, MARKERS, Style, lines, panels, save, shared_legend, style_of, styles
from gm_lab.analysis.statistics import Interval, greater, mean_interval, paired_difference, similar
from gm_lab.analysis.tables import headline, read_results, summary_table
from gm_lab.analysis.units import Units, per_unit

__all__ = [
    "COLOURS", "MARKERS", "Comparison", "Interval", "Style", "Units", "Verdict", "above", "alike", "as_table",
    "at_least", "at_most", "claims", "decided", "every", "figures", "greater", "headline", "judged", "lines",
    "mean_interval", "paired_difference", "panels", "per_unit", "read_results", "report", "save",
    "shared_legend", "similar", "statistics", "style_of", "styles", "summary_table", "tables", "units", "within",
]  # fmt: skip
