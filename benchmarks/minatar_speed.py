"""MinAtar's steps per second: the environments alone, a plain A2C, ours with log, checkpoints and everything.

    uv run benchmarks/minatar_speed.py
    uv run --with stable-baselines3 benchmarks/minatar_speed.py --games breakout --others

All on one thread, with 64 environments, 5 steps, one convolution of 16 filters and 128 units, in turns: what else a
machine does then slows all of them. A line has the median over turns of steps per second of wall time, and of the
processor's time, which others on the machine slow less. `--others` adds the A2C of Stable-Baselines3, which must be
installed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from gm_experiments.mgrl_minatar import problem, run, settings

ENVS, STEPS, RATE = 64, 5, 5e-3
Turn = Callable[[int], int]
"""It makes about so many steps and says how many it has made."""


class Plain(nn.Module):
    """The network as a module."""

    def __init__(self, channels: int, actions: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(
            nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU()
        )
        self.policy, self.value = nn.Linear(128, actions), nn.Linear(128, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and values."""
        features = self.shared(x)
        return self.policy(features), self.value(features).squeeze(-1)


def plain_a2c(game: str, updates: int, seed: int = 0) -> list[float]:
    """A2C as one writes it down, with nothing beside it; the returns of finished episodes."""
    env = problem.vector(game, ENVS)
    seen, _ = env.reset(seed=seed)
    torch.manual_seed(seed)
    net = Plain(seen.shape[-1], int(env.single_action_space.n))
    adam = torch.optim.Adam(net.parameters(), RATE)
    decay = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, updates)
    x, running, returns = images(seen), np.zeros(ENVS), list[float]()
    for _ in range(updates):
        states, actions, rewards, going = [], [], [], []
        for _ in range(STEPS):
            with torch.no_grad():
                action = torch.multinomial(net(x)[0].softmax(-1), 1).squeeze(-1)
            seen, reward, ended, _, _ = env.step(action.numpy())
            states.append(x)
            actions.append(action)
            rewards.append(torch.from_numpy(reward).float())
            going.append(torch.from_numpy(~ended).float())
            running += reward
            returns += running[ended].tolist()
            running[ended] = 0
            x = images(seen)
        logits, value = net(torch.cat(states))
        value = value.view(STEPS, ENVS)
        with torch.no_grad():
            after = [*value.detach()[1:], net(x)[1]]
        advantage, ahead = torch.zeros(STEPS, ENVS), torch.zeros(ENVS)
        for t in reversed(range(STEPS)):
            delta = rewards[t] + 0.99 * going[t] * after[t] - value[t].detach()
            ahead = advantage[t] = delta + 0.99 * 0.95 * going[t] * ahead
        log_prob = logits.log_softmax(-1)
        chosen = log_prob.gather(1, torch.cat(actions).unsqueeze(1)).squeeze(1)
        entropy = -(log_prob.exp() * log_prob).sum(-1).mean()
        error = (value - (advantage + value.detach())).square().mean()
        loss = 0.5 * error - (advantage.flatten() * chosen).mean() - 0.01 * entropy
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        adam.step()
        decay.step()
    return returns


def images(seen: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> torch.Tensor:
    """Observations in the order in which convolutions take them."""
    return torch.from_numpy(seen).permute(0, 3, 1, 2).float()


def environments_alone(game: str) -> Turn:
    """Random actions."""
    env = problem.vector(game, ENVS)
    env.reset(seed=0)
    draw = np.random.default_rng(0)

    def turn(steps: int) -> int:
        for _ in range(steps // ENVS):
            env.step(draw.integers(0, env.single_action_space.n, ENVS))
        return steps // ENVS * ENVS

    return turn


def plain(game: str) -> Turn:
    """The plain A2C."""

    def turn(steps: int) -> int:
        plain_a2c(game, steps // (ENVS * STEPS))
        return steps // (ENVS * STEPS) * ENVS * STEPS

    return turn


def ours(game: str, algorithm: str, conditioned: bool = True) -> Turn:
    """A cell of the app, from nothing to its rows; unless the critic is told γ, the network is the plain one."""

    def turn(steps: int) -> int:
        flags = {"algorithms": (algorithm,), "seeds": 1, "env_steps": steps, "conditioned": conditioned}
        asked = settings.Settings(games=(game,), **flags)  # type: ignore[arg-type]
        (cell,) = settings.cells(asked)
        with tempfile.TemporaryDirectory() as folder:
            rows = run.run_cell(cell, replace(run.prepare(asked), run_dir=Path(folder)))
        return int(rows[-1]["env_steps"])

    return turn


def stable_baselines3(game: str) -> Turn:
    """Its A2C, with the same network and settings."""
    from stable_baselines3 import A2C
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import DummyVecEnv

    class Shared(BaseFeaturesExtractor):
        def __init__(self, space: object) -> None:
            super().__init__(space, 128)
            self.shared = Plain(space.shape[-1], 1).shared  # type: ignore[attr-defined]

        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            """What policy and critic share."""
            features: torch.Tensor = self.shared(seen.permute(0, 3, 1, 2))
            return features

    env = DummyVecEnv([lambda: problem.single(game)] * ENVS)
    network = {"features_extractor_class": Shared, "net_arch": [], "optimizer_class": torch.optim.Adam}
    learner = A2C(
        "MlpPolicy", env, RATE, n_steps=STEPS, gamma=0.99, gae_lambda=0.95, ent_coef=0.01, vf_coef=0.5,
        use_rms_prop=False, policy_kwargs=network, device="cpu", seed=0,
    )  # fmt: skip

    def turn(steps: int) -> int:
        learner.learn(steps, reset_num_timesteps=True)
        return int(learner.num_timesteps)

    return turn


def measured(turns: dict[str, Turn], steps: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Medians over rounds of steps per second of wall time and of the processor's, each in turn in every round."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for turn in turns.values():
        turn(ENVS * STEPS)
    for _ in range(rounds):
        for name, turn in turns.items():
            wall, work = time.perf_counter(), time.process_time()
            done = turn(steps)
            rates[name].append((done / (time.perf_counter() - wall), done / (time.process_time() - work)))
    return {name: (median(a for a, _ in each), median(b for _, b in each)) for name, each in rates.items()}


def main() -> None:
    """Measures and prints a table for each game."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--games", nargs="+", default=list(settings.GAMES))
    flags.add_argument("--steps", type=int, default=32_000, help="steps of a turn")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--others", action="store_true", help="Stable-Baselines3 as well")
    asked = flags.parse_args()
    torch.set_num_threads(1)
    for game in settings.games_of(settings.Settings(games=tuple(asked.games))):
        turns = {"environments alone": environments_alone(game), "plain A2C": plain(game)}
        turns["ours, a2c, the same network"] = ours(game, "a2c", conditioned=False)
        turns |= {f"ours, {name}": ours(game, name) for name in ("a2c", "mgrl", "mgrl-lvc")}
        if asked.others:
            turns["Stable-Baselines3's A2C"] = stable_baselines3(game)
        found = measured(turns, asked.steps, asked.rounds)
        print(f"\n{game}: steps per second of wall time, of the processor's time, times the plain A2C")
        for name, (wall, work) in found.items():
            print(f"{name:30} {wall:9,.0f} {work:9,.0f} {wall / found['plain A2C'][0]:7.2f}", flush=True)


if __name__ == "__main__":
    main()
