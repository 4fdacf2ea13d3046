"""Bias and variance of the MAML-RL meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1ab, 4, 5, 6)."""

import gm_lab
from gm_experiments.common.settings import COLUMNS, KEY, curves
from gm_experiments.maml.settings import Settings, cells, extra_columns
from gm_experiments.theory.settings import CURVES

__all__ = ["EXPERIMENT", "Settings", "claims", "figures", "problem", "run", "settings"]

EXPERIMENT = gm_lab.Experiment(
    name="maml_tabular",
    settings=Settings,
    columns=COLUMNS,
    key=KEY,
    cells=cells,
    run_cell=gm_lab.late("gm_experiments.maml.run:run_cell"),
    figures=gm_lab.late("gm_experiments.maml.figures:figures"),
    claims=gm_lab.late("gm_experiments.maml.claims:claims"),
    summary=gm_lab.late("gm_experiments.maml.figures:summary"),
    extra_columns=extra_columns,
    prepare=gm_lab.late("gm_experiments.common.checks:prepare"),
    curves=(
        curves("sample_size", "fig1", "fig4"),
        curves("inner_lr", "fig5"),
        curves("inner_steps", "fig6"),
        *CURVES,
    ),
)
