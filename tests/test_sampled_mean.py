"""Sampled meta-gradients: their mean against enumeration, their accuracy against the reference code."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gm_estimators import PERMUTATIONS, Estimator, Trajectories, decompose, exact_meta_gradient
from gm_estimators.estimator import CATALOGUE
from gm_estimators.metrics import accuracy, std_sum
from gm_estimators.returns import discounts, gae
from gm_exact import TabularMDP, evaluate, expectation
from gm_exact import trajectories as every_trajectory

F64 = torch.float64
GAMMA, HORIZON, INNER_LR, REPEATS = 0.8, 3, 1.0, 100_000
CRITIC = torch.tensor([0.0, 0.5, -0.5], dtype=F64)
ALL = list(CATALOGUE.values())
# 28 cells of 6 entries, 3 of them free: P(any |z| > 4) < 28 · 3 · 6.4e-5 = 0.6 % if all means are right
MULTIPLE = 4


def reader(estimator: Estimator, gamma: float = GAMMA):
    """What an estimator makes of enumerated trajectories."""
    critic = CRITIC * estimator.critic

    def surrogate(log_prob: Tensor, every) -> Tensor:
        value = critic[every.states]
        advantage = gae(every.rewards, value, gamma)
        read = Trajectories(log_prob, every.rewards, value, advantage, discounts(gamma, HORIZON + 1))
        return estimator.surrogate(read)

    return surrogate


def one_percent_off(estimator: Estimator) -> Estimator:
    """The same estimator with another γ."""

    def wrong(read: Trajectories) -> Tensor:
        gamma = 0.99 * GAMMA
        advantage = gae(read.reward, read.value, gamma)
        return estimator.surrogate(replace(read, advantage=advantage, discount=discounts(gamma, HORIZON + 1)))

    return replace(estimator, surrogate=wrong, closed_form=None)


@pytest.fixture(scope="module")
def wiring(wire):
    """The action decides most of the next state, and that the sign of a later reward, so that γ matters."""
    good, bad = [0.0, 0.9, 0.1], [0.0, 0.1, 0.9]
    transition = torch.tensor([[good, bad]] * 3, dtype=F64)
    reward = torch.tensor([[0.0, 0.0], [1.0, 0.9], [-1.0, -1.1]], dtype=F64)
    params = torch.tensor([[0.3, -0.2], [0.1, 0.4], [-0.1, 0.2]], dtype=F64).expand(REPEATS, 3, 2)
    mdp = TabularMDP(transition, reward, 0, GAMMA)
    return wire(
        mdp,
        params,
        horizon=HORIZON,
        size=1,
        seed=5,
        exact_horizon=HORIZON,
        own_critic=lambda role, step, theta: CRITIC.expand(theta.shape[:-1]),
    )


@pytest.fixture(scope="module")
def sampled(wiring):
    """Estimates from single trajectories; the exact objectives end where an estimator with critic bootstraps."""
    found = {}
    for critic in (True, False):
        chosen = [estimator for estimator in ALL if estimator.critic is critic]
        truth = replace(wiring, terminal_value=CRITIC * critic)
        found |= decompose(truth.problem, chosen, sizes=[1], inner_steps=1, inner_lr=INNER_LR)
    return found


def expected(wiring, estimator: Estimator, permutation: str) -> Tensor:
    """E[(I + α ∇²J_II(θ⁰)) ∇J_III(θ⁰ + α ∇J_I(θ⁰))] over independent trajectories for I, II and III.

    III counts with its expectation, the exact gradient, whatever θ¹ is; II with its expected Hessian.
    """
    theta, terminal = wiring.params[0], CRITIC * estimator.critic
    exact = evaluate(wiring.mdp, theta, HORIZON, terminal)
    mean = expectation(reader(estimator), wiring.mdp, theta, HORIZON)
    weight, steps = torch.ones(1, dtype=F64), exact.gradient.unsqueeze(0)
    if permutation[0] == "S":
        every = every_trajectory(wiring.mdp, HORIZON)
        weight, leaf = every.probability(theta), theta.expand(len(every.actions), -1, -1).clone().requires_grad_()
        log_policy, n = leaf.log_softmax(-1), torch.arange(len(every.actions)).unsqueeze(-1)
        log_prob = log_policy[n, every.states[:, :-1], every.actions]  # each trajectory with a θ of its own
        (steps,) = torch.autograd.grad(reader(estimator)(log_prob, every).sum(), leaf)
    outer = evaluate(wiring.mdp, theta + INNER_LR * steps, HORIZON, terminal).gradient
    ahead = torch.einsum("n,nsa->sa", weight, outer)
    if permutation[1] == "E":
        return ahead + INNER_LR * exact.hessian_vector_product(ahead)
    return ahead + INNER_LR * torch.einsum("saxb,xb->sa", mean.hessian, ahead)


def standard_errors_off(estimates: Tensor, truth: Tensor) -> float:
    """The largest |mean − truth| / standard error over the entries."""
    error = estimates.std(0) / len(estimates) ** 0.5
    return ((estimates.mean(0) - truth).abs() / error).max().item()


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_the_mean_of_many_estimates_is_the_enumerated_expectation(wiring, sampled, permutation, name):
    truth = expected(wiring, CATALOGUE[name], permutation)
    assert standard_errors_off(sampled[name, permutation, 1], truth) < MULTIPLE


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_discount_one_percent_off_is_rejected(wiring, name):
    wrong = one_percent_off(CATALOGUE[name])
    truth = replace(wiring, terminal_value=CRITIC * wrong.critic)
    settings = {"permutations": ["EES"], "sizes": [1], "inner_steps": 1, "inner_lr": INNER_LR}
    (estimates,) = decompose(truth.problem, [wrong], **settings).values()
    assert standard_errors_off(estimates, expected(wiring, CATALOGUE[name], "EES")) > MULTIPLE


# What the reference code measured, 10 MDPs × 20 repeats: accuracy and its standard error over MDPs
REFERENCE_ACCURACY = {
    ("lvc", "SSE", 4): (0.66, 0.014),
    ("ad", "SSE", 4): (0.54, 0.03),
    ("loaded_dice", "SSE", 4): (0.45, 0.015),
    ("dice", "SSE", 4): (0.04, 0.012),
    ("lvc", "SSS", 32): (0.69, 0.03),
    ("ad", "SSS", 32): (0.48, 0.03),
    ("loaded_dice", "SSS", 32): (0.66, 0.03),
    ("dice", "SSS", 32): (0.14, 0.015),
}
# its sum of standard deviations, given without an error: that of 10 MDPs is taken from ours
REFERENCE_STD_SUM = {"lvc": 1.18, "ad": 1.11, "loaded_dice": 3.46, "dice": 8.07}
REFERENCE_MDPS, MDPS = 10, 30


@pytest.fixture(scope="module")
def paper(make_mdp, wire):
    """Estimates and truth at the paper's setting, `[mdp, repeat, state · action]`."""
    mdp = make_mdp(MDPS, states=20, actions=5, concentration=0.001, discount=0.8, seed=0)
    spread = TabularMDP(mdp.transition.unsqueeze(1), mdp.reward.unsqueeze(1), 0, mdp.discount)
    problem = wire(spread, torch.zeros(MDPS, 20, 20, 5, dtype=F64), horizon=20, size=32, seed=1).problem
    step = {"inner_steps": 1, "inner_lr": 10.0}
    estimates = decompose(problem, ALL, permutations=["SSE"], sizes=[4], **step)
    estimates |= decompose(problem, ALL, permutations=["SSS"], sizes=[32], **step)
    return {key: x.flatten(-2) for key, x in estimates.items()}, exact_meta_gradient(problem, **step).flatten(-2)


