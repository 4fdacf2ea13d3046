"""The flags, the figures and the cells of the LIRPG experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import gm_lab
from gm_experiments.common import settings as common
from gm_experiments.common.settings import Grid

Figure = Literal["fig1", "fig7", "entropy"]
GRID = Grid(("lvc", "ad"), ("ESE",), sample_sizes=(16, 32, 64, 128, 256), inner_steps=(1, 2, 3, 4, 5))
FIGURES: dict[str, Grid] = {
    "fig1": GRID, "fig7": GRID,
    "entropy": replace(GRID, estimators=("loaded_dice", "lvc"), sample_sizes=(256,)),
}  # fmt: skip
EXTRA = ("entropy", "expected_accuracy", "expected_bias")
"""What results.csv has for entropy behind the columns of all tabular apps: of the exact path, and of infinitely many
trajectories; empty for other figures, other permutations and estimators whose expectation is no formula here."""
LOW = 0.9
"""An accuracy below this is called low."""
KEY, COLUMNS = common.KEY, common.COLUMNS
_CURVES = common.curves("inner_steps", "fig1", "fig7")
CURVES = (_CURVES, replace(_CURVES, y=(*_CURVES.y, *EXTRA), figures=("entropy",)))
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

    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--figure fig1 --permutations SSS": "Everything sampled, as in practice:",
        "--figure entropy --mdps 200": "When not to use LVC, MDP by MDP:",
    }

    figure: tuple[Figure, ...] = ("fig1", "fig7")
    """Figures to reproduce: fig1 shows the accuracy, fig7 the variance, over inner steps and sample sizes; entropy sets
    the bias that infinitely many trajectories leave beside how deterministic the policies of the exact path are."""


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    return common.need(settings, [FIGURES[name] for name in settings.figure])


def cells(settings: Settings) -> list[common.Cell]:
    """One cell for each block of MDPs, K and α."""
    gm_lab.require(settings, "gae_lambda", "0 ≤ λ ≤ 1", 0 <= settings.gae_lambda <= 1)
    if "entropy" in settings.figure:
        _require_expectation(settings)
    return _with_columns(settings, common.cells(settings, _chosen(settings), Lirpg))


def further_cells(settings: Settings, mdps: range, needs: frozenset[common.Need]) -> list[common.Cell]:
    """The cells of more MDPs, for claims that need more of some points."""
    return _with_columns(settings, common.further_cells(settings, _chosen(settings), mdps, needs, Lirpg))


def _chosen(settings: Settings) -> dict[str, Grid]:
    return {name: FIGURES[name] for name in settings.figure}


def _with_columns(settings: Settings, cells: list[common.Cell]) -> list[common.Cell]:
    return [replace(cell, unused=extra_columns(settings)) for cell in cells]


def _require_expectation(settings: Settings) -> None:
    """Refuses what the formulas of the expectation are not about."""
    for name, expected, holds in (
        ("critic", "paper or all", settings.critic != "none"),
        ("intrinsic_critic", "depends", settings.intrinsic_critic == "depends"),
        ("actions", "at least 2", settings.actions >= 2),
    ):
        gm_lab.require(settings, name, f"{expected} with --figure entropy", holds)


def extra_columns(settings: Settings) -> tuple[str, ...]:
    """The columns that results.csv has for entropy alone."""
    return EXTRA if "entropy" in settings.figure else ()
