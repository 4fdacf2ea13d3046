"""The learnt critic against a loop over visits, and the sampling correction by hand."""

import pytest
import torch
from torch.testing import assert_close

from gm_estimators.corrections import sampling_correction
from gm_estimators.critics import learnt_values

F64 = torch.float64
STATES, GAMMA = 4, 0.6


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_state_is_worth_what_followed_its_visits_in_the_other_trajectories(size):
    draw = torch.Generator().manual_seed(size)
    reward = torch.randn(2, size, 6, generator=draw, dtype=F64)
    state = torch.randint(STATES, (2, size, 7), generator=draw)
    found = learnt_values(reward, state, GAMMA, STATES)
    for batch in range(2):
        for i in range(size):
            for t in range(6):
                followed = [
                    sum(GAMMA ** (v - u) * reward[batch, j, v].item() for v in range(u, 6))
                    for j in range(size)
                    for u in range(6)
                    if j != i and state[batch, j, u] == state[batch, i, t]
                ]
                expected = sum(followed) / len(followed) if followed else 0.0
                assert found[batch, i, t].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert (found[..., -1] == 0).all()


def test_the_sampling_correction_is_the_summed_score_times_what_was_gained():
    log_prob = -torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    log_prob.requires_grad_()
    outer = torch.tensor([2.0, -1.0], dtype=F64, requires_grad=True)
    found = sampling_correction(log_prob, outer, coefficient=0.5, baseline=0.4)
    assert_close(found, torch.zeros(2, dtype=F64))
    (by_log_prob,) = torch.autograd.grad((found * torch.tensor([1.0, 10.0])).sum(), log_prob, create_graph=True)
    # every log-probability of every trajectory counts c (J − b): 0.5 · 1.6, and 10 · 0.5 · (−1.4)
    assert_close(by_log_prob, torch.tensor([0.8, -7.0], dtype=F64)[:, None, None].expand(2, 3, 4))
    assert not by_log_prob.requires_grad  # what was gained is a constant, in second derivatives, too
