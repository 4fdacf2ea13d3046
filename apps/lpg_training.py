"""Meta-training of LPG over many lifetimes at once, with a state that can be saved and restored."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
import gm_estimators as estimators
from gm_estimators.inner_loop import Params, as_dict
from lpg_lifetimes import ACTIONS, F32, KINDS, Tasks, advantages, draw_task
from lpg_problem import POLICY, PREDICTION, Agent, Inner, Sample, Targets, chosen_of, new_agent, new_rule


@dataclass(frozen=True)
class Lpg:
    """The tasks, the lives of agents in them, the rule and its meta-training."""

    side: int = 4
    """Training tasks have side² + 1 states: grid worlds of side × side cells, and random MDPs of that size."""
    horizon: int = 20
    """T, steps of a trajectory."""
    discount: float = 0.95
    """γ."""
    trajectories: int = 2
    """Trajectories of an update of an agent."""
    lifetime: int = 100
    """Updates of an agent until another begins anew in another task."""
    window: int = 5
    """K, updates that a meta-gradient looks through; agents go on from where it ends."""
    inner_lr: float = 3.0
    """α, the size of an agent's update."""
    prediction_weight: float = 1.0
    """α_y, the size of the predictions' part of it."""
    hidden: int = 32
    """Size of the LSTM."""
    predictions: int = 8
    """m, the length of a prediction vector."""
    estimator: str = "lvc"
    """Of the updates in meta-training: ad, dice, loaded_dice, lvc, or your own as package.module:function."""
    tasks: int = 256
    """Lives that go on at the same time."""
    meta_updates: int = 600
    """Windows of meta-training."""
    meta_lr: float = 5e-3
    """Adam's learning rate for the rule, which decays linearly to 0."""
    outer_trajectories: int = 16
    """Trajectories of the outer objective."""
    policy_entropy: float = 0.01
    """Coefficient of the policies' entropy in the outer objective."""
    prediction_entropy: float = 1e-3
    """Coefficient of the predictions' entropy in the outer objective."""
    target_penalty: float = 1e-3
    """Coefficient of the squares of the targets π̂ and ŷ in the outer objective."""
    gae_lambda: float = 0.95
    """λ of the outer advantages."""
    critic_lr: float = 0.3
    """Step size of the critics of the outer objective, which the rule never sees."""

    def inner(self) -> Inner:
        """The rule as an inner objective."""
        return Inner(self.discount, self.prediction_weight, estimators.load(self.estimator, suffixes=False))


