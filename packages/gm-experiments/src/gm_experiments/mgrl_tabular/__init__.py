"""MGRL in tabular MDPs, whose meta-gradient is exact: how biased AD, LVC and Loaded-DiCE are there, and by what."""

import gm_lab
from gm_experiments.mgrl_tabular import settings
from gm_experiments.mgrl_tabular.settings import Settings

__all__ = ["EXPERIMENT", "Settings", "claims", "figures", "findings", "problem", "run", "settings", "sources"]

EXPERIMENT = gm_lab.Experiment.of(settings, "mgrl_tabular", prepare=gm_lab.late("gm_experiments.common.checks:prepare"))
