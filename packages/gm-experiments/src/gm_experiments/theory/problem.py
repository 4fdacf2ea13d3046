"""What is known along a path of inner steps: the exact path, a sampled one, and how far its Hessians are off."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.problem import TabularProblem


@dataclass(frozen=True)
class Point:
    """One K and α on some MDPs, with the exact path θ⁰ … θᴷ, batch axes [MDP, 1]."""

    mdps: RandomMDPs
    problem: TabularProblem
    inner_steps: int
    inner_lr: float
    exact_path: list[Tensor]

    @classmethod
    def at(cls, mdps: RandomMDPs, problem: TabularProblem, inner_steps: int, inner_lr: float) -> "Point":
        """The point with its path."""
        path = gm_exact.inner_path(mdps.mdp, problem.params[:, :1], inner_lr=inner_lr, inner_steps=inner_steps)
        return cls(mdps, problem, inner_steps, inner_lr, path)

    @property
    def terms(self) -> dict[str, Any]:
        """K and α as keywords."""
        return {"inner_lr": self.inner_lr, "inner_steps": self.inner_steps}


def sampled_path(point: Point, name: str, size: int) -> tuple[list[Tensor], Tensor]:
    """θ̂⁰ … θ̂ᴷ, and s: the root mean square error of ∇θ J_In at them over the repeats, the largest of all steps."""
    path = estimators.decomposition.sampled_path(point.problem, estimators.load(name), size, **point.terms)
    errors = [
        length(step.gradient - gm_exact.gradient(point.mdps.mdp, theta)).square().mean(-1).sqrt()
        for step, theta in zip(path.inner, path.params, strict=False)
    ]
    return path.params, torch.stack(errors).amax(0)


def hessian_errors(point: Point, name: str, size: int, path: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Δ_H and σ_H, the largest along the path: Frobenius norms from the repeats, Δ_H at its upper 95% limit."""
    shape = point.problem.params.shape
    n = shape[-2] * shape[-1]
    basis = torch.eye(n, dtype=torch.float64, device=point.problem.params.device).reshape(n, 1, 1, *shape[2:])
    biases, deviations = [], []
    estimator = estimators.load(name)
    for step, theta in enumerate(path[:-1]):
        at = point.problem.at(theta.expand(shape))
        sample = at.draw(step, {"hessian": slice(size)})["hessian"]
        columns, _ = at.sampled("hessian", estimator, sample).vjp(basis.expand(n, *shape))
        estimates = columns.movedim(0, 2).flatten(2)
        exact = gm_exact.hessian(point.mdps.mdp, theta).flatten(1)
        biases.append(estimators.metrics.bias_sq_interval(estimates, exact).high.clamp(min=0).sqrt())
        deviations.append(estimators.metrics.variance(estimates).sqrt())
    return torch.stack(biases).amax(0), torch.stack(deviations).amax(0)


def length(x: Tensor) -> Tensor:
    """‖x‖ of parameters `[*batch, state, action]`."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1))
    return norm
