"""The flags, the grid and the cells of the explorer."""

from dataclasses import dataclass

import gm_lab
from gm_experiments.common import settings as common
from gm_experiments.common.settings import Cell, Grid

NAME = "explore"
GRID = Grid(
    sample_sizes=(2, 4, 8, 16, 32, 64, 128, 256),
    inner_steps=(1, 2, 3, 4, 5),
    inner_lrs=(1.0, 2.0, 5.0, 10.0, 20.0, 30.0),
)
"""What the sliders go over: every combination is measured."""
AXES = ("inner_lr", "inner_steps", "sample_size")
KEY, COLUMNS, UNIT = common.KEY, common.COLUMNS, common.UNIT


@dataclass(frozen=True)
class Settings(common.TabularSettings):
    """What happens to a meta-gradient when α, K, the trajectories or what is exact change? One page answers by hand.

    Without a flag: MAML on random MDPs as in the paper, 4 estimators with each part sampled or exact, on a grid of
    6 α, 5 K and 8 numbers of trajectories. The page is explorer.html in the run directory and needs nothing else.
    """


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    return common.need(settings, [GRID])


def cells(settings: Settings) -> list[Cell]:
    """One cell for each block of MDPs, K and α."""
    return common.cells(settings, {NAME: GRID})
