import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gm_envs_tabular import random_mdp, rollout, successors, uniforms

F64 = torch.float64
ALMOST_ONE = float(np.nextafter(1.0, 0.0))


def tables(*shape: int, seed: int = 0, concentration: float = 0.5) -> tuple[Tensor, Tensor]:
    """π and p of shape `[*batch, state, action]` and `[*batch, state, action, state]`."""
    *batch, states, actions = shape
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet([concentration] * states, (*batch, states, actions))
    policy = rng.dirichlet([concentration] * actions, (*batch, states))
    return torch.from_numpy(policy), torch.from_numpy(transition)


def step_by_step(policy: Tensor, transition: Tensor, uniform: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """One trajectory after another: the first outcome of the joint distribution whose cumulative sum exceeds u."""
    next_state, probability = successors(transition)
    state = torch.full((uniform.shape[0], uniform.shape[1] + 1), start)
    action = torch.zeros(uniform.shape, dtype=torch.int64)
    for n, t in np.ndindex(*uniform.shape):
        s, total = int(state[n, t]), 0.0
        outcomes = [(a, k) for a in range(policy.shape[-1]) for k in range(probability.shape[-1])]
        for a, k in outcomes:
            total += float(policy[s, a] * probability[s, a, k])
            if uniform[n, t] < total:
                break
        action[n, t], state[n, t + 1] = a, next_state[s, a, k]
    return state, action


@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (3, 1), (1, 1), (5, 2)], ids=str)
@pytest.mark.parametrize("horizon", [1, 7])
def test_it_takes_the_steps_that_a_plain_loop_takes(shape, horizon):
    policy, transition = tables(*shape)
    uniform = uniforms(np.random.default_rng(1), (), 40, horizon)
    found = rollout(policy, successors(transition), uniform, shape[0] - 1)
    state, action = step_by_step(policy, transition, uniform, shape[0] - 1)
    assert torch.equal(found.state, state)
    assert torch.equal(found.action, action)
    assert found.state.dtype == found.action.dtype == torch.int64


def frequencies_off(policy: Tensor, transition: Tensor, assumed: Tensor) -> float:
    """The largest deviation of the frequencies of (a, s′) given s from assumed probabilities, in standard errors."""
    numbers = uniforms(np.random.default_rng(2), (), 20_000, 5)
    state, action = rollout(policy, successors(transition), numbers)
    states, actions = policy.shape
    cell = (state[:, :-1] * actions + action) * states + state[:, 1:]
    counts = cell.flatten().bincount(minlength=states * actions * states).reshape(states, -1).to(F64)
    visits = counts.sum(-1, keepdim=True)
    p = assumed.reshape(states, -1)
    possible = (p > 1e-3) & (visits > 0)
    return float(((counts - visits * p).abs() / (visits * p * (1 - p)).sqrt())[possible].max())


@pytest.mark.parametrize("concentration", [0.5, 10.0])
def test_actions_and_transitions_have_their_probabilities(concentration):
    # 60 frequencies within 4 standard errors: P(any beyond) < 60 · 6.4e-5 = 0.4 %
    policy, transition = tables(4, 3, concentration=concentration)
    joint = policy.unsqueeze(-1) * transition
    assert frequencies_off(policy, transition, joint) < 4
    wrong = policy * torch.tensor([1.1, 1.0, 0.9])
    wrong = wrong / wrong.sum(-1, keepdim=True)
    assert frequencies_off(policy, transition, wrong.unsqueeze(-1) * transition) > 4
    swapped = policy.unsqueeze(-1) * transition.flip(1)
    assert frequencies_off(policy, transition, swapped) > 4


def test_the_states_after_one_step_have_their_probabilities_from_every_start():
    policy, transition = tables(4, 3)
    numbers = uniforms(np.random.default_rng(3), (), 20_000, 1)
    for start in range(4):
        state = rollout(policy, successors(transition), numbers, start).state
        assert (state[:, 0] == start).all()
        p = policy[start] @ transition[start]
        found = state[:, 1].bincount(minlength=4) / 20_000
        assert ((found - p).abs() <= 4 * (p * (1 - p) / 20_000).sqrt()).all()


def test_fewer_trajectories_are_the_first_of_many():
    policy, transition = tables(2, 4, 3)
    many = rollout(policy, successors(transition), uniforms(np.random.default_rng(4), (2,), 50, 6))
    few = rollout(policy, successors(transition), uniforms(np.random.default_rng(4), (2,), 8, 6))
    assert torch.equal(many.first(8).state, few.state)
    assert torch.equal(many.first(8).action, few.action)
    assert not torch.equal(many.action[:, 8:16], few.action)


