"""MGRL where its meta-parameter matters: the discount of bsuite's discounting chain (Bonnet et al. 2022)."""

import gm_lab
from gm_experiments.mgrl_chain import settings
from gm_experiments.mgrl_chain.settings import Settings

__all__ = ["EXPERIMENT", "Settings", "claims", "figures", "findings", "learner", "problem", "run", "settings"]

EXPERIMENT = gm_lab.Experiment.of(settings, "mgrl_chain", prepare=gm_lab.late("gm_experiments.mgrl_chain.run:prepare"))
