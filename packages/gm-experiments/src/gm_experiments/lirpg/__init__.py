"""Bias and variance of the LIRPG meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1cd and 7)."""

import gm_lab
from gm_experiments.common.settings import COLUMNS, KEY, curves
from gm_experiments.lirpg.settings import Settings, cells

__all__ = ["EXPERIMENT", "Settings", "claims", "figures", "problem", "run", "settings"]

EXPERIMENT = gm_lab.Experiment(
    name="lirpg_tabular",
    settings=Settings,
    columns=COLUMNS,
    key=KEY,
    cells=cells,
    run_cell=gm_lab.late("gm_experiments.lirpg.run:run_cell"),
    figures=gm_lab.late("gm_experiments.lirpg.figures:figures"),
    claims=gm_lab.late("gm_experiments.lirpg.claims:claims"),
    summary=gm_lab.late("gm_experiments.lirpg.figures:summary"),
    prepare=gm_lab.late("gm_experiments.common.checks:prepare"),
    curves=(curves("inner_steps"),),
)
