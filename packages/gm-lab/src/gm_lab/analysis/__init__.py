"""What is made of results.csv: statistics, claims and their verdicts, figures, tables and reports."""

from gm_lab.analysis import claims, comparisons, decisions, figures, palette, report, statistics, tables, units
from gm_lab.analysis.claims import Verdict, as_list, decided, together
from gm_lab.analysis.comparisons import (
    Comparison,
    Metric,
    above,
    alike,
    at_least,
    at_most,
    check,
    log_ratio,
    more_often,
    near,
    ratio_above,
    within,
)
from gm_lab.analysis.decisions import Judged, judge, looks, next_look
from gm_lab.analysis.diagnosis import diagnosis_figure
from gm_lab.analysis.diagnosis_page import diagnosis_page
from gm_lab.analysis.figures import (
    WIDTH,
    caption_of,
    end_label,
    entitle,
    finding_of,
    lines,
    panels,
    save,
    shared_legend,
)
from gm_lab.analysis.layout import logarithmic
from gm_lab.analysis.palette import COLOURS, MARKERS, Style, category_style, style_of, styles
from gm_lab.analysis.statistics import Interval, mean_interval, paired_difference
from gm_lab.analysis.tables import headline, read_results, summary_table
from gm_lab.analysis.units import Units, per_unit

__all__ = [
    "COLOURS", "MARKERS", "WIDTH", "Comparison", "Interval", "Judged", "Metric", "Style", "Units", "Verdict", "above",
    "alike", "as_list", "at_least", "at_most", "caption_of", "category_style", "check", "claims", "comparisons",
    "decided", "decisions", "diagnosis_figure", "diagnosis_page", "end_label", "entitle", "figures", "finding_of",
    "headline", "judge", "lines", "log_ratio", "logarithmic", "looks", "mean_interval", "more_often", "near",
    "next_look", "paired_difference", "palette", "panels", "per_unit", "ratio_above", "read_results", "report",
    "save", "shared_legend", "statistics", "style_of", "styles", "summary_table", "tables", "together", "units",
    "within",
]  # fmt: skip
