"""Where the error of a LOLA meta-gradient comes from, along training: each source's share of bias and variance."""

import gm_lab
from gm_experiments.attribution.lola.settings import KEY, Settings, cells, need
from gm_experiments.attribution.sources import METRICS, curves

__all__ = ["EXPERIMENT", "Settings"]

EXPERIMENT = gm_lab.Experiment(
    name="lola_attribution", settings=Settings, columns=(*KEY, *METRICS), key=KEY, cells=cells,
    run_cell=gm_lab.late("gm_experiments.attribution.lola.run:run_cell"),
    figures=gm_lab.late("gm_experiments.attribution.figures:figures"), claims=lambda _settings, _frame: [],
    summary=gm_lab.late("gm_experiments.attribution.figures:summary"),
    prepare=gm_lab.late("gm_experiments.lola.run:prepare"), need=need, curves=(curves("seed"),),
)  # fmt: skip
