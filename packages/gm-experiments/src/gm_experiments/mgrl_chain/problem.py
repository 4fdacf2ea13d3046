"""Policies, critics and objectives in the discounting chain, all seeds in one batch.

The policy is linear in what bsuite shows, as in the published code: π(· | s) = softmax(θᵀ (chain, t / T, 1)). A batch
of trajectories enters AD and LVC only through how often each (s, a) occurs, because both are sums over steps and a
step's advantage is that of its state and action; other estimators read the trajectories themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
from gm_estimators import Estimator
from gm_estimators.returns import gae
from gm_experiments.lpg.problem import surrogate_of

DTYPE = torch.float32
STEPWISE = ("ad", "lvc")
"""Estimators that are sums over steps."""
SPREAD = 0.007
"""Standard deviation of the first weights: variance scaling of 10⁻⁴ with two inputs, as published."""


@dataclass(frozen=True)
class Batch:
    """Trajectories of all seeds: which part of all steps each (s, a) is, and of the trajectories each chain."""

    share: Tensor
    chosen: Tensor
    whole: envs.Rollout | None
    """The trajectories themselves, where they are needed."""


class Chains:
    """The chain's tables, and what an agent sees of its states."""

    def __init__(self) -> None:
        self.rewards = envs.chain_rewards().to(DTYPE)
        self.worth, self.delay = self.rewards.max(-1).values, self.rewards.argmax(-1)
        self.actions, self.horizon = self.rewards.shape
        seen = envs.chain_observations(self.actions, self.horizon).to(DTYPE)
        self.features = torch.cat([seen, torch.ones(len(seen), 1, dtype=DTYPE)], -1)

    def new_policies(self, streams: Sequence[np.random.Generator]) -> Tensor:
        """Draws weights `[seed, feature, action]` near zero, and biases of zero."""
        shape = self.features.shape[-1] - 1, self.actions
        drawn = [torch.from_numpy(rng.standard_normal(shape)) * SPREAD for rng in streams]
        return torch.nn.functional.pad(torch.stack(drawn).to(DTYPE), (0, 0, 0, 1))

    def log_policy(self, weights: Tensor) -> Tensor:
        """Returns log π(a | s) of every state, `[seed, state, action]`."""
        # actions before states, as a softmax is quick over an axis that is not the last
        return (weights.transpose(1, 2) @ self.features.T).log_softmax(1).transpose(1, 2)

    def score(self, weights: Tensor) -> Tensor:
        """Returns each policy's expected return, by its probabilities alone, `[seed]`."""
        return (self.log_policy(weights)[:, 0].exp() * self.worth).sum(-1)

    def draw(self, log_policy: Tensor, size: int, streams: Sequence[np.random.Generator], whole: bool = False) -> Batch:
        """Draws a batch of trajectories of each seed's policy, from its own stream."""
        numbers = np.empty((len(streams), size, self.horizon), dtype=np.float32)
        for row, rng in zip(numbers, streams, strict=True):
            rng.random(out=row, dtype=np.float32)
        policy, uniform = log_policy.detach().exp(), torch.from_numpy(numbers)
        share = envs.chain_counts(policy, uniform) / (size * self.horizon)
        return Batch(share, share[:, 0] * self.horizon, envs.chain_rollout(policy, uniform) if whole else None)

    def returns(self, discount: Tensor) -> Tensor:
        """The discounted return from each time of each chain on, `[seed, chain, time]`.

        G_c(t) = r_c γ^{delay_c − 1 − t} as long as the reward is to come, since every other reward is 0.
        """
        left = self.delay.unsqueeze(-1) - torch.arange(self.horizon)
        to_come = discount.reshape(-1, 1, 1) ** left.clamp(min=0)
        return torch.where(left >= 0, self.worth.unsqueeze(-1) * to_come, 0.0)

    def new_values(self, seeds: int) -> Tensor:
        """A critic's values along each chain, `[seed, chain, time + 1]`; at time 0 all chains are one state."""
        return torch.zeros(seeds, self.actions, self.horizon + 1, dtype=DTYPE)

    def exact_values(self, discount: Tensor, log_policy: Tensor) -> Tensor:
        """The values of a policy at a discount, as a critic's."""
        returns = self.returns(discount)
        start = (log_policy[:, 0].detach().exp() * returns[..., 0]).sum(-1)
        return self._along(returns, start)

    def learnt_values(self, values: Tensor, discount: Tensor, batch: Batch, lr: float) -> Tensor:
        """A critic after a batch: where it has been, each value goes a part of the way to the mean return from there.

            V(s) ← V(s) + β (mean of G_t with s_t = s, minus V(s))

        Elsewhere it stays as it is.
        """
        returns = self.returns(discount)
        been = (batch.chosen > 0).unsqueeze(-1)
        start = values[:, 0, 0]
        later = torch.where(been, values[..., :-1] + lr * (returns - values[..., :-1]), values[..., :-1])
        return self._along(later, start + lr * ((batch.chosen * returns[..., 0]).sum(-1) - start))

    def _along(self, later: Tensor, start: Tensor) -> Tensor:
        first = start.reshape(-1, 1, 1).expand(-1, self.actions, 1)
        return torch.cat([first, later[..., 1:], torch.zeros_like(first)], -1)

    def advantages(self, values: Tensor, discount: Tensor, gae_lambda: float) -> Tensor:
        """Advantages of every state and action, `[seed, state, action]`, differentiable in γ; critics are held fixed.

        After the first step an action changes nothing, so that all of a state have one advantage.
        """
        along, gamma = values.detach(), discount.reshape(-1, 1, 1)
        if gae_lambda == 0:  # its recursion would do the same, step after step
            path = self.rewards + gamma * along[..., 1:] - along[..., :-1]
        else:
            path = gae(self.rewards.expand(len(along), -1, -1), along, gamma, gae_lambda)
        later = path[..., 1:].reshape(len(along), -1, 1).expand(-1, -1, self.actions)
        return torch.cat([path[:, None, :, 0], later, torch.zeros_like(path[:, None, :, 0])], 1)

    def objective(
        self, estimator: Estimator, log_policy: Tensor, batch: Batch, advantage: Tensor, entropy: float
    ) -> Tensor:
        """The actor-critic's objective, `[seed]`.

            J = (1/T) · mean of f over trajectories + β · mean of H(π(· | s_t)) over steps

        f is the estimator's surrogate; means are over steps, as published.

        Raises:
            EstimatorError: if the surrogate fails, or gives another shape than one number per trajectory.
        """
        if estimator.name in STEPWISE:  # all (s, a) are the steps of one trajectory, each with its part of the sum
            pairs = (x.transpose(1, 2).flatten(1).unsqueeze(1) for x in (log_policy, batch.share * advantage))
            actor = surrogate_of(estimator, *pairs).mean(-1)
        else:
            actor = surrogate_of(estimator, *_along_trajectories(batch, log_policy, advantage)).mean(-1) / self.horizon
        unsure = -(log_policy.exp() * log_policy).sum(-1)
        return actor + entropy * (batch.share.sum(-1) * unsure).sum(-1)


def _along_trajectories(batch: Batch, *tables: Tensor) -> list[Tensor]:
    """Tables `[seed, state, action]` at every step of the trajectories, `[seed, trajectory, time]`."""
    assert batch.whole is not None
    state, action = batch.whole.state[..., :-1], batch.whole.action
    seed = torch.arange(len(state)).reshape(-1, 1, 1)
    return [table[seed, state, action] for table in tables]
