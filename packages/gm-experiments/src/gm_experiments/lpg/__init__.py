"""An update rule is learnt (LPG) on random MDPs and grid worlds, and its meta-gradient is measured (Table 1, A.4)."""

import gm_lab
from gm_experiments.lpg.settings import COLUMNS, CURVES, KEY, Settings, cells

__all__ = [
    "EXPERIMENT", "Settings", "claims", "figures", "lifetimes", "problem", "run", "settings", "study", "training",
]  # fmt: skip

EXPERIMENT = gm_lab.Experiment(
    name="lpg_tabular",
    settings=Settings,
    columns=COLUMNS,
    key=KEY,
    cells=cells,
    run_cell=gm_lab.late("gm_experiments.lpg.run:run_cell"),
    figures=gm_lab.late("gm_experiments.lpg.figures:figures"),
    claims=gm_lab.late("gm_experiments.lpg.claims:claims"),
    summary=gm_lab.late("gm_experiments.lpg.figures:summary"),
    prepare=gm_lab.late("gm_experiments.lpg.run:prepare"),
    curves=CURVES,
)
