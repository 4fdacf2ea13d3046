"""LIRPG meta-gradients: sampled against plain automatic differentiation and enumeration, exact against both."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gm_estimators import PERMUTATIONS, Estimator, Trajectories, decompose, exact_meta_gradient
from gm_estimators.estimator import CATALOGUE
from gm_estimators.metrics import bias_sq
from gm_estimators.returns import discounts, gae
from gm_estimators.surrogates import lvc, mean_surrogate
from gm_exact import TabularMDP, evaluate, lirpg_meta_gradient, state_values, trajectories
from gm_experiments.lirpg.problem import LirpgProblem

F64 = torch.float64
HORIZON, SIZE, INNER_LR, GAE_LAMBDA = 5, 4, 2.0, 0.9
USERS_LVC = Estimator("mine", lvc, True, "mine", None, "this test")


@dataclass(frozen=True, eq=False)
class Lirpg:
    """A LIRPG problem whose critic is exact up to an error that does not depend on φ."""

    wiring: object
    phi: Tensor
    depends: bool

    def mdp(self, role: str, phi: Tensor) -> TabularMDP:
        mdp = self.wiring.mdp
        return mdp if role == "outer" else mdp.with_reward(mdp.reward + phi)

    def critic(self, role: str, step: int, params: Tensor, phi: Tensor) -> Tensor:
        value = state_values(self.mdp(role, phi if self.depends else phi.detach()), params)
        return value + self.wiring.critic_error(role, step, value.detach())

    @property
    def problem(self) -> LirpgProblem:
        settings = {"critic_depends": self.depends, "gae_lambda": GAE_LAMBDA}
        return LirpgProblem(self.wiring.mdp, self.wiring.params, self.wiring, self.phi, **settings)

    def objective(self, role: str, letter: str, estimator: Estimator, phi: Tensor, theta: Tensor, step: int) -> Tensor:
        """J of one role at (φ, θ), differentiable in both; trajectories are drawn at ⊥θ."""
        mdp = self.mdp(role, phi)
        if letter == "E":
            return evaluate(mdp, theta).value
        at, (*batch, _, _) = theta.detach(), theta.shape
        state, action = self.wiring.rollout(role, step, at.softmax(-1), slice(SIZE))
        index = [axis[..., None, None] for axis in torch.meshgrid(*map(torch.arange, batch), indexing="ij")]
        reward = mdp.reward.expand(theta.shape)[(*index, state[..., :-1], action)]
        value = self.critic(role, step, at, phi)[(*index, state)] * estimator.critic
        log_prob = theta.log_softmax(-1)[(*index, state[..., :-1], action)]
        advantage, gamma = gae(reward, value, mdp.discount, GAE_LAMBDA), discounts(mdp.discount, HORIZON + 1)
        return mean_surrogate(estimator.surrogate, Trajectories(log_prob, reward, value, advantage, gamma))

    def by_autograd(self, estimator: Estimator, permutation: str, inner_steps: int) -> Tensor:
        """The decomposed step of G.1.2 and one backward pass."""
        phi = self.phi.detach().clone().requires_grad_()
        theta = self.wiring.params
        for step in range(inner_steps):
            leaf = theta if theta.requires_grad else theta.clone().requires_grad_()
            inner, hessian = (
                torch.autograd.grad(
                    self.objective(role, letter, estimator, phi, leaf, step).sum(), leaf, create_graph=True
                )[0]
                for role, letter in zip(("inner", "hessian"), permutation, strict=False)
            )
            theta = leaf + INNER_LR * (inner.detach() + hessian - hessian.detach())
        outer = self.objective("outer", permutation[2], estimator, phi, theta, inner_steps)
        return torch.autograd.grad(outer.sum(), phi)[0]


@pytest.fixture(scope="module")
def wiring(make_mdp, wire):
    """Two MDPs × two repeats at a random θ⁰."""
    mdp = make_mdp(2, states=3, actions=2, concentration=0.5, discount=0.8, seed=3)
    spread = TabularMDP(mdp.transition.unsqueeze(1), mdp.reward.unsqueeze(1), 0, mdp.discount)
    params = torch.randn(2, 2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    return wire(spread, params, horizon=HORIZON, size=SIZE, seed=1)


@pytest.fixture(scope="module")
def phi(wiring):
    return torch.randn(wiring.params.shape, generator=torch.Generator().manual_seed(1), dtype=F64).requires_grad_()


@pytest.fixture(scope="module", params=list(product((1, 3), (True, False))), ids=str)
def run(request, wiring, phi):
    """A problem, K, and everything that `decompose` gives there."""
    inner_steps, depends = request.param
    lirpg = Lirpg(wiring, phi, depends)
    settings = {"sizes": [SIZE], "inner_steps": inner_steps, "inner_lr": INNER_LR}
    return lirpg, inner_steps, decompose(lirpg.problem, [*CATALOGUE.values(), USERS_LVC], **settings)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_every_permutation_is_what_automatic_differentiation_gives(run, permutation, name):
    lirpg, inner_steps, estimates = run
    expected = lirpg.by_autograd(CATALOGUE[name], permutation, inner_steps)
    assert_close(estimates[name, permutation, SIZE], expected, rtol=0, atol=1e-10)
    assert expected.abs().max() > 1e-3


def test_an_estimator_without_closed_form_gets_the_same_numbers(run):
    _, _, estimates = run
    for permutation in PERMUTATIONS:
        mine, theirs = estimates["mine", permutation, SIZE], estimates["lvc", permutation, SIZE]
        assert_close(mine, theirs, rtol=0, atol=1e-11)


@pytest.mark.claim("LIRPG-1")
def test_at_one_step_estimators_with_the_same_gradient_are_equal(run):
    """Eq. 7: no Hessian enters at K = 1, so that AD is as good as LVC there, and nowhere else."""
    _, inner_steps, estimates = run
    for permutation in PERMUTATIONS:
        ad, lvc_, loaded = (estimates[name, permutation, SIZE] for name in ("ad", "lvc", "loaded_dice"))
        if inner_steps == 1 or permutation[1] == "E":
            assert_close(ad, lvc_, rtol=0, atol=1e-12)
            assert_close(ad, loaded, rtol=0, atol=1e-12)
        else:
            assert (ad - lvc_).abs().max() > 1e-3


def test_a_detached_critic_is_another_estimator(wiring, phi):
    settings = {"permutations": ["ESE"], "sizes": [SIZE], "inner_steps": 1, "inner_lr": INNER_LR}
    found = [
        decompose(Lirpg(wiring, phi, depends).problem, [CATALOGUE["lvc"]], **settings)["lvc", "ESE", SIZE]
        for depends in (True, False)
    ]
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("inner_steps", [1, 2, 4])
def test_the_truth_is_the_exact_meta_gradient(wiring, phi, inner_steps):
    settings = {"inner_lr": INNER_LR, "inner_steps": inner_steps}
    found = exact_meta_gradient(Lirpg(wiring, phi, True).problem, **settings)
    expected = lirpg_meta_gradient(wiring.mdp, wiring.params, phi.detach(), **settings)
    assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def tiny(make_mdp):
    mdp = make_mdp(states=2, actions=2, concentration=0.7, discount=0.8, seed=5)
    draw = torch.Generator().manual_seed(2)
    params, phi = torch.randn(2, 2, 2, generator=draw, dtype=F64)
    return TabularMDP(mdp.transition[0], mdp.reward[0], 0, 0.8), params, phi


def enumerated_value(mdp: TabularMDP, every, theta: Tensor, reward: Tensor) -> Tensor:
    """E[Σ_t γᵗ r_t] over every trajectory."""
    gained = reward[every.states[:, :-1], every.actions] @ discounts(mdp.discount, every.actions.shape[-1])
    return (every.probability(theta) * gained).sum()


@pytest.mark.parametrize("inner_steps", [1, 2, 3])
def test_exact_meta_gradients_agree_with_enumeration(tiny, inner_steps):
    mdp, params, phi = tiny
    every = trajectories(mdp, 4)
    leaf, theta = phi.clone().requires_grad_(), params.clone().requires_grad_()
    for _ in range(inner_steps):
        inner = enumerated_value(mdp, every, theta, mdp.reward + leaf)
        theta = theta + INNER_LR * torch.autograd.grad(inner, theta, create_graph=True)[0]
    (expected,) = torch.autograd.grad(enumerated_value(mdp, every, theta, mdp.reward), leaf)
    found = lirpg_meta_gradient(mdp, params, phi, inner_lr=INNER_LR, inner_steps=inner_steps, horizon=4)
    assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_sampled_jacobian_is_unbiased_by_enumeration(tiny, name):
    """E[∇φ∇θ Ĵ_In] = ∇φ∇θ J_In without a critic, for any estimator with unbiased gradients (Eq. 7)."""
    mdp, params, phi = tiny
    every = trajectories(mdp, 3)
    leaf, theta = phi.clone().requires_grad_(), params.clone().requires_grad_()
    reward = (mdp.reward + leaf)[every.states[:, :-1], every.actions]
    value = torch.zeros(every.states.shape, dtype=F64)
    gamma = discounts(mdp.discount, 4)
    read = Trajectories(every.log_probs(theta), reward, value, gae(reward, value, mdp.discount), gamma)
    mean = (every.probability(params) * CATALOGUE[name].surrogate(read)).sum()
    (estimated,) = torch.autograd.grad(mean, theta, create_graph=True)
    exact = enumerated_value(mdp, every, theta, mdp.reward + leaf)
    (true,) = torch.autograd.grad(exact, theta, create_graph=True)
    for cotangent in torch.eye(4, dtype=F64).reshape(4, 2, 2):
        found, expected = (
            torch.autograd.grad((g * cotangent).sum(), leaf, retain_graph=True)[0] for g in (estimated, true)
        )
        assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_estimate_of_the_squared_bias_is_itself_unbiased():
    """Over all samples of three estimates that are a or b, its mean is ‖E[x] − y‖²; that of the plain one is not."""
    a, b, y = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    odds = {0: 0.3, 1: 0.7}
    true = (odds[0] * a + odds[1] * b - y).square().sum()
    samples = list(product((0, 1), repeat=3))
    weight = torch.tensor([odds[i] * odds[j] * odds[k] for i, j, k in samples], dtype=F64)
    estimates = torch.stack([torch.stack([(a, b)[i] for i in sample]) for sample in samples])
    found = bias_sq(estimates, y.expand(len(samples), -1))
    assert_close((weight * found).sum(), true)
    plain = (estimates.mean(1) - y).square().sum(-1)
    assert (weight * plain).sum() > true + 0.1
