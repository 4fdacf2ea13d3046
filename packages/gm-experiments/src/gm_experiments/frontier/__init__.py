"""What to do with a budget of trajectories: the frontier of bias and variance of a MAML-RL meta-gradient."""

import gm_lab
from gm_experiments.frontier import settings
from gm_experiments.frontier.settings import Settings

__all__ = ["EXPERIMENT", "Settings", "choices", "figures", "findings", "problem", "run", "settings"]

EXPERIMENT = gm_lab.Experiment.of(
    settings, "frontier", claims=lambda *_: [], prepare=gm_lab.late("gm_experiments.common.checks:prepare")
)
