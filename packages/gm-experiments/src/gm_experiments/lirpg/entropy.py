"""What a Hessian is biased by once samples are no matter, beside the entropy of the policies on the exact path.

With a critic that is right on average, the inner derivatives that an estimator gets from n → ∞ trajectories of T steps
are formulas of the MDP. With d_t(s) = γᵗ Pr(s_t = s), the occupancy d = Σ_{t<T} d_t and the advantages A for ever,

    Loaded-DiCE   ∇² of E[Σ_{t<T} γᵗ r_t + γᵀ V(s_T)], the critic V held fixed: the Hessian of J as T → ∞
    LVC           Σ_s d(s) Σₐ ∇²π(a|s) A(s, a), occupancy and advantages held fixed
    AD            0, since ∇²log π(a|s) of a softmax is the same for all actions, and Σₐ π A = 0
    all of them   ∇φ Σ_s d(s) Σₐ ∇π(a|s) Q(s, a; r + φ) as mixed derivative

whatever the λ of the advantages. With an exact inner and outer gradient the samples of different steps are independent,
so that the meta-gradient of these derivatives is what the estimates have as their mean.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
from gm_estimators.decomposition import Role
from gm_estimators.metrics import accuracy, relative_bias
from gm_experiments.common.checks import require_finite
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.settings import Cell
from gm_experiments.lirpg.problem import LirpgProblem, RewardObjective
from gm_experiments.lirpg.settings import EXTRA

Product = Callable[[gm_exact.PolicyEvaluation, Tensor], Tensor]
PRODUCTS: dict[str, Product] = {
    "loaded_dice": gm_exact.PolicyEvaluation.hessian_vector_product,
    "lvc": gm_exact.PolicyEvaluation.local_hessian_vector_product,
    "ad": lambda _evaluation, vector: torch.zeros_like(vector),
}
"""Expected Hessian-vector products, of a policy whose evaluation has the sampled horizon."""


class ExpectedObjective(RewardObjective):
    """The exact inner objective with the derivatives of its gradient that an estimator has on average."""

    def __init__(self, evaluation: gm_exact.PolicyEvaluation, horizon: int, product: Product) -> None:
        super().__init__(evaluation)
        self._params, self._horizon, self._product = evaluation.policy.log(), horizon, product

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """(E[Ĥ] λ, E[∇φ∇θ Ĵ] λ)."""
        mdp, params = self._evaluation.mdp, self._params
        with torch.enable_grad():
            # φ is added to the reward, and the critic knows it
            reward = mdp.reward.detach().expand(params.shape).clone().requires_grad_()
            judged = mdp.with_reward(reward)
            critic = gm_exact.state_values(judged, params)
            sampled = gm_exact.evaluate(judged, params, self._horizon, critic)
            along = [torch.autograd.grad(sampled.gradient, reward, v, retain_graph=True)[0] for v in cotangent]
            product = self._product(sampled, cotangent)
        return product.detach(), torch.stack(along)


class ExpectedProblem(LirpgProblem):
    """LIRPG with the expected derivatives of one estimator, from infinitely many trajectories, in the inner loop."""

    def __init__(self, *problem: Any, estimator: str, trajectory_horizon: int) -> None:
        super().__init__(*problem)
        self._expected = PRODUCTS[estimator], trajectory_horizon

    def exact(self, role: Role, evaluation: gm_exact.PolicyEvaluation) -> RewardObjective:
        """Returns the objective of a role: outside the exact one."""
        if role == "outer":
            return super().exact(role, evaluation)
        product, horizon = self._expected
        return ExpectedObjective(evaluation, horizon, product)


def mean_entropy(evaluation: gm_exact.PolicyEvaluation) -> Tensor:
    """Σ_s d(s) H(π(·|s)) / (log A Σ_s d(s)): 1 if all actions are as likely, 0 if the policy is deterministic."""
    pi, occupancy = evaluation.policy, evaluation.occupancy
    entropy = -torch.special.xlogy(pi, pi).sum(-1) / math.log(pi.shape[-1])
    mean: Tensor = (occupancy * entropy).sum(-1) / occupancy.sum(-1)
    return mean


def beside(rows: list[gm_lab.Row], cell: Cell, mdps: RandomMDPs) -> list[gm_lab.Row]:
    """The rows with what is known about the path and the expectation, where they are about entropy."""
    chosen = {str(row["estimator"]) for row in rows if row["figure"] == "entropy"}
    if not chosen:
        return rows
    start = mdps.zeros()[:, :1]
    problem = mdps.mdp, start, mdps, start
    truth = estimators.exact_meta_gradient(LirpgProblem(*problem), **cell.terms).flatten(1)
    path = gm_exact.inner_path(mdps.mdp, start, **cell.terms)[:-1]
    entropy = torch.stack([mean_entropy(gm_exact.evaluate(mdps.mdp, theta)) for theta in path]).mean(0)
    known = {name: {"entropy": entropy.flatten()} for name in chosen}
    for name in chosen & PRODUCTS.keys():
        expected = ExpectedProblem(*problem, estimator=name, trajectory_horizon=cell.tabular.horizon)
        mean = estimators.exact_meta_gradient(expected, **cell.terms).flatten(1)
        known[name] |= dict(zip(EXTRA[1:], (accuracy(mean, truth), relative_bias(mean, truth)), strict=True))
    found = [row | _of(row, known, cell) for row in rows]
    require_finite([row for row in found if row["figure"] == "entropy"], ("entropy",), "--inner-lrs")
    return found


def _of(row: gm_lab.Row, known: dict[str, dict[str, Tensor]], cell: Cell) -> gm_lab.Row:
    """What there is for one row; the expectation is that of sampled derivatives between exact gradients alone."""
    if row["figure"] != "entropy":
        return {}
    place = cell.mdps.index(int(row["mdp"]))
    of_row = known[str(row["estimator"])]
    columns = EXTRA if row["permutation"] == "ESE" else EXTRA[:1]
    return {column: of_row[column][place].item() for column in columns if column in of_row}