def joint_errors_off(per_mdp: Tensor, reference: float, reference_error: float) -> float:
    """|ours − reference| in standard errors of the difference, over MDPs."""
    error = per_mdp.std().item() / len(per_mdp) ** 0.5
    return abs(per_mdp.mean().item() - reference) / (error**2 + reference_error**2) ** 0.5


@pytest.mark.parametrize("cell", REFERENCE_ACCURACY, ids=lambda cell: "-".join(map(str, cell)))
def test_the_accuracy_is_that_of_the_reference(paper, cell):
    estimates, truth = paper
    per_mdp = accuracy(estimates[cell], truth).mean(-1)
    assert joint_errors_off(per_mdp, *REFERENCE_ACCURACY[cell]) < 3


@pytest.mark.parametrize("name", REFERENCE_STD_SUM)
def test_the_spread_is_that_of_the_reference(paper, name):
    per_mdp = std_sum(paper[0][name, "SSE", 4])
    error = per_mdp.std().item() / REFERENCE_MDPS**0.5
    assert joint_errors_off(per_mdp, REFERENCE_STD_SUM[name], error) < 3


def test_the_reference_tells_the_estimators_apart(paper):
    """A control: another estimator's number is rejected."""
    estimates, truth = paper
    per_mdp = accuracy(estimates["ad", "SSE", 4], truth).mean(-1)
    assert joint_errors_off(per_mdp, *REFERENCE_ACCURACY["lvc", "SSE", 4]) > 3
    per_mdp = std_sum(estimates["loaded_dice", "SSE", 4])
    assert joint_errors_off(per_mdp, REFERENCE_STD_SUM["dice"], per_mdp.std().item() / REFERENCE_MDPS**0.5) > 3
