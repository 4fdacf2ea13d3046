"""What to do with a budget of trajectories: the frontier of bias and variance of a MAML-RL meta-gradient."""

import gm_lab
from gm_experiments.frontier.settings import COLUMNS, KEY, Settings, cells, curves

__all__ = ["EXPERIMENT", "Settings", "choices", "figures", "map", "problem", "run", "settings", "training"]

EXPERIMENT = gm_lab.Experiment(
    name="frontier",
    settings=Settings,
    columns=COLUMNS,
    key=KEY,
    cells=cells,
    run_cell=gm_lab.late("gm_experiments.frontier.run:run_cell"),
    figures=gm_lab.late("gm_experiments.frontier.figures:figures"),
    claims=lambda _settings, _frame: [],
    summary=gm_lab.late("gm_experiments.frontier.figures:summary"),
    prepare=gm_lab.late("gm_experiments.common.checks:prepare"),
    curves=(
        curves("updates", ("bias_sq", "variance", "mse", "accuracy"), "frontier"),
        curves("sample_size", ("bias_sq", "variance", "mse", "accuracy"), "budgets"),
        curves("updates", ("value",), "training"),
    ),
)
