"""Bias and variance of the MAML-RL meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1ab, 4, 5, 6)."""

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
import maml_report
import tabular
import theory
import theory_report

if TYPE_CHECKING:
    import pandas as pd

POWERS = (2, 4, 8, 16, 32, 64, 128, 256)
Figure = Literal["fig1", "fig4", "fig5", "fig6", "theory"]


FIGURES: dict[str, estimators.Grid] = {
    "fig1": estimators.Grid(estimators=("lvc", "ad"), permutations=("SSE", "SEE", "ESE"), sample_sizes=POWERS),
    "fig4": estimators.Grid(sample_sizes=POWERS),
    "fig5": estimators.Grid(inner_lrs=(1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0)),
    "fig6": estimators.Grid(inner_steps=(1, 2, 3, 4, 5, 6)),
}


@dataclass(frozen=True)
class Settings(tabular.TabularSettings):
    """How biased is the MAML-RL meta-gradient, where does the bias come from, and which estimator fixes it?

    Without a flag: Figures 1(a,b) and 4 of the paper at its full budget, the exact meta-gradient beside every estimate.
    """

    figure: tuple[Figure, ...] = ("fig1", "fig4")
    """Figures to reproduce: fig1 and fig4 vary the sample size, fig5 the inner learning rate, fig6 the inner steps;
    theory sets Lemma 4.4 and Theorem 4.5 beside what they bound."""


class ExactValue(estimators.ExactObjective):
    """J(θ) of an MDP, as `gm_estimators.decompose` asks for exact objectives."""

    def __init__(self, mdp: gm_exact.TabularMDP, params: Tensor) -> None:
        super().__init__(gm_exact.evaluate(mdp, params))


def maml_problem(cell: tabular.Cell, mdps: tabular.RandomMDPs) -> estimators.TabularProblem:
    """MAML on random MDPs: φ = θ⁰ = 0, the same objective inside and outside."""

    def critic(role: str, step: int, params: Tensor) -> Tensor:
        value = gm_exact.state_values(mdps.mdp, params)
        return value + mdps.critic_error(role, step, value)

    return estimators.TabularProblem(
        params=torch.zeros(mdps.shape, dtype=torch.float64, device=mdps.reward.device),
        exact=lambda _role, params: ExactValue(mdps.mdp, params),
        rollout=mdps.rollout,
        critic=critic,
        reward=mdps.reward,
        discount=cell.tabular.discount,
        critic_for=cell.tabular.critic,
    )


def cells(settings: Settings) -> list[tabular.Cell]:
    """One cell for each block of MDPs, K and α, whichever figures need it."""
    chosen: dict[str, estimators.Grid] = {name: grid for name, grid in FIGURES.items() if name in settings.figure}
    if "theory" not in settings.figure:
        return tabular.cells(settings, chosen)
    return [replace(cell, unused=theory.COLUMNS) for cell in tabular.cells(settings, chosen | theory.GRIDS)]


def run_cell(cell: tabular.Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α."""
    mdps = tabular.RandomMDPs(cell, torch.get_default_device())
    problem = maml_problem(cell, mdps)
    figures = replace(cell, grids=tuple((name, grid) for name, grid in cell.grids if name in FIGURES))
    rows = tabular.measured(problem, figures, "maml") if figures.grids else []
    return rows + theory.rows(cell, mdps, problem)


def claims(settings: Settings, frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """The verdicts on what the chosen figures are about."""
    paper = [] if settings.figure == ("theory",) else maml_report.claims(frame)
    return [*paper, *(theory_report.claims(frame) if "theory" in settings.figure else [])]


def summary(settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Mean accuracies, or how tight the bounds are if these are all that was measured."""
    if settings.figure == ("theory",):
        return theory_report.summary(frame)
    return maml_report.summary(frame[frame["figure"].isin(set(FIGURES))])


EXPERIMENT = gm_lab.Experiment(
    name="maml_tabular",
    settings=Settings,
    columns=tabular.COLUMNS,
    key=tabular.KEY,
    cells=cells,
    run_cell=run_cell,
    figures=lambda _settings, frame: maml_report.figures(frame) | theory_report.figures(frame),
    claims=claims,
    summary=summary,
    extra_columns=lambda settings: theory.COLUMNS if "theory" in settings.figure else (),
    warm_up=tabular.warm_up,
    curves=(
        tabular.curves("sample_size", "fig1", "fig4"),
        tabular.curves("inner_lr", "fig5"),
        tabular.curves("inner_steps", "fig6"),
        *theory.CURVES,
    ),
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
