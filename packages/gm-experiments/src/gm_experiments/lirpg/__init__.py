"""Bias and variance of the LIRPG meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1cd and 7)."""

import gm_lab
from gm_experiments.lirpg import settings
from gm_experiments.lirpg.settings import Settings

__all__ = [
    "EXPERIMENT",
    "Settings",
    "claims",
    "entropy",
    "figures",
    "findings",
    "own_claims",
    "problem",
    "run",
    "settings",
]

EXPERIMENT = gm_lab.Experiment.of(
    settings, "lirpg_tabular", prepare=gm_lab.late("gm_experiments.common.checks:prepare")
)
