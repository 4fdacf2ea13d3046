"""What a LOLA learner reports beside its estimate: the one with an exact outer gradient."""

import numpy as np
import torch
from torch.testing import assert_close

from gm_estimators import decompose
from gm_experiments.lola.learner import Learner
from gm_experiments.lola.settings import Arm, Game


def test_outer_exact_is_the_permutation_sse_on_the_same_trajectories():
    game = Game(horizon=5, evaluation_size=2)
    mine, other = (Learner(game, Arm("", inner=4, hessian=5, outer=3), 2, np.random.default_rng(0)) for _ in range(2))
    for learner in (mine, other):
        learner.policies += torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = mine.estimate(mine.start())
    start = other.start()
    terms = {"inner_steps": game.inner_steps, "inner_lr": game.inner_lr}
    size = other.sizes(start)
    expected = decompose(other.look_ahead(start), [other.estimator], permutations=["SSE"], sizes=[size], **terms)
    assert found.outer_exact is not None
    assert_close(found.outer_exact, expected[other.estimator.name, "SSE", size], rtol=1e-5, atol=1e-7)
    assert (found.outer_exact - found.gradient).abs().max() > 1e-3
