"""Agents live in tabular tasks by a learnt rule, or by the hand-made ones that it is compared with."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
import gm_estimators as estimators
import gm_exact
from gm_experiments.common.checks import require_policy
from gm_experiments.lpg.problem import POLICY, Agent, Experience, Inner, Weights, chosen_of, new_agent
from gm_experiments.lpg.settings import Tuning

F32, F64 = torch.float32, torch.float64
ACTIONS = 4
KINDS = ("random", "grid")
Rule = Callable[[Agent, Experience], Agent]
"""It turns θ and its trajectories into the next θ."""
Trial = tuple[dict[str, float], Callable[[], Rule]]
"""A rule is tried at these settings, from which the function makes it anew."""


class Tasks:
    """Tabular tasks of one size stand along the first axis, and agents sample in them."""

    def __init__(self, drawn: Sequence[envs.MDP], discount: float, horizon: int) -> None:
        self.drawn, self.discount, self.horizon = list(drawn), discount, horizon
        transition, reward = (torch.stack(tables) for tables in zip(*drawn, strict=True))
        self.mdp = gm_exact.TabularMDP.unchecked(transition, reward, 0, discount)
        self._next_states = envs.successors(transition)
        # an episode is over where every action leads back and gains nothing
        stays = transition.diagonal(dim1=-3, dim2=-1).transpose(-1, -2)
        self._over = ((stays == 1) & (reward == 0)).all(-1)
        self.uniform = gm_exact.evaluate(self.mdp, torch.zeros_like(reward), horizon).value
        self.scale = (self._best() - self.uniform).clamp(min=1e-3)

    def _best(self) -> Tensor:
        """Returns the value of the best policy that knows the time: V_t = max_a r + γ P V_{t+1}."""
        value = torch.zeros_like(self.mdp.reward[..., 0])
        for _ in range(self.horizon):
            future = torch.einsum("...sax,...x->...sa", self.mdp.transition, value)
            value = (self.mdp.reward + self.discount * future).amax(-1)
        return value[..., 0]

    def sample(self, agent: Agent, trajectories: int, rng: np.random.Generator) -> Experience:
        """Draws trajectories of every agent."""
        policy = agent[POLICY].detach().to(F64).softmax(-1)
        require_policy(policy, "the end of a step", "--inner-lr", "--inner-lrs")
        uniform = envs.uniforms(rng, (len(policy),), trajectories, self.horizon)
        state, action = envs.rollout(policy, self._next_states, uniform)
        place = (state[..., :-1] * ACTIONS + action).flatten(-2)
        reward = self.mdp.reward.flatten(-2).gather(-1, place).reshape(action.shape)
        over = self._over.gather(-1, state[..., 1:].flatten(-2)).reshape(action.shape)
        dtype = agent[POLICY].dtype
        return Experience(state, action, reward.to(dtype), over.to(dtype))

    def score(self, agent: Agent) -> Tensor:
        """Returns (J(θ) − J(uniform)) / (J(best) − J(uniform)) with the exact J(θ) = E Σ_{t<T} γᵗ r_t."""
        value = gm_exact.evaluate(self.mdp, agent[POLICY].detach().to(F64), self.horizon).value
        return (value - self.uniform) / self.scale


def draw_task(rng: np.random.Generator, kind: str, side: int) -> envs.MDP:
    """Draws a task with side² + 1 states: a random MDP, or a grid world with as many good as bad ends."""
    if kind == "random":
        return envs.random_mdp(rng, states=side * side + 1, actions=ACTIONS, concentration=0.01)
    ends = max(1, side * side // 8)
    objects = (*rng.uniform(0.2, 1.0, ends), *-rng.uniform(0.2, 1.0, ends))
    return envs.grid_world(
        rng, height=side, width=side, objects=objects, terminal=(True,) * len(objects), walls=0.1, slip=0.1
    )


def draw_tasks(rng: np.random.Generator, kind: str, side: int, count: int, discount: float, horizon: int) -> Tasks:
    """Draws tasks of one kind."""
    return Tasks([draw_task(rng, kind, side) for _ in range(count)], discount, horizon)


def live(
    tasks: Tasks, rule: Rule, updates: int, trajectories: int, predictions: int, rng: np.random.Generator
) -> Tensor:
    """Returns the scores of new agents before and after each update, shape `[updates + 1, task]`."""
    agent = new_agent((len(tasks.drawn),), tasks.mdp.n_states, ACTIONS, predictions, F32)
    scores = [tasks.score(agent)]
    for _ in range(updates):
        moved = rule(agent, tasks.sample(agent, trajectories, rng))
        agent = {name: tensor.detach() for name, tensor in moved.items()}
        scores.append(tasks.score(agent))
    return torch.stack(scores)


def learnt(inner: Inner, weights: Weights, inner_lr: float) -> Rule:
    """Makes the rule θ ← θ + α u(φ, θ)."""

    def rule(agent: Agent, sample: Experience) -> Agent:
        theta = {name: tensor.detach().requires_grad_() for name, tensor in agent.items()}
        direction = inner.direction(weights, theta, sample)
        return {name: theta[name] + inner_lr * direction[name] for name in theta}

    return rule


def policy_gradient(inner_lr: float, discount: float) -> Rule:
    """Makes the rule θ ← θ + α/n Σ_n Σ_t ∇log π(a_t | s_t) (G_t − the others' mean G_t) (Williams 1992)."""

    def rule(agent: Agent, sample: Experience) -> Agent:
        to_go = estimators.returns.returns_to_go(sample.reward, discount)
        others = max(1, to_go.shape[-2] - 1)
        baseline = (to_go.sum(-2, keepdim=True) - to_go) / others
        return _ascended(agent, sample, to_go - baseline, inner_lr)

    return rule


class ActorCritic:
    """It is the policy gradient with advantages of a critic that each agent learns from its own λ-returns."""

    def __init__(self, inner_lr: float, critic_lr: float, gae_lambda: float, discount: float) -> None:
        self._inner_lr, self._critic_lr, self._lambda, self._discount = inner_lr, critic_lr, gae_lambda, discount
        self._value: Tensor | None = None

    def __call__(self, agent: Agent, sample: Experience) -> Agent:
        """Returns θ′, and moves the critic."""
        if self._value is None:
            self._value = torch.zeros_like(agent[POLICY][..., 0])
        advantage, self._value = advantages(self._value, sample, self._discount, self._lambda, self._critic_lr)
        return _ascended(agent, sample, advantage, self._inner_lr)


def advantages(
    critic: Tensor, sample: Experience, discount: float, gae_lambda: float, critic_lr: float
) -> tuple[Tensor, Tensor]:
    """Returns advantages (GAE) by a tabular critic `[task, state]`, and the critic a step closer to the λ-returns."""
    value = critic.gather(-1, sample.state.flatten(-2)).reshape(sample.state.shape)
    advantage = estimators.returns.gae(sample.reward, value, discount, gae_lambda)
    states, error = sample.state[..., :-1].flatten(-2), advantage.flatten(-2)
    total = torch.zeros_like(critic).scatter_add_(-1, states, error)
    count = torch.zeros_like(critic).scatter_add_(-1, states, torch.ones_like(error))
    return advantage, critic + critic_lr * total / count.clamp(min=1)


def _ascended(agent: Agent, sample: Experience, advantage: Tensor, inner_lr: float) -> Agent:
    policy = agent[POLICY].detach().requires_grad_()
    objective = (chosen_of(policy.log_softmax(-1), sample) * advantage).sum(-1).mean(-1)
    (gradient,) = torch.autograd.grad(objective.sum(), policy)
    return agent | {POLICY: policy + inner_lr * gradient}


def learnt_trials(tuning: Tuning, inner: Inner, weights: Weights) -> Iterator[Trial]:
    """Lists the settings at which a learnt rule is tried."""
    for lr in tuning.learnt_lrs:
        yield {"lr": lr}, partial(learnt, inner, weights, lr)


def hand_made_trials(tuning: Tuning, name: str, discount: float) -> Iterator[Trial]:
    """Lists the settings at which a hand-made rule is tried."""
    if name == "policy_gradient":
        for lr in tuning.inner_lrs:
            yield {"lr": lr}, partial(policy_gradient, lr, discount)
        return
    for lr, critic_lr, gae_lambda in product(tuning.inner_lrs, tuning.critic_lrs, tuning.gae_lambdas):
        tried = {"lr": lr, "critic_lr": critic_lr, "gae_lambda": gae_lambda}
        yield tried, partial(ActorCritic, lr, critic_lr, gae_lambda, discount)
