"""The flags, the figures and the cells of the MAML experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import gm_lab
from gm_experiments.common import settings as common
from gm_experiments.common.settings import Cell, Grid
from gm_experiments.theory import settings as theory

POWERS = (2, 4, 8, 16, 32, 64, 128, 256)
Figure = Literal["fig1", "fig4", "fig5", "fig6", "theory"]
FIGURES: dict[str, Grid] = {
    "fig1": Grid(estimators=("lvc", "ad"), permutations=("SSE", "SEE", "ESE"), sample_sizes=POWERS),
    "fig4": Grid(sample_sizes=POWERS),
    # K = 5 as in the published script; --inner-steps 1 is the K of the paper's Table 2
    "fig5": Grid(inner_steps=(5,), inner_lrs=(1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0)),
    "fig6": Grid(inner_steps=(1, 2, 3, 4, 5, 6)),
}
KEY, COLUMNS, UNIT, BUDGET = common.KEY, common.COLUMNS, common.UNIT, common.BUDGET
AXES = {"sample_size": ("fig1", "fig4"), "inner_lr": ("fig5",), "inner_steps": ("fig6",)}
CURVES = (*(common.curves(axis, *figures) for axis, figures in AXES.items()), *theory.CURVES)


@dataclass(frozen=True)
class Settings(common.UntilDecided, common.TabularSettings):
    """How biased is the MAML-RL meta-gradient, where does the bias come from, and which estimator fixes it?

    Without a flag: Figures 1(a,b) and 4 of the paper at its full budget, the exact meta-gradient beside every estimate.
    """

    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--figure fig5 fig6": "What the step size and the number of steps do:",
        "--estimators lvc mymodule:my_estimator": "Your own estimator beside LVC, in all figures of the paper:",
        "--until-decided": "More MDPs until the claims are decided:",
    }

    figure: tuple[Figure, ...] = ("fig1", "fig4")
    """Figures to reproduce: fig1 and fig4 vary the sample size, fig5 the inner learning rate, fig6 the inner steps;
    theory sets Lemma 4.4 and Theorem 4.5 beside what they bound."""


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    needed = common.need(settings, _chosen(settings).values())
    return needed + theory.need(settings) if "theory" in settings.figure else needed


def cells(settings: Settings) -> list[Cell]:
    """One cell for each block of MDPs, K and α, whichever figures need it."""
    return [replace(cell, unused=extra_columns(settings)) for cell in common.cells(settings, _chosen(settings))]


def further_cells(settings: Settings, mdps: range, needs: frozenset[common.Need]) -> list[Cell]:
    """The cells of more MDPs, for claims that need more of some points."""
    more = common.further_cells(settings, _chosen(settings), mdps, needs, common.Tabular)
    return [replace(cell, unused=extra_columns(settings)) for cell in more]


def measured_by(settings: Settings, needs: frozenset[common.Need]) -> str:
    """With which flag claims would be measured that are about other figures."""
    asked = {figure for figure, *_ in needs} - {"fig1"}  # fig4 has all that it has
    return common.other_figures(settings.figure, [figure for figure in FIGURES if figure in asked])


def _chosen(settings: Settings) -> dict[str, Grid]:
    chosen = {name: grid for name, grid in FIGURES.items() if name in settings.figure}
    return chosen | (theory.GRIDS if "theory" in settings.figure else {})


def extra_columns(settings: Settings) -> tuple[str, ...]:
    """The columns that results.csv has for theory alone."""
    return theory.COLUMNS if "theory" in settings.figure else ()
