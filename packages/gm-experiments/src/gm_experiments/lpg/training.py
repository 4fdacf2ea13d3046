"""LPG is meta-trained over many lifetimes at once; its state can be saved and restored."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
import gm_estimators as estimators
from gm_estimators.parameters import Params, as_dict
from gm_experiments.lpg import problem as lpg
from gm_experiments.lpg.lifetimes import ACTIONS, F32, KINDS, Tasks, advantages, draw_task
from gm_experiments.lpg.problem import POLICY, PREDICTION, Agent, Experience, Inner, Targets
from gm_experiments.lpg.settings import Lpg


class MetaTraining:
    """Lives overlap, and after each window of K updates Adam moves the rule."""

    def __init__(self, settings: Lpg, rng: np.random.Generator) -> None:
        self.settings, self._rng = settings, rng
        estimator = estimators.load(settings.estimator, suffixes=False)
        self.inner = Inner(settings.discount, settings.prediction_weight, estimator)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = lpg.new_rule(settings.hidden, settings.predictions, generator, F32)
        self.weights = {name: weight.requires_grad_() for name, weight in drawn.items()}
        self._optimiser = torch.optim.Adam(list(self.weights.values()), lr=settings.meta_lr, betas=(0.9, 0.99))
        self.tasks = self._posed([self._draw(i) for i in range(settings.tasks)])
        states = settings.side**2 + 1
        self.agent = lpg.new_agent((settings.tasks,), states, ACTIONS, settings.predictions, F32)
        self.critic = torch.zeros(settings.tasks, states)
        self.windows = 0
        self.scores: list[float] = []

    def _posed(self, drawn: Sequence[envs.MDP]) -> Tasks:
        return Tasks(drawn, self.settings.discount, self.settings.horizon)

    def _draw(self, index: int) -> envs.MDP:
        return draw_task(self._rng, KINDS[index % len(KINDS)], self.settings.side)

    def step(self) -> None:
        """Goes through one window from where the agents are, moves the rule once, and notes the agents' mean score."""
        s, kept, ended = self.settings, list[Targets](), list[Agent]()

        def inner(weights: Params, params: Params, _step: int) -> Tensor:
            agent = as_dict(params)
            sample = self.tasks.sample(agent, s.trajectories, self._rng)
            return self.inner.objective(as_dict(weights), agent, sample, kept)

        def outer(_weights: Params, params: Params) -> Tensor:
            agent = as_dict(params)
            ended.append({name: tensor.detach() for name, tensor in agent.items()})
            return self._outer(agent, self.tasks.sample(agent, s.outer_trajectories, self._rng), kept).mean()

        meta_gradient = estimators.meta_gradient(
            self.weights,
            self.agent,
            inner=inner,
            outer=outer,
            inner_steps=s.window,
            inner_lr=s.inner_lr,
            allow_unused=True,
        )
        for name, gradient in as_dict(meta_gradient).items():
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

    def _outer(self, agent: Agent, sample: Experience, kept: Sequence[Targets]) -> Tensor:
        """The advantage actor-critic's objective at θᴷ of each task, regularised as in Oh et al. 2020.

            J = Σ_t γᵗ A_t log π(a_t | s_t) / scale + β₀ Σ_t H(π(s_t)) + β₁ H(y) − β₂ Σ_steps (π̂² + ŷ²)

        The scale of a task is what there is to learn in it, so that all weigh alike.
        """
        s = self.settings
        advantage, self.critic = advantages(self.critic, sample, s.discount, s.gae_lambda, s.critic_lr)
        log_policy = agent[POLICY].log_softmax(-1)
        discounted = s.discount ** torch.arange(s.horizon) * advantage
        actor = (discounted * lpg.chosen_of(log_policy, sample)).sum(-1).mean(-1) / self.tasks.scale.to(F32)
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
        """Returns all that `restore` needs to go on as if nothing had happened."""
        transition, reward = (torch.stack(tables) for tables in zip(*self.tasks.drawn, strict=True))
        record = {
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimiser": self._optimiser.state_dict(),
            "transition": transition, "reward": reward, "agent": self.agent, "critic": self.critic,
            "windows": self.windows, "scores": self.scores, "rng": self._rng.bit_generator.state,
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(record, buffer)
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        """Goes on from a saved state of the same settings; a damaged one raises anything and changes nothing."""
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
