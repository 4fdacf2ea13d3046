"""What a LOLA learner has beside its estimate: those with more of it exact, and its critics' returns."""

import numpy as np
import torch
from torch.testing import assert_close

from gm_estimators import decompose
from gm_experiments.lola.arena import JointTrajectories
from gm_experiments.lola.learner import Learner
from gm_experiments.lola.settings import Arm, Game


def test_what_is_exact_beside_the_estimate_is_so_on_the_same_trajectories():
    game = Game(horizon=5, evaluation_size=2)
    mine, other = (Learner(game, Arm("", inner=4, hessian=5, outer=3), 2, np.random.default_rng(0)) for _ in range(2))
    for learner in (mine, other):
        learner.policies += torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = mine.estimate(mine.start())
    start = other.start()
    terms = {"inner_steps": game.inner_steps, "inner_lr": game.inner_lr}
    size = other.sizes(start)
    expected = decompose(other.look_ahead(start), [other.estimator], permutations=["SSE", "SEE"], sizes=[size], **terms)
    assert found.outer_exact is not None
    assert found.sampled_step is not None
    assert_close(found.outer_exact, expected[other.estimator.name, "SSE", size], rtol=1e-5, atol=1e-7)
    assert_close(found.sampled_step, expected[other.estimator.name, "SEE", size], rtol=1e-5, atol=1e-7)
    assert (found.outer_exact - found.gradient).abs().max() > 1e-3
    assert (found.outer_exact - found.sampled_step).abs().max() > 1e-3


def test_a_critic_is_told_its_own_players_returns():
    """G_t summed over the visits of each state in player 1's view, on average over trajectories."""
    learner = Learner(
        Game(horizon=4, critic="return"), Arm("", inner=4, hessian=5, outer=3), 2, np.random.default_rng(0)
    )
    outcome = torch.randint(4, (2, 2, 3, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    reward = learner.game.matrix_game().tensor().flatten(-2)
    expected = torch.zeros(2, 2, 5, dtype=torch.float64)
    for seed, player, n, t in np.ndindex(2, 2, 3, 4):
        to_go = sum(
            learner.game.discount ** (u - t) * reward[player, int(outcome[seed, player, n, u])] for u in range(t, 4)
        )
        state = 0 if t == 0 else 1 + int(outcome[seed, player, n, t - 1])
        expected[seed, player, state] += to_go / 3
    assert_close(learner._mean_returns(JointTrajectories(outcome)), expected, rtol=1e-6, atol=1e-6)
