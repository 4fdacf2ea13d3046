"""Bias and variance of the MAML-RL meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1ab, 4, 5, 6)."""

import sys
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
import maml_report
import tabular

POWERS = (2, 4, 8, 16, 32, 64, 128, 256)
Figure = Literal["fig1", "fig4", "fig5", "fig6"]


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
    """Figures to reproduce; fig1 and fig4 vary the sample size, fig5 the inner learning rate, fig6 the inner steps."""


class ExactValue:
    """J(θ) of an MDP, as `gm_estimators.decompose` asks for exact objectives."""

    meta_gradient = None

    def __init__(self, mdp: gm_exact.TabularMDP, params: Tensor) -> None:
        self._evaluation = gm_exact.evaluate(mdp, params)
        self.gradient = self._evaluation.gradient

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, None]:
        """Hessian-vector products."""
        return self._evaluation.hessian_vector_product(cotangent), None


def maml_problem(cell: tabular.Cell, device: torch.device) -> estimators.TabularProblem:
    """MAML on random MDPs: φ = θ⁰ = 0, the same objective inside and outside."""
    mdps = tabular.RandomMDPs(cell, device)

    def critic(role: str, step: int, params: Tensor) -> Tensor:
        value = gm_exact.state_values(mdps.mdp, params)
        return value + mdps.critic_error(role, step, value)

    return estimators.TabularProblem(
        params=torch.zeros(mdps.shape, dtype=torch.float64, device=device),
        exact=lambda _role, params: ExactValue(mdps.mdp, params),
        rollout=mdps.rollout,
        critic=critic,
        reward=mdps.reward,
        discount=cell.tabular.discount,
        critic_for=cell.tabular.critic,
    )


def run_cell(cell: tabular.Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α."""
    problem = maml_problem(cell, torch.get_default_device())
    grids = dict(cell.grids)
    try:
        rows = estimators.measure(problem, grids, cell.mdps, inner_steps=cell.inner_steps, inner_lr=cell.inner_lr)
    except estimators.EstimatorError as error:
        raise gm_lab.BadInput(str(error)) from error
    return [row | {"algorithm": "maml"} for row in rows]


EXPERIMENT = gm_lab.Experiment(
    name="maml_tabular",
    settings=Settings,
    columns=tabular.COLUMNS,
    key=tabular.KEY,
    cells=lambda settings: tabular.cells(settings, {name: FIGURES[name] for name in settings.figure}),
    run_cell=run_cell,
    figures=lambda _settings, frame: maml_report.figures(frame),
    claims=lambda _settings, frame: maml_report.claims(frame),
    summary=lambda _settings, frame: maml_report.summary(frame),
    warm_up=tabular.warm_up,
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
