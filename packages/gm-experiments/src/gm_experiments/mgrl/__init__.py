"""MGRL is trained on Atari, with and without the LVC correction (Section 5.3, Figures 3, 9, 10).

It needs the extra `gm-experiments[atari]`.
"""

import gm_lab
from gm_experiments.mgrl import settings
from gm_experiments.mgrl.settings import Settings

__all__ = [
    "EXPERIMENT", "Settings", "claims", "figures", "findings", "run", "settings", "tables", "training", "unfinished",
]  # fmt: skip

EXPERIMENT = gm_lab.Experiment.of(
    settings,
    "mgrl_atari",
    summary=gm_lab.late("gm_experiments.mgrl.tables:summary"),
    conclusion=gm_lab.late("gm_experiments.mgrl.findings:conclusion"),
    prepare=gm_lab.late("gm_experiments.mgrl.run:prepare"),
    resumable_cells=True,
)
