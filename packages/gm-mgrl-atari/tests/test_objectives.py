import math

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import EstimatorError, load
from gm_mgrl_atari import (
    INITIAL_LOGITS,
    Batch,
    Coefficients,
    advantages,
    coefficients,
    fixed_coefficients,
    policy_estimator,
    terms,
)

F64 = torch.float64


def test_the_initial_meta_parameters():
    found = [round(float(value), 3) for value in coefficients(torch.tensor(INITIAL_LOGITS, dtype=F64))]
    assert found == [0.99, 0.95, 0.5, 0.01]


def three_steps(**ends):
    flags = {name: torch.tensor([[t in ends.get(name, ()) for t in range(3)]]) for name in ("terminated", "truncated")}
    return Batch(
        observation=torch.zeros(1, 4, 1, 1, 1, dtype=torch.uint8),
        action=torch.zeros(1, 3, dtype=torch.long),
        reward=torch.tensor([[1.0, 0.0, -1.0]]),
        valid=torch.ones(1, 3, dtype=torch.bool),
        **flags,
    )


# γ = 0.5, λ = 0.25, V = 1, 2, 4, 8, r = 1, 0, −1: δ_2 = −1 + 4 − 4 = −1, δ_1 = 0 + 2 − 2 = 0, δ_0 = 1 + 1 − 1 = 1;
# A_2 = −1, A_1 = 0 − ⅛ = −⅛, A_0 = 1 − 1/64
@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({}, (1 - 1 / 64, -1 / 8, -1.0)),
        # δ_1 = 0 − 2, nothing flows back over the end
        ({"terminated": (1,)}, (1 - 2 / 8, -2.0, -1.0)),
        # δ_1 = 0 as before, but A_2 does not flow back
        ({"truncated": (1,)}, (1.0, 0.0, -1.0)),
        ({"terminated": (2,)}, (1 - 5 / 64, -5 / 8, -5.0)),
    ],
)
def test_advantages_by_hand(ends, expected):
    value = torch.tensor([[1.0, 2.0, 4.0, 8.0]], dtype=F64)
    found = advantages(three_steps(**ends), value, fixed_coefficients(0.5, 0.25))
    assert found.tolist() == [pytest.approx(list(expected))]


def test_derivatives_of_advantages_by_hand():
    """A_1 = δ_1 + γλ δ_2 with δ_1 = 4γ − 2, δ_2 = −5 + 8γ: ∂/∂γ = 4 + λ(16γ − 5), ∂/∂λ = γ(8γ − 5)."""
    gamma, lam = (torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.5, 0.25))
    zero = torch.zeros((), dtype=F64)
    value = torch.tensor([[1.0, 2.0, 4.0, 8.0]], dtype=F64)
    second = advantages(three_steps(), value, Coefficients(gamma, lam, zero, zero))[0, 1]
    by_gamma, by_lambda = torch.autograd.grad(second, (gamma, lam))
    assert by_gamma.item() == pytest.approx(4 + 0.25 * (8 - 5))
    assert by_lambda.item() == pytest.approx(0.5 * (4 - 5))


def test_invalid_steps_count_for_nothing(network, params, random_batch):
    batch, told = random_batch(0), fixed_coefficients()
    before = terms(network, params, batch, told, load("lvc"))
    batch.reward[1, 3] += 5  # the reset step
    batch.action[1, 3] = (batch.action[1, 3] + 1) % 3
    after = terms(network, params, batch, told, load("lvc"))
    assert_close(after, before, rtol=0, atol=1e-14)
    batch.action[0, 0] = (batch.action[0, 0] + 1) % 3
    assert terms(network, params, batch, told, load("ad")).policy != before.policy


def test_the_ignored_action_of_a_reset_is_no_part_of_a_later_score(network, params, random_batch):
    """Loaded DiCE multiplies scores of different steps; the Hessian must not know the action that a reset ignored."""
    batch = random_batch(0)
    batch.valid[0, 2] = False  # after the end in step 1, two steps before the last

    def curvature():
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        policy = terms(network, leaves, batch, fixed_coefficients(), load("loaded_dice")).policy
        (first,) = torch.autograd.grad(policy, leaves["policy.weight"], create_graph=True)
        return torch.autograd.grad(first.square().sum(), leaves["policy.weight"])[0]

    before = curvature()
    batch.action[0, 2] = (batch.action[0, 2] + 1) % 3
    assert_close(curvature(), before, rtol=0, atol=1e-14)
    batch.action[0, 0] = (batch.action[0, 0] + 1) % 3
    assert (curvature() - before).abs().max() > 1e-6


def test_a_uniform_policy_has_the_entropy_of_its_actions(network, params, random_batch):
    params = params | {"policy.weight": torch.zeros(3, 4, dtype=F64), "policy.bias": torch.zeros(3, dtype=F64)}
    found = terms(network, params, random_batch(0), fixed_coefficients(), load("ad"))
    assert found.entropy.item() == pytest.approx(math.log(3))


def test_the_value_target_moves_with_lambda_but_not_with_theta(network, params, random_batch):
    lam = torch.tensor(0.9, dtype=F64, requires_grad=True)
    told = fixed_coefficients()._replace(gae_lambda=lam)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    value = terms(network, leaves, random_batch(1), told, load("ad")).value
    assert torch.autograd.grad(value, lam, retain_graph=True)[0].abs() > 1e-6
    # value = mean (V − ⊥target)²: its gradient in the last bias is 2 mean (V − target) = −2 mean A
    (found,) = torch.autograd.grad(value, leaves["value.bias"])
    batch = random_batch(1)
    with torch.no_grad():
        _, values = network(params, batch.observation, told.discount)
        expected = -2 * advantages(batch, values, told)[batch.valid].mean()
    assert_close(found.squeeze(), expected)


def test_an_estimator_that_reads_rewards_is_refused():
    assert policy_estimator("loaded_dice").name == "loaded_dice"
    for name in ("dice", "tmaml"):
        with pytest.raises(EstimatorError, match=rf"expected an estimator that uses advantages, .* got '{name}'"):
            policy_estimator(name)
