import inspect
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
    with pytest.raises(ValueError, match="expected a ring that is not empty, got an empty one"):
        ring.replay()
    ring.add(*sample(0))
    for age in (-1, True):
        with pytest.raises(ValueError, match=f"max_age: expected an integer of at least 0, got {age}"):
            ring.replay(max_age=age)
    with pytest.raises(ValueError, match="max_age: expected an integer of at least 0, got nan"):
        inspect.unwrap(ReplayRing.replay)(ring, max_age=math.nan)  # every age would be below it
    with pytest.raises(ValueError, match="outcome: expected joint outcomes 0 to 3, got 4"):
        ring.add(torch.full_like(outcome, 4), sample(0)[1])
    for capacity, horizon in ((0, 6), (True, 6), (6, 0)):
        with pytest.raises(ValueError, match=r"(capacity|horizon): expected an integer of at least 1, got "):
            ReplayRing(capacity, (3,), horizon)
    with pytest.raises(ValueError, match=r"outcome: expected torch.uint8 of shape \(6, 3, 9\), got .* of \(6, 3, 10\)"):
        ReplayRing(9, (3,), 6).load_state_dict(ring.state_dict())


def test_actions_that_are_never_played_have_log_probability_minus_infinity(ring):
    """Log-odds of ±∞: what was played has log-probability 0, and nothing is NaN."""
    outcome, params = sample(0)
    never = torch.where(params > 0, torch.inf, -torch.inf).to(F64)
    outcome = rollout(never, draws(np.random.default_rng(0), (3,), 4, 6))
    ring.add(outcome, never)
    replayed = ring.replay()
    assert (replayed.behaviour_log_prob() == 0).all()
    assert not replayed.joint_table().isnan().any()
    ring.add(3 - outcome, never)  # nobody did this
    assert ring.replay().behaviour_log_prob().min() == -torch.inf


def test_parameters_that_require_a_gradient_leave_none_in_the_ring(ring):
    outcome, params = sample(0)
    ring.add(outcome, params.requires_grad_())
    assert not ring.replay().behaviour.requires_grad


def test_integers_of_numpy_are_integers():
    ring = ReplayRing(np.int64(4), (3,), np.int32(6))
    ring.add(*sample(0))
    assert ring.replay(max_age=np.int64(0)).age.tolist() == [0] * 4


@pytest.fixture(scope="module")
def rings() -> tuple[ReplayRing, ReplayRing]:
    two = ReplayRing(10, (3,), 6), ReplayRing(10, (3,), 6)
    for number, ring in enumerate(two):
        for seed in range(2):
            ring.add(*sample(seed + 7 * number))
    return two


@given(data=st.data())
def test_a_state_that_no_ring_was_ever_in_is_refused_and_changes_nothing(rings, data):
    ring, other = rings
    state, before = ring.state_dict(), other.state_dict()
    name = data.draw(st.sampled_from(sorted(state)))
    if isinstance(state[name], torch.Tensor):
        bad = {"outcome": [4, 255], "behaviour": [math.nan, 1e-300, math.inf], "born": [-1, 2, 2**62]}[name]
        state[name].view(-1)[data.draw(st.integers(0, state[name].numel() - 1))] = data.draw(st.sampled_from(bad))
        state[name] = data.draw(st.sampled_from([state[name], state[name][..., :1], "x", None]))
    else:
        state[name] = data.draw(st.sampled_from([-1, True, 1.5, "x", None, *([11] if name != "additions" else [])]))
    with pytest.raises(ValueError, match=f"{name}: expected "):
        inspect.unwrap(ReplayRing.load_state_dict)(other, state)
    assert all(np.array_equal(value, before[key]) for key, value in other.state_dict().items())
