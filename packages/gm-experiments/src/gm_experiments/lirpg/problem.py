"""Bias and variance of the LIRPG meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1cd and 7)."""

import sys
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
import lirpg_report
import tabular

Figure = Literal["fig1", "fig7"]
GRID = estimators.Grid(
    estimators=("lvc", "ad"),
    permutations=("ESE",),
    sample_sizes=(16, 32, 64, 128, 256),
    inner_steps=(1, 2, 3, 4, 5),
)


@dataclass(frozen=True)
class Lirpg(tabular.Tabular):
    """The random MDPs, what is sampled in them, and what the intrinsic reward φ enters."""

    gae_lambda: float = 0.9
    """λ of the advantages; 1 gives the return to the horizon minus the critic."""
    intrinsic_critic: Literal["depends", "detached"] = "depends"
    """Whether the meta-gradient takes into account that the critic is the value of the reward with φ."""


@dataclass(frozen=True)
class Settings(Lirpg, tabular.TabularSettings):
    """How biased is the meta-gradient of a learned intrinsic reward (LIRPG), and does more than one step do it harm?

    Without a flag: Figures 1(c,d) and 7 of the paper at its full budget. Inner and outer gradient are exact, Jacobian
    and Hessian are sampled; --permutations SSS samples all three.
    """

    figure: tuple[Figure, ...] = ("fig1", "fig7")
    """Figures to reproduce: fig1 shows the accuracy, fig7 the variance, over inner steps and sample sizes."""


class ExactValue:
    """J of a role, as `gm_estimators.decompose` asks for exact objectives; its mixed derivative is in the reward."""

    meta_gradient = None

    def __init__(self, mdp: gm_exact.TabularMDP, params: Tensor) -> None:
        self._evaluation = gm_exact.evaluate(mdp, params)
        self.value, self.gradient = self._evaluation.value, self._evaluation.gradient

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Products with the Hessian and with the mixed derivative."""
        tangent = self._evaluation.tangent(cotangent)
        return tangent.gradient, tangent.occupancy


def lirpg_problem(cell: tabular.Cell, device: torch.device) -> estimators.TabularProblem:
    """LIRPG on random MDPs: φ = 0 is added to the reward inside, the outer objective has the reward alone; θ⁰ = 0."""
    settings = cell.tabular
    assert isinstance(settings, Lirpg)
    mdps = tabular.RandomMDPs(cell, device)
    phi = torch.zeros(mdps.shape, dtype=torch.float64, device=device, requires_grad=True)
    inner = mdps.mdp.with_reward(mdps.reward + phi.detach())
    differentiable = inner if settings.intrinsic_critic == "detached" else mdps.mdp.with_reward(mdps.reward + phi)
    exact = {"inner": inner, "hessian": inner, "outer": mdps.mdp}

    def critic(role: str, step: int, params: Tensor) -> Tensor:
        value = gm_exact.state_values(differentiable if role == "hessian" else exact[role], params)
        # what the critic is off by is no function of φ
        return value + mdps.critic_error(role, step, value.detach())

    return estimators.TabularProblem(
        params=torch.zeros(mdps.shape, dtype=torch.float64, device=device),
        exact=lambda role, params: ExactValue(exact[role], params),
        rollout=mdps.rollout,
        critic=critic,
        reward=mdps.reward,
        discount=settings.discount,
        gae_lambda=settings.gae_lambda,
        critic_for=settings.critic,
        intrinsic_reward=phi,
    )


def cells(settings: Settings) -> list[tabular.Cell]:
    """One cell for each block of MDPs, K and α."""
    gm_lab.require(settings, "gae_lambda", "0 ≤ λ ≤ 1", 0 <= settings.gae_lambda <= 1)
    return tabular.cells(settings, dict.fromkeys(settings.figure, GRID), Lirpg)


def run_cell(cell: tabular.Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K and α."""
    return tabular.measured(lirpg_problem(cell, torch.get_default_device()), cell, "lirpg")


EXPERIMENT = gm_lab.Experiment(
    name="lirpg_tabular",
    settings=Settings,
    columns=tabular.COLUMNS,
    key=tabular.KEY,
    cells=cells,
    run_cell=run_cell,
    figures=lambda _settings, frame: lirpg_report.figures(frame),
    claims=lambda _settings, frame: lirpg_report.claims(frame),
    summary=lambda _settings, frame: lirpg_report.summary(frame),
    warm_up=tabular.warm_up,
    curves=(tabular.curves("inner_steps"),),
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
