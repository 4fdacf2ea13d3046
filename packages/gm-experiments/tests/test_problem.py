"""Gradients and Hessian-vector products of sampled objectives against plain automatic differentiation."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import Estimator, Trajectories
from gm_estimators.decomposition import ExactObjective, Objective
from gm_estimators.estimator import CATALOGUE
from gm_estimators.returns import discounts, gae
from gm_estimators.surrogates import lvc, mean_surrogate
from gm_exact import TabularMDP
from gm_experiments.common.problem import TabularProblem

F64 = torch.float64
STATES, ACTIONS, SIZE, HORIZON, GAMMA, LAMBDA = 4, 3, 6, 5, 0.9, 0.8
ESTIMATORS = [*CATALOGUE.values(), Estimator("mine", lvc, True, "mine", None, "this test")]


class Setting:
    """A problem with made-up trajectories; only the rollout's interface matters here."""

    def __init__(self, *batch: int, critic_for: str = "paper", dtype: torch.dtype = F64) -> None:
        draw = torch.Generator().manual_seed(0)
        self.params = torch.randn(*batch, STATES, ACTIONS, generator=draw, dtype=dtype)
        self.reward = torch.randn(STATES, ACTIONS, generator=draw, dtype=dtype)
        self.value = torch.randn(*batch, STATES, generator=draw, dtype=dtype)
        # stored time first, as rollouts are
        state = torch.randint(STATES, (HORIZON + 1, SIZE, *batch), generator=draw)
        action = torch.randint(ACTIONS, (HORIZON, SIZE, *batch), generator=draw)
        self.state, self.action = (x.movedim((0, 1), (-1, -2)) for x in (state, action))
        self.policies: list[torch.Tensor] = []
        transition = torch.full((STATES, ACTIONS, STATES), 1 / STATES, dtype=dtype)
        mdp = TabularMDP(transition, self.reward, 0, GAMMA)
        self.problem = TabularProblem(mdp, self.params, self, gae_lambda=LAMBDA, critic_for=critic_for)

    def rollout(self, role, step, policy, rows):
        self.policies.append(policy)
        return self.state[..., rows, :], self.action[..., rows, :]

    def critic_error(self, role, step, value):
        """What makes the critic `value`."""
        return self.value - value

    def objective(self, estimator, *sizes):
        """As the estimator sees it in the first trajectories; of several sizes each is drawn from the one before."""
        point = self.problem.at(self.params)
        sample = point.draw(0, {"inner": slice(sizes[0] if sizes else SIZE)})["inner"]
        for size in sizes[1:]:
            sample = sample.select(slice(size))
        return point.sampled("inner", estimator, sample)

    def plain(self, estimator: Estimator, params, *, critic: bool, size: int = SIZE):
        """The same objective through log-softmax and gather, one number per batch element."""
        state, action = self.state[..., :size, :], self.action[..., :size, :]
        reward = self.reward[state[..., :-1], action]
        rows = params.log_softmax(-1).unsqueeze(-3).expand(*state.shape[:-1], STATES, ACTIONS)
        visited = rows.gather(-2, state[..., :-1, None].expand(*action.shape, ACTIONS))
        log_prob = visited.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        value = self.value.unsqueeze(-2).expand(*state.shape[:-1], STATES).gather(-1, state) * critic
        advantage = gae(reward, value, GAMMA, LAMBDA)
        read = Trajectories(log_prob, reward, value, advantage, discounts(GAMMA, HORIZON + 1).to(params))
        return mean_surrogate(estimator.surrogate, read)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.name)
def test_gradient_and_hessian_products_are_those_of_automatic_differentiation(estimator, batch, dtype):
    setting = Setting(*batch, dtype=dtype)
    found = setting.objective(estimator)
    theta = setting.params.clone().requires_grad_()
    total = setting.plain(estimator, theta, critic=estimator.critic).sum()
    (slope,) = torch.autograd.grad(total, theta, create_graph=True)
    tolerance = {"rtol": 0, "atol": 1e-12 if dtype == F64 else 1e-4}
    assert_close(found.gradient, slope.detach(), **tolerance)
    vectors = torch.randn(2, *theta.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    products, mixed = found.vjp(vectors)
    assert mixed is None
    assert found.meta_gradient is None
    for vector, product in zip(vectors, products, strict=True):
        (expected,) = torch.autograd.grad((slope * vector).sum(), theta, retain_graph=True)
        assert_close(product, expected, **tolerance)


@pytest.mark.parametrize(("critic_for", "name", "critic"), [("all", "dice", True), ("none", "lvc", False)])
def test_the_critic_goes_to_whom_it_is_meant_for(critic_for, name, critic):
    setting, estimator = Setting(2, critic_for=critic_for), CATALOGUE[name]
    theta = setting.params.clone().requires_grad_()
    (slope,) = torch.autograd.grad(setting.plain(estimator, theta, critic=critic).sum(), theta)
    assert_close(setting.objective(estimator).gradient, slope, rtol=0, atol=1e-12)
    (other,) = torch.autograd.grad(setting.plain(estimator, theta, critic=not critic).sum(), theta)
    assert (slope - other).abs().max() > 1e-2


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_first_trajectories_are_those_of_a_smaller_draw(name):
    setting, estimator = Setting(2), CATALOGUE[name]
    found = setting.objective(estimator, SIZE, 4, 2)
    expected = setting.objective(estimator, 2)
    vectors = torch.ones(1, 2, STATES, ACTIONS, dtype=F64).cumsum(-1)
    assert_close(found.gradient, expected.gradient, rtol=0, atol=1e-14)
    assert_close(found.vjp(vectors)[0], expected.vjp(vectors)[0], rtol=0, atol=1e-14)
    assert (found.gradient - setting.objective(estimator).gradient).abs().max() > 1e-2


def test_the_rollout_gets_the_policy():
    setting = Setting(2)
    setting.objective(CATALOGUE["ad"])
    assert_close(setting.policies[0], setting.params.softmax(-1))


def test_an_exact_objective_is_what_is_known_of_its_policy():
    class Known:
        value, gradient = torch.tensor(2.0), torch.tensor([1.0, -1.0])

        def hessian_vector_product(self, vector):
            return 3 * vector

    found = ExactObjective(Known())
    assert isinstance(found, Objective)
    assert (found.value, found.meta_gradient) == (2.0, None)
    assert found.gradient.tolist() == [1, -1]
    product, mixed = found.vjp(torch.ones(1, 2))
    assert (product.tolist(), mixed) == ([[3, 3]], None)


@pytest.mark.parametrize("name", ["dice", "lvc"])
def test_the_value_is_the_mean_return_bootstrapped_with_the_critic(name):
    setting = Setting(2, 3)
    reward, value = setting.reward[setting.state[..., :-1], setting.action], torch.zeros(2, 3, SIZE, dtype=F64)
    if name == "lvc":
        value = setting.value.unsqueeze(-2).expand(2, 3, SIZE, STATES).gather(-1, setting.state[..., -1:]).squeeze(-1)
    expected = ((discounts(GAMMA, HORIZON) * reward).sum(-1) + GAMMA**HORIZON * value).mean(-1)
    assert_close(setting.objective(CATALOGUE[name]).value, expected, rtol=0, atol=1e-12)


def test_a_users_critic_attribute_decides():
    setting = Setting(2)
    blind = replace(ESTIMATORS[-1], critic=False)
    without = Setting(2, critic_for="none")
    assert torch.equal(setting.objective(blind).gradient, without.objective(ESTIMATORS[-1]).gradient)