def test_each_batch_element_is_its_own_problem():
    policy, transition = tables(2, 3, 4, 3)
    numbers = uniforms(np.random.default_rng(5), (2, 3), 10, 6)
    found = rollout(policy, successors(transition), numbers, 1)
    assert found.state.shape == (2, 3, 10, 7)
    assert found.action.shape == (2, 3, 10, 6)
    for i, j in np.ndindex(2, 3):
        alone = rollout(policy[i, j], successors(transition[i, j]), numbers[i, j], 1)
        assert torch.equal(found.state[i, j], alone.state)
        assert torch.equal(found.action[i, j], alone.action)


@pytest.mark.parametrize("axes", [(), (3,), (2, 1)], ids=str)
def test_transitions_broadcast_to_the_policies(axes):
    policy, _ = tables(2, 3, 4, 3)
    _, transition = tables(*axes, 4, 3, seed=1)
    numbers = uniforms(np.random.default_rng(6), (2, 3), 10, 6)
    broadcast = rollout(policy, successors(transition), numbers)
    full = rollout(policy, successors(transition.expand(2, 3, 4, 3, 4)), numbers)
    assert torch.equal(broadcast.state, full.state)
    assert torch.equal(broadcast.action, full.action)


@pytest.mark.parametrize("number", [0.0, 0.5, ALMOST_ONE])
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_deterministic_policy_takes_its_action_at_every_number(number, taken):
    _, transition = tables(3, 3)
    policy = torch.eye(3, dtype=F64)[[taken] * 3]
    found = rollout(policy, successors(transition), torch.full((4, 5), number, dtype=F64))
    assert (found.action == taken).all()


@pytest.mark.parametrize("number", [0.0, 0.3, ALMOST_ONE])
def test_what_cannot_happen_does_not(number):
    # the first and the last action, and the first and the last state, have probability zero
    policy = torch.tensor([[0.0, 0.3, 0.7, 0.0]] * 4, dtype=F64)
    transition = torch.tensor([0.0, 0.6, 0.4, 0.0], dtype=F64).expand(4, 4, 4)
    found = rollout(policy, successors(transition), torch.full((3, 6), number, dtype=F64), 1)
    assert ((found.action == 1) | (found.action == 2)).all()
    assert ((found.state == 1) | (found.state == 2)).all()


def test_rows_that_round_to_less_than_one_still_end_in_an_outcome_that_can_occur():
    policy = torch.tensor([[0.1] * 10 + [0.0]], dtype=F64)
    policy = policy * (1 - 1e-9)
    found = rollout(policy, successors(torch.ones(1, 11, 1, dtype=F64)), torch.full((1, 1), ALMOST_ONE, dtype=F64))
    assert found.action.item() == 9


def test_saturated_policies_take_their_action():
    logits = torch.zeros(4, 3, dtype=F64)
    logits[:, 2] = 800.0
    _, transition = tables(4, 3)
    numbers = uniforms(np.random.default_rng(7), (), 1000, 5)
    assert (rollout(logits.softmax(-1), successors(transition), numbers).action == 2).all()


def test_dense_and_sparse_transitions_keep_their_outcomes():
    for states, concentration in ((20, 0.001), (50, 10.0)):
        transition = random_mdp(np.random.default_rng(8), states=states, concentration=concentration).transition
        found = successors(transition)
        full = torch.zeros_like(transition).scatter_add_(-1, found.state, found.probability)
        torch.testing.assert_close(full, transition, rtol=0, atol=1e-15)
        assert found.probability.diff(dim=-1).max() <= 0
    assert found.state.shape[-1] == 50


def test_time_comes_first_in_memory():
    numbers = uniforms(np.random.default_rng(9), (2, 3), 4, 5)
    assert numbers.shape == (2, 3, 4, 5)
    assert numbers.movedim((-1, -2), (0, 1)).is_contiguous()
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert numbers.unique().numel() == numbers.numel()


def test_float32_policies_work():
    policy, transition = tables(4, 3)
    numbers = uniforms(np.random.default_rng(10), (), 200, 5)
    double = rollout(policy, successors(transition), numbers)
    single = rollout(policy.float(), successors(transition.float()), numbers)
    assert (double.action == single.action).float().mean() > 0.99


