import inspect
import io

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gm_envs_ipd import ReplayRing, draws, log_policy, log_probs, rollout

F64 = torch.float64


def sample(seed: int, batch=(3,), size: int = 4, horizon: int = 6):
    """Trajectories with the parameters that drew them."""
    params = torch.randn(*batch, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return rollout(params, draws(np.random.default_rng(seed), batch, size, horizon)), params


@pytest.fixture
def ring() -> ReplayRing:
    return ReplayRing(10, (3,), 6)


def test_what_goes_in_comes_out_with_the_log_probabilities_of_its_behaviour(ring):
    for seed in (0, 1):
        ring.add(*sample(seed))
    replayed = ring.replay()
    assert len(ring) == 8
    assert ring.capacity == 10
    for k in (0, 1):
        outcome, params = sample(k)
        assert torch.equal(replayed.outcome[:, 4 * k : 4 * k + 4], outcome)
        expected = log_probs(log_policy(params).unsqueeze(-4), outcome).sum(-2)
        assert_close(replayed.behaviour_log_prob()[:, 4 * k : 4 * k + 4], expected)
    assert replayed.age.tolist() == [1] * 4 + [0] * 4


def test_the_oldest_are_overwritten(ring):
    for seed in range(3):
        ring.add(*sample(seed))
    replayed = ring.replay()
    third, _ = sample(2)
    assert len(ring) == 10
    assert replayed.age.tolist() == [0, 0, 2, 2, 1, 1, 1, 1, 0, 0]
    assert torch.equal(replayed.outcome[:, 8:], third[:, :2])
    assert torch.equal(replayed.outcome[:, :2], third[:, 2:])
    assert torch.equal(replayed.outcome[:, 2:4], sample(0)[0][:, 2:])
    assert torch.equal(replayed.behaviour[:, 0], log_policy(sample(2)[1]))
    assert torch.equal(replayed.behaviour[:, 2], log_policy(sample(0)[1]))


def test_a_maximum_age_leaves_out_the_older_ones(ring):
    for seed in range(3):
        ring.add(*sample(seed))
    young = ring.replay(max_age=1)
    assert young.age.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert young.outcome.shape == (3, 8, 6)
    assert young.behaviour_log_prob().shape == (3, 8, 6)
    assert ring.replay(max_age=5).age.numel() == 10
    assert torch.equal(ring.replay(max_age=0).outcome, ring.replay().outcome[:, [0, 1, 8, 9]])


def test_a_saved_ring_goes_on_as_if_nothing_had_happened(ring):
    for seed in range(3):
        ring.add(*sample(seed))
    file = io.BytesIO()
    torch.save(ring.state_dict(), file)
    file.seek(0)
    other = ReplayRing(10, (3,), 6)
    other.load_state_dict(torch.load(file, weights_only=True))
    for both in (ring, other):
        both.add(*sample(5))
    for mine, theirs in zip(ring.replay(), other.replay(), strict=True):
        assert torch.equal(mine, theirs)
    assert len(other) == len(ring)


def test_a_saved_state_is_a_copy(ring):
    ring.add(*sample(0))
    before = ring.state_dict()
    held = {name: value.clone() for name, value in before.items() if isinstance(value, torch.Tensor)}
    ring.add(*sample(1, size=10))
    assert all(torch.equal(before[name], value) for name, value in held.items())


def test_bad_input_is_refused(ring):
    with pytest.raises(ValueError, match=r"expected batch and horizon \(3, 6\) and at most 10 trajectories, got .* 11"):
        ring.add(*sample(0, size=11))
    with pytest.raises(ValueError, match=r"expected batch and horizon \(3, 6\)"):
        ring.add(*sample(0, horizon=5))
    outcome, params = sample(0)
    params[2, 1, 3] = torch.nan
    with pytest.raises(ValueError, match="params: expected log-odds, got NaN"):
        ring.add(outcome, params)
    with pytest.raises(ValueError, match=r"params: expected shape \(3, 2, 5\), got \(2, 5\)"):
        inspect.unwrap(ReplayRing.add)(ring, outcome, sample(0)[1][0])
    with pytest.raises(ValueError, match=r"expected a ring that is not empty and max_age ≥ 0, got 0 and None"):
        ring.replay()
    ring.add(*sample(0))
    with pytest.raises(ValueError, match="max_age ≥ 0, got 4 and -1"):
        ring.replay(max_age=-1)
    with pytest.raises(ValueError, match="capacity, horizon: expected at least 1, got 0 and 6"):
        ReplayRing(0, (3,), 6)
    with pytest.raises(ValueError, match=r"outcome: expected shape \(6, 3, 9\), got \(6, 3, 10\)"):
        ReplayRing(9, (3,), 6).load_state_dict(ring.state_dict())
