"""The batched LOLA meta-gradient against the plain loop, on the same trajectories."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import gm_envs_ipd
from gm_estimators import decompose
from gm_experiments.lola import Arm, Game, Learner
from gm_experiments.lola.arena import JointTrajectories, Player
from reading import lola

F64 = torch.float64
GAME = Game(horizon=5, evaluation_size=4, replay_capacity=9)
ARMS = {
    "shared": Arm("", inner=4, hessian=4, outer=3, shared=True),
    "apart": Arm("", inner=4, hessian=5, outer=3),
    "replay": Arm("", inner=4, hessian=4, outer=3, shared=True, replay_inner=True, replay_hessian=True),
    "replay inner": Arm("", inner=4, hessian=5, outer=3, replay_inner=True),
    "replay hessian": Arm("", inner=4, hessian=5, outer=3, replay_hessian=True),
    "no baseline": Arm("", inner=4, hessian=5, outer=3, baseline=False),
}


@dataclass
class Recorder:
    """A player that keeps what another one plays."""

    player: Player
    played: dict[tuple[str, int], JointTrajectories] = field(default_factory=dict)

    def play(self, step, roles, policies):
        samples = self.player.play(step, roles, policies)
        self.played |= {(role, step): sample for role, sample in samples.items()}
        return samples


def plain_trajectories(sample: JointTrajectories, seed: int, learner: int) -> list[lola.Played]:
    """One seed's trajectories of one learner as the plain loop reads them."""
    rounds = [[(o >> 1, o & 1) for o in one] for one in sample.outcome[seed, learner].tolist()]
    if sample.behaviour is None:
        return [lola.Played(one) for one in rounds]
    table = sample.behaviour[seed, learner][sample.group[learner]]  # log μ¹μ²(o | s) in player 1's states
    first = table.unflatten(-1, (2, 2)).logsumexp(-1)
    second = table.unflatten(-1, (2, 2)).logsumexp(-2)
    logits = torch.stack((first[..., 0] - first[..., 1], second[..., 0] - second[..., 1]), 1)
    return [lola.Played(one, tuple(gm_envs_ipd.joint_view(pair))) for one, pair in zip(rounds, logits, strict=True)]


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("name", ARMS)
def test_the_batched_meta_gradient_is_the_plain_loops(name, inner_steps):
    arm = ARMS[name]
    learner = Learner(replace(GAME, inner_steps=inner_steps), arm, 2, np.random.Generator(np.random.SFC64(0)), F64)
    draw = torch.Generator().manual_seed(0)
    for table in (learner.policies, learner.critics):
        table += torch.randn(table.shape, generator=draw, dtype=F64)
    start = learner.start()
    problem = learner.look_ahead(start)
    recorder = Recorder(problem.player, {(role, 0): sample for role, sample in start.samples.items()})
    (estimate,) = decompose(
        replace(problem, player=recorder),
        [learner.estimator],
        permutations=["SSS"],
        sizes=[learner.sizes(start)],
        inner_steps=inner_steps,
        inner_lr=GAME.inner_lr,
    ).values()
    game = lola.Game(gm_envs_ipd.GAMES["ipd"].payoffs, GAME.discount)
    for seed in (0, 1):
        policies = tuple(gm_envs_ipd.joint_view(learner.policies)[seed])
        values = gm_envs_ipd.joint_view(learner.critics)[seed]
        for player in (0, 1):
            inner_values = values if arm.baseline else torch.zeros_like(values)
            critics = [[0.0] * 5, [0.0] * 5]
            critics[player], critics[1 - player] = values[player].tolist(), inner_values[1 - player].tolist()

            def sample(role, step, _at, seed=seed, player=player):
                return plain_trajectories(recorder.played[role, step], seed, player)

            plain = lola.meta_gradient(
                game,
                policies,
                critics,
                player,
                sample,
                inner_steps=inner_steps,
                inner_lr=GAME.inner_lr,
                shared=arm.shared,
            )
            assert_close(gm_envs_ipd.joint_view(estimate[seed])[player], plain, rtol=1e-10, atol=1e-10)
