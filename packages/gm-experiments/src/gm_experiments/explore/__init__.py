"""A page to touch: how biased and noisy the MAML-RL meta-gradient is, over α, K, trajectories and what is sampled."""

import gm_lab
from gm_experiments.explore import settings
from gm_experiments.explore.settings import Settings

__all__ = ["EXPERIMENT", "Settings", "figures", "page", "points", "run", "settings", "tiny"]

EXPERIMENT = gm_lab.Experiment.of(
    settings, "explore", claims=lambda *_: [], prepare=gm_lab.late("gm_experiments.common.checks:prepare")
)
