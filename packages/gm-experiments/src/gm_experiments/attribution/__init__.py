"""Where the error of a MAML-RL meta-gradient comes from, along training: each source's share of bias and variance."""

import gm_lab
from gm_experiments.attribution import settings
from gm_experiments.attribution.settings import Settings

__all__ = ["EXPERIMENT", "Settings", "figures", "findings", "lola", "run", "settings", "sources"]

EXPERIMENT = gm_lab.Experiment.of(
    settings, "attribution", claims=lambda *_: [], prepare=gm_lab.late("gm_experiments.common.checks:prepare")
)
