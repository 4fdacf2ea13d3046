import pytest
import torch
from torch.testing import assert_close

from gm_exact import TabularMDP, evaluate, expectation, gradient, hessian, trajectories, value

F64 = torch.float64
SIZES = [(2, 2, 4), (3, 2, 3), (2, 3, 2)]  # states, actions, horizon


def discounts(every, discount):
    return discount ** torch.arange(every.rewards.shape[-1], dtype=F64)


def dice(discount):
    """Σ_t γᵗ r_t box_{≤t}, box_{≤t} = exp(Σ_{u≤t} log π_u − ⊥Σ_{u≤t} log π_u)."""

    def surrogate(log_prob, every):
        past = log_prob.cumsum(-1)
        return (discounts(every, discount) * every.rewards * (past - past.detach()).exp()).sum(-1)

    return surrogate


def reinforce(discount):
    """Σ_t log π_t Σ_{u≥t} γᵘ r_u."""

    def surrogate(log_prob, every):
        to_go = (discounts(every, discount) * every.rewards).flip(-1).cumsum(-1).flip(-1)
        return (log_prob * to_go).sum(-1)

    return surrogate


@pytest.fixture(params=SIZES, ids=str)
def problem(request, make_mdp, normal):
    n_states, n_actions, horizon = request.param
    return make_mdp(n_states=n_states, n_actions=n_actions), normal(n_states, n_actions), horizon


def test_probabilities_sum_to_one_and_the_return_is_the_value(problem):
    mdp, params, horizon = problem
    every = trajectories(mdp, horizon)
    assert every.states.shape[0] == mdp.n_states * (mdp.n_actions * mdp.n_states) ** horizon
    assert len({(*s, *a) for s, a in zip(every.states.tolist(), every.actions.tolist(), strict=True)}) == len(
        every.states
    )
    probability = every.probability(params)
    assert_close(probability.sum(), torch.tensor(1.0, dtype=F64), rtol=0, atol=1e-12)
    total = (discounts(every, mdp.discount) * every.rewards).sum(-1)
    assert_close(probability @ total, value(mdp, params, horizon), rtol=0, atol=1e-12)
    terminal = params.sum(-1)
    bootstrapped = total + mdp.discount**horizon * terminal[every.states[:, -1]]
    assert_close(probability @ bootstrapped, value(mdp, params, horizon, terminal), rtol=0, atol=1e-12)
    # the product rule on p(τ; θ) itself
    theta = params.clone().requires_grad_()
    (slope,) = torch.autograd.grad(every.probability(theta) @ bootstrapped, theta)
    assert_close(slope, gradient(mdp, params, horizon, terminal), rtol=0, atol=1e-12)


def test_dice_has_the_exact_gradient_and_hessian(problem):
    mdp, params, horizon = problem
    result = expectation(dice(mdp.discount), mdp, params, horizon)
    assert_close(result.value, value(mdp, params, horizon), rtol=0, atol=1e-12)
    assert_close(result.gradient, gradient(mdp, params, horizon), rtol=0, atol=1e-10)
    assert_close(result.hessian, hessian(mdp, params, horizon), rtol=0, atol=1e-10)


def test_a_discount_one_percent_off_is_seen(problem):
    mdp, params, horizon = problem
    result = expectation(dice(0.99 * mdp.discount), mdp, params, horizon)
    assert (result.gradient - gradient(mdp, params, horizon)).abs().max() > 1e-4
    assert (result.hessian - hessian(mdp, params, horizon)).abs().max() > 1e-4


def test_reinforce_has_the_exact_gradient_and_another_hessian(problem):
    mdp, params, horizon = problem
    result = expectation(reinforce(mdp.discount), mdp, params, horizon)
    assert_close(result.gradient, gradient(mdp, params, horizon), rtol=0, atol=1e-10)
    assert (result.hessian - hessian(mdp, params, horizon)).abs().max() > 1e-2


def single_ratios(discount):
    """Σ_t box_t Σ_{u≥t} γᵘ r_u, box_t = π_t / ⊥π_t."""

    def surrogate(log_prob, every):
        to_go = (discounts(every, discount) * every.rewards).flip(-1).cumsum(-1).flip(-1)
        return ((log_prob - log_prob.detach()).exp() * to_go).sum(-1)

    return surrogate


