"""LIRPG on random MDPs: the inner loop sees the reward with an intrinsic one, the outer objective the reward alone."""

from torch import Tensor

import gm_estimators as estimators
import gm_exact
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.lirpg.settings import Lirpg


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


def lirpg_problem(mdps: RandomMDPs) -> estimators.TabularProblem:
    """LIRPG on random MDPs: φ = 0 is added to the reward inside, the outer objective has the reward alone; θ⁰ = 0."""
    settings = mdps.tabular
    assert isinstance(settings, Lirpg)
    phi = mdps.zeros().requires_grad_()
    inner = mdps.mdp.with_reward(mdps.reward + phi.detach())
    differentiable = inner if settings.intrinsic_critic == "detached" else mdps.mdp.with_reward(mdps.reward + phi)
    exact = {"inner": inner, "hessian": inner, "outer": mdps.mdp}

    def critic(role: str, step: int, params: Tensor) -> Tensor:
        value = gm_exact.state_values(differentiable if role == "hessian" else exact[role], params)
        # what the critic is off by is no function of φ
        return value + mdps.critic_error(role, step, value.detach())

    return estimators.TabularProblem(
        params=mdps.zeros(),
        exact=lambda role, params: ExactValue(exact[role], params),
        rollout=mdps.rollout,
        critic=critic,
        reward=mdps.reward,
        discount=settings.discount,
        gae_lambda=settings.gae_lambda,
        critic_for=settings.critic,
        intrinsic_reward=phi,
    )
