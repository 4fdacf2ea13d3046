"""A2C in a cheap environment: the environment alone, a plain loop of its own, and the trainer, in turns in one run.

Rates are per second of the processor, so that other programs disturb them less.
"""

import statistics
import time

import gymnasium
import numpy as np
import torch
from threads import one_thread  # noqa: F401

from gm_mgrl_atari import Trainer, Training

ENVS, STEPS, ROUNDS, SECONDS = 64, 5, 5, 1.0


def environments():
    """CartPole, whose vector environment is a few operations of NumPy."""
    return gymnasium.make_vec("CartPole-v1", num_envs=ENVS)


class Policy(torch.nn.Module):
    """Two hidden layers, shared."""

    def __init__(self):
        super().__init__()
        sizes = torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()
        self.body = torch.nn.Sequential(*sizes)
        self.actor, self.critic = torch.nn.Linear(64, 2), torch.nn.Linear(64, 1)

    def forward(self, observation):
        """Logits and values."""
        features = self.body(observation)
        return self.actor(features), self.critic(features)


def alone():
    """Steps with random actions."""
    made, draw = environments(), np.random.default_rng(0)
    made.reset(seed=0)

    def steps():
        made.step(draw.integers(0, 2, ENVS))
        return ENVS

    return steps


def plain():
    """What one would write: A2C without log, checkpoints, checks and meta-gradients."""
    made, network = environments(), Policy()
    optimiser = torch.optim.Adam(network.parameters(), 7e-4)
    seen, before = torch.from_numpy(made.reset(seed=0)[0]), np.zeros(ENVS, dtype=bool)

    def update():
        nonlocal seen, before
        states, actions, rewards, ends, counted = [seen], [], [], [], []
        for _ in range(STEPS):
            with torch.no_grad():
                logits, _ = network(seen)
                action = torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
            answer, reward, terminated, truncated, _ = made.step(action.numpy())
            counted.append(torch.from_numpy(~before))
            seen, before = torch.from_numpy(answer), terminated | truncated
            states.append(seen)
            actions.append(action)
            rewards.append(torch.from_numpy(reward))
            ends.append(torch.from_numpy(before))
        logits, value = network(torch.stack(states))
        value, log_probs = value.squeeze(-1), logits[:-1].log_softmax(-1)
        weight = torch.stack(counted).float()
        with torch.no_grad():
            advantage, rest = torch.zeros(STEPS, ENVS), torch.zeros(ENVS)
            for t in reversed(range(STEPS)):
                going_on = (~ends[t]).float()
                delta = rewards[t] + 0.99 * going_on * value[t + 1] - value[t]
                rest = advantage[t] = delta + 0.99 * 0.95 * going_on * rest
            target = advantage + value[:-1]
        log_prob = log_probs.gather(-1, torch.stack(actions).unsqueeze(-1)).squeeze(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        parts = log_prob * advantage - 0.5 * (value[:-1] - target).square() + 0.01 * entropy
        loss = -(parts * weight).sum() / weight.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimiser.step()
        return STEPS * ENVS

    return update


def ours(**settings):
    """The trainer's kept steps."""
    training = Training(envs=ENVS, steps=STEPS, updates=10**9, schedule="online", **settings)
    trainer = Trainer(training, environments(), network=Policy())

    def update():
        before = trainer.progress.updates
        trainer.step()
        return (trainer.progress.updates - before) * STEPS * ENVS

    return update


def rate(steps):
    """Environment steps per second of the processor."""
    done, start = 0, time.process_time()
    while time.process_time() - start < SECONDS:
        done += steps()
    return done / (time.process_time() - start)


def test_the_trainer_beside_a_plain_loop():
    """Medians over rounds, in which all take turns."""
    kinds = {
        "environment alone": alone(), "plain A2C": plain(), "A2C": ours(algorithm="a2c"),
        "MGRL, online": ours(algorithm="mgrl"), "MGRL + LVC, online": ours(algorithm="mgrl-lvc"),
    }  # fmt: skip
    rounds = [{name: rate(steps) for name, steps in kinds.items()} for _ in range(ROUNDS)]
    print(f"\nCartPole, {ENVS} environments, one thread: environment steps per second, and to plain A2C's")
    for name in kinds:
        ratio = statistics.median(r[name] / r["plain A2C"] for r in rounds)
        print(f"{name:20s}{statistics.median(r[name] for r in rounds):10,.0f}{ratio:8.2f}")
    assert statistics.median(r["A2C"] / r["plain A2C"] for r in rounds) >= 0.6
    assert statistics.median(r["MGRL + LVC, online"] / r["A2C"] for r in rounds) >= 0.4
