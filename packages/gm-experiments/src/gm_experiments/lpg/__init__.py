"""An update rule is learnt (LPG) on random MDPs and grid worlds, and its meta-gradient is measured (Table 1, A.4)."""

import gm_lab
from gm_experiments.lpg import settings
from gm_experiments.lpg.settings import Settings

__all__ = [
    "EXPERIMENT", "Settings", "claims", "figures", "findings", "lifetimes", "problem", "run", "settings", "study",
    "training",
]  # fmt: skip

EXPERIMENT = gm_lab.Experiment.of(settings, "lpg_tabular", prepare=gm_lab.late("gm_experiments.lpg.run:prepare"))
