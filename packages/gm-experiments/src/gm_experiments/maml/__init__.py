"""Bias and variance of the MAML-RL meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1ab, 4, 5, 6)."""

import gm_lab
from gm_experiments.maml import settings
from gm_experiments.maml.settings import Settings

__all__ = [
    "EXPERIMENT", "Settings", "claims", "conclusion", "estimator_pictures", "figures", "findings", "problem", "run",
    "settings",
]  # fmt: skip

EXPERIMENT = gm_lab.Experiment.of(
    settings,
    "maml_tabular",
    prepare=gm_lab.late("gm_experiments.common.checks:prepare"),
    conclusion=gm_lab.late("gm_experiments.maml.conclusion:conclusion"),
)
