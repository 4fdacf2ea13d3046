import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import gm_exact
from gm_exact import TabularMDP, evaluate, gradient, hessian, hessian_vector_product, value

F64 = torch.float64
HORIZONS = [None, 1, 4]


def two_states(start=0, device="cpu", dtype=F64) -> TabularMDP:
    """Action 0 stays, action 1 switches; every action in state 1 pays 1; γ = 1/2.

    With p, q = π(switch|0), π(switch|1): V(0) = ½[(1−p) V(0) + p V(1)] and V(1) = 1 + ½[(1−q) V(1) + q V(0)], hence
    J = V(0) = 2p / (1 + p + q). At θ = 0, p = q = ½.
    """
    stay, switch = torch.eye(2, dtype=dtype), torch.eye(2, dtype=dtype).flip(0)
    transition = torch.stack([stay, switch], dim=1)
    reward = torch.tensor([[0, 0], [1, 1]], dtype=dtype)
    return TabularMDP(transition.to(device), reward.to(device), start, 0.5)


@pytest.mark.parametrize("batch", [(), (3,), (2, 1)])
def test_two_states_solved_by_hand(kind, batch):
    device, dtype = kind
    mdp = two_states(device=device, dtype=dtype)
    params = torch.zeros(*batch, 2, 2, device=device, dtype=dtype)

    def check(actual, expected):
        expected = torch.tensor(expected, device=device, dtype=dtype)
        assert_close(actual, expected.expand((*batch, *expected.shape)))

    # the mean m of V solves m = ½ + m/2, so V = r + ½; d sums to 2, half of which arrives anywhere: d = start + ½
    check(gm_exact.policy(params), [[0.5, 0.5], [0.5, 0.5]])
    check(gm_exact.value(mdp, params), 1 / 2)
    check(gm_exact.state_values(mdp, params), [1 / 2, 3 / 2])
    check(gm_exact.action_values(mdp, params), [[1 / 4, 3 / 4], [7 / 4, 5 / 4]])
    check(gm_exact.occupancy(mdp, params), [3 / 2, 1 / 2])
    # ∂J/∂p = 2(1+q)/(1+p+q)² = 3/4, ∂J/∂q = −2p/(1+p+q)² = −1/4, and dp/dθ = ±p(1−p) = ±1/4
    check(gm_exact.gradient(mdp, params), [[-3 / 16, 3 / 16], [1 / 16, -1 / 16]])
    # d²p/dθ² = 0 at ½; ∂²J/∂p² = −4(1+q)/(1+p+q)³ = −3/4, ∂²J/∂q² = 4p/(1+p+q)³ = 1/4, ∂²J/∂p∂q = ½ − ¾ = −1/4
    signs, curvature = torch.tensor([-1.0, 1.0]), torch.tensor([[-3.0, -1.0], [-1.0, 1.0]]) / 64
    check(gm_exact.hessian(mdp, params), torch.einsum("sx,a,b->saxb", curvature, signs, signs).tolist())


def test_two_states_with_a_horizon_by_hand():
    params, terminal_value = torch.zeros(2, 2, dtype=F64), torch.tensor([0.0, 4.0], dtype=F64)
    # V_2 = (0, 4), V_1 = r + ½·2 = (1, 2), V_0 = r + ½·3/2 = (3/4, 7/4); d_0 = (1, 0), d_1 = ½(½, ½)
    evaluation = evaluate(two_states(), params, 2, terminal_value)
    assert_close(evaluation.values, torch.tensor([[0.75, 1.75], [1, 2], [0, 4]], dtype=F64))
    assert_close(evaluation.visits, torch.tensor([[1, 0], [0.25, 0.25]], dtype=F64))
    assert_close(evaluation.occupancy, torch.tensor([1.25, 0.25], dtype=F64))
    assert_close(evaluation.action_values, torch.tensor([[0.5, 1], [2, 1.5]], dtype=F64))
    # d_0: ½·1·(½ − ¾) = −1/8 in state 0; d_1: ½·¼·(0 − 1) = −1/8 in state 0 and ½·¼·(3 − 2) = 1/8 in state 1
    assert_close(evaluation.gradient, torch.tensor([[-1 / 4, 1 / 4], [1 / 8, -1 / 8]], dtype=F64))


def test_undiscounted_return_of_a_finite_horizon():
    mdp = two_states(start=1)
    undiscounted = TabularMDP(mdp.transition, mdp.reward, 1, 1.0)
    # one certain reward, then one with probability ½ at each of the 4 later steps
    assert_close(value(undiscounted, torch.zeros(2, 2, dtype=F64), 5), torch.tensor(3.0, dtype=F64))


def ends(horizon, terminal):
    return terminal if horizon else None


