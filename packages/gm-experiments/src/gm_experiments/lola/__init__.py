"""What ails LOLA-DiCE in iterated matrix games, and what replay does for it (paper, Section 5.2)."""

from importlib import import_module
from typing import TYPE_CHECKING

import gm_lab
from gm_experiments.lola import settings
from gm_experiments.lola.settings import Arm, Game, Settings

if TYPE_CHECKING:
    from gm_experiments.lola.learner import Learner
    from gm_experiments.lola.measurements import measurements_of

__all__ = [
    "EXPERIMENT", "Arm", "Game", "Learner", "Settings", "arena", "blocks", "claims", "figures", "findings", "learner",
    "measurements", "measurements_of", "objectives", "problem", "run", "settings",
]  # fmt: skip

EXPERIMENT = gm_lab.Experiment.of(settings, "lola_offpolicy", prepare=gm_lab.late("gm_experiments.lola.run:prepare"))


_LATE = {"Learner": "gm_experiments.lola.learner", "measurements_of": "gm_experiments.lola.measurements"}


def __getattr__(name: str) -> object:
    """Imports what needs torch when it is asked for."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
