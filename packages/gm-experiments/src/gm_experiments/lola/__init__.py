"""What ails LOLA-DiCE in iterated matrix games, and what replay does for it (paper, Section 5.2)."""

from importlib import import_module
from typing import TYPE_CHECKING

import gm_lab
from gm_experiments.lola.settings import COLUMNS, KEY, MEASURED, Arm, Game, Settings, cells, extra_columns

if TYPE_CHECKING:
    from gm_experiments.lola.learner import Learner
    from gm_experiments.lola.measurements import measurements_of

__all__ = [
    "EXPERIMENT", "Arm", "Game", "Learner", "Settings", "arena", "blocks", "claims", "figures", "learner",
    "measurements", "measurements_of", "objectives", "problem", "run", "settings",
]  # fmt: skip

EXPERIMENT = gm_lab.Experiment(
    name="lola_offpolicy",
    settings=Settings,
    columns=COLUMNS,
    key=KEY,
    cells=cells,
    run_cell=gm_lab.late("gm_experiments.lola.run:run_cell"),
    figures=gm_lab.late("gm_experiments.lola.figures:figures"),
    claims=gm_lab.late("gm_experiments.lola.claims:claims"),
    extra_columns=extra_columns,
    summary=gm_lab.late("gm_experiments.lola.figures:summary"),
    prepare=gm_lab.late("gm_experiments.lola.run:prepare"),
    curves=(gm_lab.Curves(by=("figure", "curve", "seed"), x="update", y=MEASURED),),
)


_LATE = {"Learner": "gm_experiments.lola.learner", "measurements_of": "gm_experiments.lola.measurements"}


def __getattr__(name: str) -> object:
    """Imports what needs torch when it is asked for."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