@pytest.mark.parametrize("horizon", HORIZONS)
def test_gradient_and_hessian_against_central_differences(make_mdp, normal, horizon):
    mdp, params, terminal = make_mdp(), normal(3, 2), ends(horizon, normal(3, seed=2))
    step = 1e-5
    shifts = step * torch.eye(6, dtype=F64).reshape(6, 3, 2)

    def difference(function):
        above, below = (function(mdp, params + sign * shifts, horizon, terminal) for sign in (1, -1))
        return (above - below) / (2 * step)

    assert_close(gradient(mdp, params, horizon, terminal), difference(value).reshape(3, 2), rtol=1e-7, atol=1e-9)
    curvature = hessian(mdp, params, horizon, terminal).reshape(6, 3, 2)
    assert_close(curvature, difference(gradient), rtol=1e-7, atol=1e-9)
    wrong = TabularMDP(mdp.transition, mdp.reward, mdp.start, mdp.discount * 0.99)
    if horizon != 1 or terminal is not None:
        error = (gradient(wrong, params, horizon, terminal) - difference(value).reshape(3, 2)).abs().max()
        assert error > 1e-4  # the comparison is sharp enough to reject a discount that is 1% off


SHAPES = [((), ()), ((3,), ()), ((), (3,)), ((3, 1), (4,)), ((2, 3), (2, 3))]


@pytest.mark.parametrize(("mdp_batch", "params_batch"), SHAPES)
@pytest.mark.parametrize("horizon", HORIZONS)
def test_closed_forms_against_autograd(make_mdp, normal, horizon, mdp_batch, params_batch):
    mdp, terminal = make_mdp(*mdp_batch), ends(horizon, normal(3, seed=2))
    batch = torch.broadcast_shapes(mdp_batch, params_batch)
    params = normal(*params_batch, 3, 2).expand(*batch, 3, 2).clone().requires_grad_()
    vector = normal(2, *batch, 3, 2, seed=3)  # an extra axis in front

    (oracle,) = torch.autograd.grad(value(mdp, params, horizon, terminal).sum(), params, create_graph=True)
    products = [torch.autograd.grad((oracle * v).sum(), params, retain_graph=True)[0] for v in vector]
    assert_close(gradient(mdp, params, horizon, terminal), oracle)
    actual = hessian_vector_product(mdp, params, vector, horizon, terminal)
    assert_close(actual, torch.stack(products))

    matrix = hessian(mdp, params, horizon, terminal)
    assert matrix.shape == (*batch, 3, 2, 3, 2)
    assert_close(torch.einsum("...saxb,...xb->...sa", matrix, vector), actual)
    assert_close(matrix, matrix.movedim((-2, -1), (-4, -3)))


@pytest.mark.parametrize(("mdp_batch", "params_batch"), SHAPES)
def test_every_result_has_the_broadcast_shape(make_mdp, normal, kind, mdp_batch, params_batch):
    device, dtype = kind
    mdp = make_mdp(*mdp_batch)
    mdp = TabularMDP(*(x.to(device, dtype) for x in (mdp.transition, mdp.reward, mdp.start)), mdp.discount)
    params = normal(*params_batch, 3, 2).to(device, dtype)
    batch = torch.broadcast_shapes(mdp_batch, params_batch)
    for horizon in HORIZONS:
        evaluation = evaluate(mdp, params, horizon)
        one_by_one = [
            evaluate(TabularMDP(p, r, s, mdp.discount), theta, horizon)
            for p, r, s, theta in zip(
                mdp.transition.expand(*batch, 3, 2, 3).reshape(-1, 3, 2, 3),
                mdp.reward.expand(*batch, 3, 2).reshape(-1, 3, 2),
                mdp.start.expand(*batch, 3).reshape(-1, 3),
                params.expand(*batch, 3, 2).reshape(-1, 3, 2),
                strict=True,
            )
        ]
        for name, axes in {"value": (), "state_values": (3,), "action_values": (3, 2), "occupancy": (3,)}.items():
            expected = torch.stack([getattr(each, name) for each in one_by_one]).reshape((*batch, *axes))
            assert_close(getattr(evaluation, name), expected)
            assert_close(getattr(gm_exact, name)(mdp, params, horizon), expected)
        assert evaluation.gradient.dtype == dtype


def test_only_the_reward_start_or_terminal_value_may_carry_the_batch(make_mdp, normal):
    mdp, params = make_mdp(), normal(3, 2)
    rewards, terminals = normal(4, 3, 2, seed=2), normal(4, 3, seed=3)
    starts = torch.eye(3, dtype=F64)
    assert_close(
        gradient(mdp.with_reward(rewards), params),
        torch.stack([gradient(mdp.with_reward(reward), params) for reward in rewards]),
    )
    assert_close(
        gradient(mdp, params, 3, terminals), torch.stack([gradient(mdp, params, 3, each) for each in terminals])
    )
    from_each_state = value(TabularMDP(mdp.transition, mdp.reward, starts, mdp.discount), params)
    assert_close(from_each_state, gm_exact.state_values(mdp, params))