class MetaTraining:
    """Lives that overlap, and after each window of K updates a step of Adam for the rule.

    Args:
        settings: all of it.
        rng: source of randomness.
    """

    def __init__(self, settings: Lpg, rng: np.random.Generator) -> None:
        self.settings, self.inner, self._rng = settings, settings.inner(), rng
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = new_rule(settings.hidden, settings.predictions, generator, F32)
        self.weights = {name: weight.requires_grad_() for name, weight in drawn.items()}
        self._optimiser = torch.optim.Adam(list(self.weights.values()), lr=settings.meta_lr, betas=(0.9, 0.99))
        self.tasks = self._posed([self._draw(i) for i in range(settings.tasks)])
        states = settings.side**2 + 1
        self.agent = new_agent((settings.tasks,), states, ACTIONS, settings.predictions, F32)
        self.critic = torch.zeros(settings.tasks, states)
        self.windows = 0
        self.scores: list[float] = []

    def _posed(self, drawn: Sequence[envs.MDP]) -> Tasks:
        return Tasks(drawn, self.settings.discount, self.settings.horizon)

    def _draw(self, index: int) -> envs.MDP:
        return draw_task(self._rng, KINDS[index % len(KINDS)], self.settings.side)

    def step(self) -> None:
        """One window from where the agents are, one meta-update; `scores` gets the agents' mean score after it."""
        s, kept, ended = self.settings, list[Targets](), list[Agent]()

        def inner(weights: Params, params: Params, _step: int) -> Tensor:
            agent = as_dict(params)
            sample = self.tasks.sample(agent, s.trajectories, self._rng)
            return self.inner.objective(as_dict(weights), agent, sample, kept)

        def outer(_weights: Params, params: Params) -> Tensor:
            agent = as_dict(params)
            ended.append({name: tensor.detach() for name, tensor in agent.items()})
            return self._outer(agent, self.tasks.sample(agent, s.outer_trajectories, self._rng), kept).mean()

        found = estimators.meta_gradient(
            self.weights, self.agent, inner=inner, outer=outer, inner_steps=s.window, inner_lr=s.inner_lr
        )
        for name, gradient in as_dict(found).items():
            self.weights[name].grad = -gradient
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), 1.0)
        for group in self._optimiser.param_groups:
            group["lr"] = s.meta_lr * (1 - self.windows / s.meta_updates)
        self._optimiser.step()
        (self.agent,) = ended
        self.windows += 1
        self.scores.append(float(self.tasks.score(self.agent).mean()))
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Ends lives, a few after every window, so that there are agents of every age at any time."""
        ages = max(1, self.settings.lifetime // self.settings.window)
        ended = [i for i in range(self.settings.tasks) if (i // len(KINDS)) % ages == self.windows % ages]
        for i in ended:
            for tensor in (*self.agent.values(), self.critic):
                tensor[i] = 0
        again = {i: self._draw(i) for i in ended}
        self.tasks = self._posed([again.get(i, task) for i, task in enumerate(self.tasks.drawn)])

    def _outer(self, agent: Agent, sample: Sample, kept: Sequence[Targets]) -> Tensor:
        """Advantage actor-critic at θᴷ, regularised as in Oh et al. 2020, of each task.

            J = Σ_t γᵗ A_t log π(a_t | s_t) / scale + β₀ Σ_t H(π(s_t)) + β₁ H(y) − β₂ Σ_steps (π̂² + ŷ²)

        The scale of a task is what there is to learn in it, so that all weigh alike.
        """
        s = self.settings
        advantage, self.critic = advantages(self.critic, sample, s.discount, s.gae_lambda, s.critic_lr)
        log_policy = agent[POLICY].log_softmax(-1)
        discounted = s.discount ** torch.arange(s.horizon) * advantage
        actor = (discounted * chosen_of(log_policy, sample)).sum(-1).mean(-1) / self.tasks.scale.to(F32)
        unsure = _entropy(log_policy).gather(-1, sample.state[..., :-1].flatten(-2)).mean(-1) * s.horizon
        penalty = sum(
            (t.policy.square().mean((-1, -2)) + t.log_prediction.exp().square().mean((-1, -2, -3)) for t in kept),
            torch.zeros(()),
        )
        return (
            actor
            + s.policy_entropy * unsure
            + s.prediction_entropy * _entropy(agent[PREDICTION].log_softmax(-1)).mean(-1)
            - s.target_penalty * penalty
        )

    def state(self) -> bytes:
        """All that `restore` needs to go on as if nothing had happened."""
        transition, reward = (torch.stack(tables) for tables in zip(*self.tasks.drawn, strict=True))
        record = {
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimiser": self._optimiser.state_dict(),
            "transition": transition,
            "reward": reward,
            "agent": self.agent,
            "critic": self.critic,
            "windows": self.windows,
            "scores": self.scores,
            "rng": self._rng.bit_generator.state,
        }
        buffer = io.BytesIO()
        torch.save(record, buffer)
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        """Goes on from a saved state of the same settings.

        Raises:
            Exception: whatever a damaged file leads to; nothing is changed then.
        """
        record: dict[str, Any] = torch.load(io.BytesIO(state), weights_only=True)
        drawn = [envs.MDP(*tables) for tables in zip(record["transition"], record["reward"], strict=True)]
        tasks, scores, windows = self._posed(drawn), list(record["scores"]), int(record["windows"])
        self._rng.bit_generator.state = record["rng"]
        self._optimiser.load_state_dict(record["optimiser"])
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(record["weights"][name])
        self.tasks, self.agent, self.critic = tasks, record["agent"], record["critic"]
        self.scores, self.windows = scores, windows


def _entropy(log_probability: Tensor) -> Tensor:
    return -(log_probability.exp() * log_probability).sum(-1)
