"""The flags, the figures and the cells of the LIRPG experiment."""

from dataclasses import dataclass
from typing import Literal

import gm_lab
from gm_experiments.common import settings as common
from gm_experiments.common.settings import Grid

Figure = Literal["fig1", "fig7"]
GRID = Grid(("lvc", "ad"), ("ESE",), sample_sizes=(16, 32, 64, 128, 256), inner_steps=(1, 2, 3, 4, 5))
KEY, COLUMNS, CURVES = common.KEY, common.COLUMNS, (common.curves("inner_steps"),)
UNIT, BUDGET = common.UNIT, common.BUDGET


@dataclass(frozen=True)
class Lirpg(common.Tabular):
    """The random MDPs, what is sampled in them, and what the intrinsic reward φ enters."""

    gae_lambda: float = 0.9
    """λ of the advantages; 1 gives the return to the horizon minus the critic."""
    intrinsic_critic: Literal["depends", "detached"] = "depends"
    """Whether the meta-gradient takes into account that the critic is the value of the reward with φ."""


@dataclass(frozen=True)
class Settings(common.UntilDecided, Lirpg, common.TabularSettings):
    """How biased is the meta-gradient of a learned intrinsic reward (LIRPG), and does more than one step do it harm?

    Without a flag: Figures 1(c,d) and 7 of the paper at its full budget. Inner and outer gradient are exact, Jacobian
    and Hessian are sampled; --permutations SSS samples all three.
    """

    figure: tuple[Figure, ...] = ("fig1", "fig7")
    """Figures to reproduce: fig1 shows the accuracy, fig7 the variance, over inner steps and sample sizes."""


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    return common.need(settings, [GRID for _ in settings.figure])


def cells(settings: Settings) -> list[common.Cell]:
    """One cell for each block of MDPs, K and α."""
    gm_lab.require(settings, "gae_lambda", "0 ≤ λ ≤ 1", 0 <= settings.gae_lambda <= 1)
    return common.cells(settings, dict.fromkeys(settings.figure, GRID), Lirpg)


def further_cells(settings: Settings, mdps: range, needs: frozenset[common.Need]) -> list[common.Cell]:
    """The cells of more MDPs, for claims that need more of some points."""
    return common.further_cells(settings, dict.fromkeys(settings.figure, GRID), mdps, needs, Lirpg)
