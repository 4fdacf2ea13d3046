"""Categorical and normal actions, against `torch.distributions` and by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from gm_mgrl_atari import Categorical, Distribution, Normal

F64 = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_a_normal_policy_is_that_of_torch():
    outputs, action = drawn(5, 2, 6), drawn(5, 2, 3, seed=1)
    mean, log_std = outputs[..., :3], outputs[..., 3:]
    theirs = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    assert_close(Normal().log_prob(outputs, action), theirs.log_prob(action), rtol=0, atol=1e-12)
    assert_close(Normal().entropy(outputs), theirs.entropy(), rtol=0, atol=1e-12)
    assert Normal().outputs(3) == 6


@pytest.mark.parametrize("normalised", [False, True])
def test_a_categorical_policy_is_that_of_torch(normalised):
    logits, action = drawn(5, 2, 4), torch.arange(10).reshape(5, 2) % 4
    theirs = torch.distributions.Categorical(logits=logits)
    ours, outputs = Categorical(normalised), logits.log_softmax(-1) if normalised else logits
    assert_close(ours.log_prob(outputs, action), theirs.log_prob(action), rtol=0, atol=1e-12)
    assert_close(ours.entropy(outputs), theirs.entropy(), rtol=0, atol=1e-12)
    assert ours.outputs(4) == 4


def test_only_the_log_probabilities_of_a_network_are_taken_as_they_are():
    """Numbers that don't add up to 1 say which of the two is used."""
    outputs = torch.zeros(1, 3)
    assert Categorical(normalised=True).log_prob(outputs, torch.zeros(1, dtype=torch.long)).item() == 0
    assert Categorical().log_prob(outputs, torch.zeros(1, dtype=torch.long)).item() == pytest.approx(-math.log(3))


@pytest.mark.parametrize(("kind", "action"), [(Normal(), drawn(2, 2, seed=3)), (Categorical(), torch.tensor([0, 3]))])
def test_derivatives_of_both_orders(kind, action):
    outputs = drawn(2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: (kind.log_prob(x, action), kind.entropy(x)), outputs)
    assert torch.autograd.gradgradcheck(lambda x: (kind.log_prob(x, action), kind.entropy(x)), outputs)


def test_what_is_drawn_has_the_mean_and_spread_that_were_asked_for():
    """Four standard errors of 40,000 draws: 0.01 of the mean, whose σ is 0.5, and of σ."""
    outputs = torch.tensor([1.0, -2.0, math.log(0.5), math.log(0.5)]).expand(40_000, 4)
    action = Normal().sample(outputs, torch.Generator().manual_seed(0))
    assert_close(action.mean(0), torch.tensor([1.0, -2.0]), rtol=0, atol=0.01)
    assert_close(action.std(0), torch.tensor([0.5, 0.5]), rtol=0, atol=0.01)
    probability = torch.tensor([0.1, 0.6, 0.3])
    action = Categorical().sample(probability.log().expand(40_000, 3), torch.Generator().manual_seed(0))
    assert_close(action.bincount() / 40_000, probability, rtol=0, atol=0.01)


@pytest.mark.parametrize("kind", [Normal(), Categorical()])
def test_the_same_generator_draws_the_same(kind):
    outputs = drawn(6, 4).float()
    first, again, other = (kind.sample(outputs, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert isinstance(kind, Distribution)


def test_what_is_no_number_is_marked():
    outputs = torch.tensor([[0.0, 0.0], [math.nan, 0.0]])
    assert Categorical().sample(outputs, torch.Generator())[1] == -1
    assert Categorical().sample(outputs, torch.Generator())[0] >= 0
    assert Normal().sample(outputs, torch.Generator()).isnan().tolist() == [[False], [True]]
