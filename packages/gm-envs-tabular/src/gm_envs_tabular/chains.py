"""The discounting chain of bsuite: one choice, and the reward that it leads to comes sooner or later.

Its states are the start, state 0, then those of each chain in turn, 1 + c (T − 1) + (t − 1) at time t = 1 … T − 1 of
chain c, and last the one after the episode, which absorbs.
"""

import math
from collections.abc import Iterator, Sequence
from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from gm_envs_tabular.checks import integer, require_memory
from gm_envs_tabular.mdps import MDP
from gm_envs_tabular.rollout import Rollout, require_uniform

DELAYS = (1, 3, 10, 30, 100)
"""Steps after which each chain of bsuite rewards."""
BONUS = 3
"""The chain of 30 steps, whose reward is 1.1 where the others' is 1."""


def chain_rewards(
    *, delays: Sequence[int] = DELAYS, bonus: SupportsIndex = BONUS, horizon: SupportsIndex = 100
) -> Float[Tensor, "chain time"]:
    """What each chain rewards at each step, float64 (Osband et al. 2020, "Behaviour Suite for …", discounting chain).

        r_c(t) = (1 + 0.1 [c = bonus]) [t + 1 = delay_c],   t = 0 … T − 1

    Args:
        delays: steps until the reward of each chain, of which there are as many as actions; from 1 to T.
        bonus: the chain that is worth 1.1 instead of 1.
        horizon: T, steps of an episode.

    Examples:
        >>> from gm_envs_tabular import chain_rewards
        >>> chain_rewards(delays=(1, 3), bonus=1, horizon=3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.1]]
    """
    if not delays:
        raise ValueError("delays: expected at least one chain, got none")
    horizon, bonus = integer("horizon", horizon), integer("bonus", bonus, 0, len(delays) - 1)
    require_memory("delays, horizon", len(delays) * horizon)
    rewards = torch.zeros(len(delays), horizon, dtype=torch.float64)
    for chain, delay in enumerate(delays):
        rewards[chain, integer("delays", delay, 1, horizon) - 1] = 1.1 if chain == bonus else 1.0
    return rewards


def discounting_chain(rewards: Float[Tensor, "chain time"] | None = None) -> MDP:
    """The chains as a tabular MDP, in which the first action chooses one and the others do nothing.

    Args:
        rewards: as from `chain_rewards`, bsuite's by default.

    Returns:
        An `MDP` of float64 tensors with 2 + C (T − 1) states and C actions: the start is 0, the last one absorbs.

    Examples:
        >>> from gm_envs_tabular import discounting_chain
        >>> discounting_chain().transition.shape
        torch.Size([497, 5, 497])
    """
    given = chain_rewards() if rewards is None else rewards
    chains, horizon = given.shape
    states = 2 + chains * (horizon - 1)
    require_memory("rewards", states * chains * states)
    after = 2 + torch.arange(chains * (horizon - 1)).reshape(chains, horizon - 1)
    after[:, -1:] = states - 1  # no step leads from one chain into the next
    first = 1 + torch.arange(chains) * (horizon - 1) if horizon > 1 else torch.full((chains,), 1)
    leads = torch.full((states, chains), states - 1)
    leads[0], leads[1 : states - 1] = first, after.reshape(-1, 1)
    reward = torch.zeros(states, chains, dtype=torch.float64)
    reward[0], reward[1 : states - 1] = given[:, 0], given[:, 1:].reshape(-1, 1)
    return MDP(torch.nn.functional.one_hot(leads, states).to(torch.float64), reward)