def test_what_does_not_fit_is_refused():
    policy, transition = tables(2, 4, 3)
    good, numbers = successors(transition), torch.zeros(2, 5, 6, dtype=F64)
    with pytest.raises(ValueError, match=r"uniform: expected batch axes \[2\] as the policy has, got \[3\]"):
        inspect.unwrap(rollout)(policy, good, torch.zeros(3, 5, 6, dtype=F64))  # without the test's shape checks
    for start in (4, -1, True):
        with pytest.raises(ValueError, match=f"start: expected an integer from 0 to 3, got {start}"):
            rollout(policy, good, numbers, start)
    with pytest.raises(ValueError, match="policy: expected rows that sum to 1, got sums up to 2"):
        rollout(2 * policy, good, numbers)
    with pytest.raises(ValueError, match="policy: expected rows that sum to 1, got sums up to nan"):
        rollout(policy * float("nan"), good, numbers)
    with pytest.raises(ValueError, match=r"transition: expected non-negative rows that sum to 1, .* sums from 2 to 2"):
        successors(2 * transition)
    wrong = transition.clone()
    wrong[0, 0, 0] = torch.tensor([-0.5, 1.5, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"transition: expected non-negative rows .* smallest entry of -0.5"):
        successors(wrong)
    with pytest.raises(ValueError, match=r"transition: expected non-negative rows .* smallest entry of nan"):
        successors(transition * float("nan"))
    with pytest.raises(ValueError, match=r"transition: expected shape \[..., state, action, state\], got \(3, 2, 4\)"):
        inspect.unwrap(successors)(torch.full((3, 2, 4), 0.25))
    with pytest.raises(ValueError, match=r"policy: expected \(4, 3\) states and actions .*, got \(1, 3\)"):
        inspect.unwrap(rollout)(policy[:, :1], good, numbers)


@given(
    entry=st.sampled_from([-1e-12, -0.5, -torch.inf, torch.nan]),
    where=st.tuples(st.integers(0, 3), st.integers(0, 2)),
)
def test_a_row_that_is_no_distribution_is_refused(entry, where):
    """Its sum may be 1: what the others have too much of hides a negative number."""
    policy, transition = tables(4, 3)
    state, action = where
    policy[state, action], policy[state, (action + 1) % 3] = entry, 0.0
    policy[state, (action + 2) % 3] = 1.0 - entry
    with pytest.raises(ValueError, match=r"policy: expected (probabilities of at least 0|rows that sum to 1)"):
        rollout(policy, successors(transition), torch.zeros(5, 6, dtype=F64))


@given(
    number=st.sampled_from([torch.nan, torch.inf, -torch.inf, -1e-300, 1.0, 7.0]),
    n=st.integers(0, 4),
    t=st.integers(0, 5),
)
def test_a_number_that_is_not_uniform_is_refused(number, n, t):
    """NaN would be the first outcome in every step, 1 the last."""
    policy, transition = tables(4, 3)
    numbers = torch.zeros(5, 6, dtype=F64)
    numbers[n, t] = number
    with pytest.raises(ValueError, match=r"uniform: expected numbers in \[0, 1\), got some from"):
        rollout(policy, successors(transition), numbers)


def test_a_masked_action_is_never_played():
    """Logits of −∞ are probabilities of 0, also where the number drawn is almost 1."""
    logits = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf], dtype=F64).expand(3, 4)
    _, transition = tables(3, 4)
    numbers = torch.linspace(0, ALMOST_ONE, 600, dtype=F64).reshape(100, 6)
    played = rollout(logits.softmax(-1), successors(transition), numbers).action.unique()
    assert played.tolist() == [0, 2]


def test_probabilities_that_require_a_gradient_are_taken_as_they_are():
    policy, transition = tables(2, 4, 3)
    numbers = uniforms(np.random.default_rng(0), (2,), 5, 6)
    plain = rollout(policy, successors(transition), numbers)
    learnt = rollout(policy.requires_grad_(), successors(transition.requires_grad_()), numbers)
    assert torch.equal(plain.state, learnt.state)
    assert torch.equal(plain.action, learnt.action)


@pytest.mark.parametrize(("size", "horizon"), [(0, 3), (3, 0), (-1, 3), (True, 3), (3, True)])
def test_sizes_that_are_none_are_refused(size, horizon):
    with pytest.raises(ValueError, match=r"(size|horizon): expected an integer of at least 1, got "):
        uniforms(np.random.default_rng(0), (), size, horizon)


def test_integers_of_numpy_are_integers():
    policy, transition = tables(4, 3)
    numbers = uniforms(np.random.default_rng(0), (), np.int64(5), np.int32(6))
    assert numbers.shape == (5, 6)
    found = rollout(policy, successors(transition), numbers, np.int64(2))
    assert torch.equal(found.state, rollout(policy, successors(transition), numbers, 2).state)


def test_there_is_no_rollout_of_no_steps():
    policy, transition = tables(4, 3)
    for shape in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="uniform: expected at least one trajectory of one step, got shape"):
            rollout(policy, successors(transition), torch.zeros(shape, dtype=F64))