def test_ratios_of_single_steps_have_the_hessian_of_the_local_approximation(problem):
    """What an action does to later steps is a number to them: occupancy and advantages stay as they are."""
    mdp, params, horizon = problem
    result, evaluation = expectation(single_ratios(mdp.discount), mdp, params, horizon), evaluate(mdp, params, horizon)
    basis = torch.eye(params.numel(), dtype=F64).reshape(-1, *params.shape)
    local = evaluation.local_hessian_vector_product(basis).reshape(result.hessian.shape)
    assert_close(result.hessian, local, rtol=0, atol=1e-12)
    assert_close(result.gradient, evaluation.gradient, rtol=0, atol=1e-12)
    assert (local - hessian(mdp, params, horizon)).abs().max() > 1e-2


@pytest.mark.parametrize("horizon", [None, 3])
def test_the_local_approximation_by_autograd(make_mdp, normal, horizon):
    """Several MDPs and directions at once."""
    mdp, params, vectors = make_mdp(4), normal(4, 3, 2).requires_grad_(), normal(2, 4, 3, 2, seed=3)
    evaluation = evaluate(mdp, params.detach(), horizon)
    local = (params.softmax(-1) * evaluation.weighted_advantage).sum()
    (slope,) = torch.autograd.grad(local, params, create_graph=True)
    expected = [torch.autograd.grad((slope * v).sum(), params, retain_graph=True)[0] for v in vectors]
    assert_close(evaluation.local_hessian_vector_product(vectors), torch.stack(expected), rtol=0, atol=1e-12)


def test_the_weights_carry_no_gradient(problem):
    mdp, params, horizon = problem
    result = expectation(lambda log_prob, every: every.rewards.sum(-1), mdp, params.requires_grad_(), horizon)
    assert result.gradient.count_nonzero() == result.hessian.count_nonzero() == 0
    assert not result.value.requires_grad


def test_impossible_trajectories_are_dropped():
    # action 0 stays, action 1 switches: from state 0 one trajectory per sequence of actions
    transition = torch.stack([torch.eye(2, dtype=F64), torch.eye(2, dtype=F64).flip(0)], dim=1)
    mdp = TabularMDP(transition, torch.tensor([[1, 2], [3, 4]], dtype=F64), 0, 0.9)
    every = trajectories(mdp, 2, max_trajectories=4)
    assert every.actions.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert every.states.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]]
    assert every.rewards.tolist() == [[1, 1], [1, 2], [2, 3], [2, 4]]
    assert every.environment_probability.tolist() == [1, 1, 1, 1]


def test_probabilities_of_many_policies_at_once(make_mdp, normal):
    every, params = trajectories(make_mdp(), 2), normal(4, 3, 2)
    assert_close(every.probability(params), torch.stack([every.probability(theta) for theta in params]))


def test_what_cannot_be_enumerated_is_refused(make_mdp, normal):
    mdp, params = make_mdp(), normal(3, 2)
    # 3 first states, then 2 actions × 3 next states at each step: 3 · 6²³ and 3 · 6²
    with pytest.raises(ValueError, match="expected at most 1000000 trajectories, got 2369190669160808448 in 23 steps"):
        trajectories(mdp, 23)
    with pytest.raises(ValueError, match="expected at most 107 trajectories, got 108 in 2 steps"):
        expectation(dice(0.9), mdp, params, 2, max_trajectories=107)
    assert len(trajectories(mdp, 2, max_trajectories=108).states) == 108
    with pytest.raises(ValueError, match="horizon: expected a positive integer, got 0"):
        trajectories(mdp, 0)
    with pytest.raises(ValueError, match=r"mdp: expected no batch axes, got \(2,\)"):
        trajectories(make_mdp(2), 2)
    with pytest.raises(ValueError, match=r"params: expected shape \(3, 2\), got \(2, 3\)"):
        expectation(dice(0.9), mdp, params.T, 2)
    with pytest.raises(ValueError, match=r"surrogate: expected shape \(108,\), got \(108, 2\)"):
        expectation(lambda log_prob, every: log_prob, mdp, params, 2)