def chain_observations(chains: SupportsIndex = 5, horizon: SupportsIndex = 100) -> Float[Tensor, "state 2"]:
    """What bsuite shows of each state: the chain, −1 before the choice, and the part of the episode that is over.

    The state after the episode, which has no chain of its own, is shown as (−1, 1).

    Examples:
        >>> from gm_envs_tabular import chain_observations
        >>> chain_observations(chains=2, horizon=2).tolist()
        [[-1.0, 0.0], [0.0, 0.5], [1.0, 0.5], [-1.0, 1.0]]
    """
    chains, horizon = integer("chains", chains), integer("horizon", horizon)
    chain = torch.arange(chains, dtype=torch.float64).repeat_interleave(horizon - 1)
    time = (torch.arange(1, horizon, dtype=torch.float64) / horizon).repeat(chains)
    ends = torch.tensor([[-1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    return torch.cat([ends[:1], torch.stack([chain, time], -1), ends[1:]])


def chain_rollout(
    policy: Float[Tensor, "*batch state action"], uniform: Float[Tensor, "*batch trajectory time"]
) -> Rollout:
    """The trajectories that `rollout` draws in the chain from the same numbers, all steps at once.

    The first action decides every state of an episode, so that nothing has to wait for the step before.

    Args:
        policy: π(a | s) at the chain's 2 + C (T − 1) states, not negative, rows sum to one.
        uniform: one number in [0, 1) for each of the T steps, as from `uniforms`.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from gm_envs_tabular import chain_rollout, uniforms
        >>> second = torch.tensor([0.0, 1.0]).double().expand(4, 2)
        >>> chain_rollout(second, uniforms(np.random.default_rng(0), (), size=1, horizon=2)).state.tolist()
        [[0, 2, 3]]
    """
    *batch, states, _ = policy.shape
    *_, size, horizon = uniform.shape
    chain, exceeds = _comparisons(policy, uniform)
    later = torch.zeros(chain.shape[0], size, horizon - 1, dtype=torch.int64, device=chain.device)
    for exceeding in exceeds:
        later += exceeding
    times = torch.arange(1, horizon, device=chain.device)
    state = torch.cat([chain * 0, chain * (horizon - 1) + times, torch.full_like(chain, states - 1)], -1)
    action = torch.cat([chain, later], -1)
    return Rollout(state.reshape(*batch, size, horizon + 1), action.reshape(*batch, size, horizon))


def chain_counts(
    policy: Float[Tensor, "*batch state action"], uniform: Float[Tensor, "*batch trajectory time"]
) -> Float[Tensor, "*batch state action"]:
    """How often each action is taken in each state in the trajectories of `chain_rollout`, without having these.

    What is a sum over steps needs no more of them. Arguments are as there; counts are in the numbers' own type.

    Examples:
        >>> import torch
        >>> from gm_envs_tabular import chain_counts
        >>> second = torch.tensor([0.0, 1.0]).double().expand(4, 2)
        >>> chain_counts(second, torch.full((3, 2), 0.5).double()).tolist()
        [[0.0, 3.0], [0.0, 0.0], [0.0, 3.0], [0.0, 0.0]]
    """
    *batch, states, actions = policy.shape
    chain, exceeds = _comparisons(policy, uniform)
    members = torch.nn.functional.one_hot(chain.squeeze(-1), actions).transpose(-1, -2).to(uniform.dtype)
    first = members.sum(-1)
    along = first.unsqueeze(-1).expand(*first.shape, uniform.shape[-1] - 1)
    # of a state's visits, those whose number exceeds the bound of each action, and so takes a later one
    above = torch.stack([along, *(members @ each.to(uniform.dtype) for each in exceeds), torch.zeros_like(along)], -1)
    later = (above[..., :-1] - above[..., 1:]).flatten(1, 2)
    start = first.unsqueeze(1)
    return torch.cat([start, later, torch.zeros_like(start)], 1).reshape(*batch, states, actions)


def _comparisons(policy: Tensor, uniform: Tensor) -> tuple[Tensor, Iterator[Tensor]]:
    """Each trajectory's chain `[element, trajectory, 1]`, and then which of its later numbers exceed each bound.

    The action of a number is how many of the cumulative distribution's bounds it reaches.
    """
    elements, actions, (size, horizon) = math.prod(policy.shape[:-2]), policy.shape[-1], uniform.shape[-2:]
    if policy.shape[-2] != 2 + actions * (horizon - 1):
        wanted = f"{2 + actions * (horizon - 1)} states of {actions} chains"
        raise ValueError(f"policy: expected {wanted}, got {policy.shape[-2]}")
    require_uniform(policy, uniform)
    cdf = policy.detach().cumsum(-1)
    total = cdf[..., -1:]
    if not bool((total - 1).abs().max() < 1e-5) or bool((policy < 0).any()):
        raise ValueError("policy: expected non-negative rows that sum to 1, got other ones")
    # the last action that can occur takes what rounding left of the interval
    bounds = cdf.masked_fill(cdf >= total, torch.inf)[..., :-1].reshape(elements, policy.shape[-2], actions - 1)
    numbers = uniform.reshape(elements, size, horizon)
    chain = (numbers[..., :1] >= bounds[:, :1]).sum(-1, keepdim=True)
    along = bounds[:, 1:-1].reshape(elements * actions, horizon - 1, actions - 1).movedim(-1, 0).contiguous()
    rows = (chain + actions * torch.arange(elements, device=chain.device).reshape(-1, 1, 1)).reshape(-1)
    later = numbers[..., 1:]
    return chain, (later >= bound.index_select(0, rows).reshape(later.shape) for bound in along)