@pytest.mark.parametrize("horizon", [None, 3])
def test_everything_is_differentiable_twice(make_mdp, normal, horizon):
    mdp, vector = make_mdp(n_states=2), normal(2, 2, seed=2)
    params, reward = normal(2, 2).requires_grad_(), normal(2, 2, seed=3).requires_grad_()

    def everything(params, reward):
        evaluation = evaluate(mdp.with_reward(reward), params, horizon)
        tangent = evaluation.tangent(vector)
        return evaluation.value, evaluation.occupancy, evaluation.gradient, tangent.gradient, tangent.occupancy

    assert torch.autograd.gradcheck(everything, (params, reward))
    assert torch.autograd.gradgradcheck(everything, (params, reward), fast_mode=True)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_occupancy_tangent_is_the_mixed_derivative_of_the_gradient(make_mdp, normal, horizon):
    mdp, params, vector = make_mdp(), normal(3, 2), normal(3, 2, seed=2)
    reward = mdp.reward.clone().requires_grad_()
    along = (gradient(mdp.with_reward(reward), params, horizon) * vector).sum()
    assert_close(evaluate(mdp, params, horizon).tangent(vector).occupancy, torch.autograd.grad(along, reward)[0])


def test_a_growing_horizon_approaches_the_infinite_one(make_mdp, normal):
    mdp, params, vector = make_mdp(), normal(3, 2), normal(3, 2, seed=2)
    errors = []
    for horizon in (5, 10, 160):
        pairs = [
            (function(mdp, params, *extra, horizon), function(mdp, params, *extra))
            for function, extra in ((value, ()), (gradient, ()), (hessian_vector_product, (vector,)))
        ]
        errors.append([(finite - infinite).abs().max().item() for finite, infinite in pairs])
    assert all(first > second > 1e-3 > 1e-12 > last for first, second, last in zip(*errors, strict=True))


def test_the_infinite_value_as_terminal_value_makes_any_horizon_infinite(make_mdp, normal):
    mdp, params = make_mdp(), normal(3, 2)
    terminal = gm_exact.state_values(mdp, params)
    assert_close(value(mdp, params, 2, terminal), value(mdp, params))
    assert_close(evaluate(mdp, params, 2, terminal).state_values, terminal)


sizes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10_000), st.floats(0, 0.99))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(sizes)
def test_softmax_ignores_shifts_and_values_stay_in_range(size):
    mdp, params = random_problem(*size)
    shifted = params + torch.arange(mdp.n_states, dtype=F64).unsqueeze(-1)
    for horizon in (None, 3):
        slope = gradient(mdp, params, horizon)
        assert_close(slope.sum(-1), torch.zeros(mdp.n_states, dtype=F64), atol=1e-9, rtol=0)
        assert_close(gradient(mdp, shifted, horizon), slope, atol=1e-9, rtol=1e-9)
    weight = 1 / (1 - mdp.discount)
    values = gm_exact.state_values(mdp, params)
    assert values.min() >= mdp.reward.min() * weight - 1e-9
    assert values.max() <= mdp.reward.max() * weight + 1e-9
    assert_close(gm_exact.occupancy(mdp, params).sum(), torch.tensor(weight, dtype=F64))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(sizes, st.permutations(range(4)), st.sampled_from([None, 3]))
def test_relabelling_states_permutes_the_results(size, permutation, horizon):
    mdp, params = random_problem(*size)
    new = torch.tensor([state for state in permutation if state < mdp.n_states])
    start = mdp.start_distribution[new]
    relabelled = TabularMDP(mdp.transition[new][..., new], mdp.reward[new], start, mdp.discount)
    vector = params.cos()
    assert_close(value(relabelled, params[new], horizon), value(mdp, params, horizon))
    assert_close(gradient(relabelled, params[new], horizon), gradient(mdp, params, horizon)[new])
    product = hessian_vector_product(mdp, params, vector, horizon)
    assert_close(hessian_vector_product(relabelled, params[new], vector[new], horizon), product[new])


def random_problem(n_states, n_actions, seed, discount):
    draw = torch.Generator().manual_seed(seed)
    transition = torch.rand(n_states, n_actions, n_states, generator=draw, dtype=F64)
    reward = torch.randn(n_states, n_actions, generator=draw, dtype=F64)
    mdp = TabularMDP(transition / transition.sum(-1, keepdim=True), reward, seed % n_states, discount)
    return mdp, torch.randn(n_states, n_actions, generator=draw, dtype=F64)
