"""MGRL is trained on MinAtar's five games, with and without the LVC correction (Section 5.3, at a laptop's scale).

It needs the extra `gm-experiments[minatar]`.
"""

import gm_lab
from gm_experiments.mgrl_minatar import settings
from gm_experiments.mgrl_minatar.settings import Settings

__all__ = ["EXPERIMENT", "Settings", "claims", "figures", "findings", "problem", "run", "scores", "settings", "tables"]

EXPERIMENT = gm_lab.Experiment.of(
    settings,
    "mgrl_minatar",
    summary=gm_lab.late("gm_experiments.mgrl_minatar.tables:summary"),
    prepare=gm_lab.late("gm_experiments.mgrl_minatar.run:prepare"),
    resumable_cells=True,
)
