"""LIRPG as a two-level problem: φ is a reward that only the inner loop sees (paper, Section 5.1)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import gm_exact
from gm_estimators.decomposition import Role
from gm_estimators.returns import gae_adjoint
from gm_estimators.surrogates import LogProbDerivatives
from gm_experiments.common.problem import Mixed, Numbers, TabularProblem, TabularSample, flat, scattered


class RewardObjective:
    """The exact objective of an evaluated policy where φ is added to the reward."""

    meta_gradient = None

    def __init__(self, evaluation: gm_exact.PolicyEvaluation) -> None:
        self._evaluation = evaluation
        self.value, self.gradient = evaluation.value, evaluation.gradient

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """(∇²θ J λ, ∇φ∇θ J λ): the mixed derivative is how the occupancy changes along λ."""
        tangent = self._evaluation.tangent(cotangent)
        return tangent.gradient, tangent.occupancy


class LirpgProblem(TabularProblem):
    """LIRPG on tabular MDPs: inside the reward is r + φ(s, a), outside r.

    A sample's mixed derivative is

        ∇φ ⟨∇J, v⟩ = (1/n) Σ_t (∂⟨w, d⟩/∂r_t) [c_t] + (1/n) Σ_t (∂⟨w, d⟩/∂V(s_t)) ∇φ V(s_t)

    with the advantages' part passed on to rewards and values by `returns.gae_adjoint`, the same for all estimators with
    the same first derivative (paper, Eq. 7). φ is a leaf; with `critic_depends` it counts in the critic, too.
    """

    meta_is_params = False

    def __init__(
        self, mdp: gm_exact.TabularMDP, params: Float[Tensor, "*batch state action"], numbers: Numbers,
        intrinsic_reward: Float[Tensor, "*batch state action"], *, critic_depends: bool = True, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(mdp, params, numbers, **settings)
        self._phi = intrinsic_reward
        self._inside = mdp.with_reward(mdp.reward + intrinsic_reward.detach())
        self._judged = mdp.with_reward(mdp.reward + intrinsic_reward) if critic_depends else self._inside

    def reward(self, role: Role) -> Tensor:
        """Returns r(s, a), inside with φ."""
        return (self.mdp if role == "outer" else self._inside).reward

    def evaluate(self, role: Role, params: Tensor) -> gm_exact.PolicyEvaluation:
        """Evaluates the policy θ, inside with φ."""
        return gm_exact.evaluate(self.mdp if role == "outer" else self._inside, params, self.horizon)

    def exact(self, _role: Role, evaluation: gm_exact.PolicyEvaluation) -> RewardObjective:
        """Returns the exact objective of an evaluated policy."""
        return RewardObjective(evaluation)

    def critic(self, role: Role, step: int, params: Tensor, evaluation: gm_exact.PolicyEvaluation) -> Tensor:
        """Returns the critic's V; what it is off by is no function of φ."""
        values = evaluation.state_values
        if role != "outer":
            values = gm_exact.state_values(self._judged, params, self.horizon)
        return values + self.numbers.critic_error(role, step, values.detach())

    def mixed(
        self, role: Role, sample: TabularSample, derivatives: LogProbDerivatives, critic: bool, gae_lambda: float
    ) -> Mixed | None:
        """Returns d ↦ ∇φ ⟨w, d⟩ averaged over a sample's trajectories."""
        return partial(self._mixed, sample, derivatives, critic, gae_lambda) if role == "hessian" else None

    def _mixed(
        self, sample: TabularSample, derivatives: LogProbDerivatives, critic: bool, gae_lambda: float, score: Tensor
    ) -> Tensor:
        assert derivatives.mixed is not None  # set by every estimator of the catalogue
        cotangents = derivatives.mixed(score)
        rewards, values = [cotangents.reward], [cotangents.value]
        if cotangents.advantage is not None:
            reward, value = gae_adjoint(cotangents.advantage, self.mdp.discount, gae_lambda)
            rewards.append(reward)
            values.append(value)
        table = torch.zeros_like(self._phi)
        for weights in rewards:
            if weights is not None:
                table += scattered(flat(weights), flat(sample.cell), self._phi)
        if critic and sample.critic.requires_grad:
            pull = torch.zeros_like(sample.critic)
            for weights in values:
                if weights is not None:
                    pull += scattered(flat(weights), flat(sample.place), pull)
            table += torch.autograd.grad(sample.critic, self._phi, pull, retain_graph=True)[0]
        return table / sample.cell.shape[-2]

    def parts(self, _rows: Sequence[Mapping[Role, Tensor]]) -> None:
        """Leaves its parts to be asked for one by one, since φ has no axis for them."""
