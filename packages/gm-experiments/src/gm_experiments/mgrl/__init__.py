"""MGRL is trained on Atari, with and without the LVC correction (Section 5.3, Figures 3, 9, 10).

It needs the extra `gm-experiments[atari]`.
"""

import gm_lab
from gm_experiments.mgrl.settings import COLUMNS, CURVES, KEY, Settings, cells

__all__ = ["EXPERIMENT", "Settings", "claims", "figures", "run", "settings", "tables", "unfinished"]

EXPERIMENT = gm_lab.Experiment(
    name="mgrl_atari",
    settings=Settings,
    columns=COLUMNS,
    key=KEY,
    cells=cells,
    run_cell=gm_lab.late("gm_experiments.mgrl.run:run_cell"),
    figures=gm_lab.late("gm_experiments.mgrl.figures:figures"),
    claims=gm_lab.late("gm_experiments.mgrl.claims:claims"),
    summary=gm_lab.late("gm_experiments.mgrl.tables:summary"),
    prepare=gm_lab.late("gm_experiments.mgrl.run:prepare"),
    curves=CURVES,
    resumable_cells=True,
)
