"""The joint table of a ring: both behaviours over player 1's states."""

import numpy as np
import torch
from torch.testing import assert_close

from gm_envs_ipd import ReplayRing, draws, rollout

F64 = torch.float64


def test_what_was_played_has_the_same_log_probability_in_the_joint_table():
    params = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    ring = ReplayRing(6, (2,), 5)
    for seed in (0, 1):
        ring.add(rollout(params + seed, draws(np.random.default_rng(seed), (2,), 3, 5)), params + seed)
    replayed = ring.replay()
    outcome = replayed.outcome.long()
    state = torch.nn.functional.pad(outcome[..., :-1] + 1, (1, 0))  # player 1's: the start, or the last joint outcome
    entry = 4 * state + outcome
    found = replayed.joint_table().flatten(-2).gather(-1, entry)
    assert_close(found, replayed.behaviour_log_prob(), rtol=0, atol=1e-13)


def test_the_joint_table_of_two_strategies_by_hand():
    """Player 1's log-odds of action 0 are s in its state s; player 2's 10 s in its own, (own, other)."""
    own = torch.arange(5, dtype=F64)
    ring = ReplayRing(1, (), 1)
    ring.add(torch.zeros(1, 1, dtype=torch.uint8), torch.stack((own, 10 * own)))
    table = ring.replay().joint_table()[0]
    seen_by_2 = torch.tensor([0, 1, 3, 2, 4], dtype=F64)  # (a¹, a²) is (own, other) for player 1, (other, own) for 2
    for s in range(5):
        for o in range(4):
            first, second = divmod(o, 2)
            x, y = own[s], 10 * seen_by_2[s]
            expected = torch.log(torch.sigmoid(-x if first else x)) + torch.nn.functional.logsigmoid(
                -y if second else y
            )
            assert_close(table[s, o], expected, rtol=0, atol=1e-12)
