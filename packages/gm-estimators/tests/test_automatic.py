"""Derivatives of a surrogate without a closed form."""

from dataclasses import replace

import torch
from torch.testing import assert_close

from gm_estimators.surrogates import automatic_derivatives, lvc


def test_the_callers_log_probabilities_are_left_alone(make_trajectories):
    read = make_trajectories(2, 3)
    constant = replace(read, log_prob=read.log_prob.detach())
    automatic_derivatives(lvc, constant)
    assert not constant.log_prob.requires_grad
    automatic_derivatives(lvc, read)
    assert read.log_prob.grad is None


def test_a_partly_linear_surrogate_has_zeros_where_it_is_linear(make_trajectories):
    read = make_trajectories(2, 3)
    derivatives = automatic_derivatives(lambda trajectories: trajectories.log_prob[..., 0].exp(), read)
    direction = torch.ones(2, 3, dtype=torch.float64)
    expected = torch.zeros(2, 3, dtype=torch.float64)
    expected[:, 0] = read.log_prob[:, 0].exp()
    assert_close(derivatives.first, expected.detach())
    assert_close(derivatives.product(direction), expected.detach())
    assert_close(derivatives.product(direction), expected.detach())  # the graph survives


def test_a_surrogate_whose_w_reads_nothing_has_no_mixed_derivative(make_trajectories):
    mixed = automatic_derivatives(lambda trajectories: trajectories.log_prob.sum(-1), make_trajectories(2, 3)).mixed
    cotangents = mixed(torch.ones(2, 3, dtype=torch.float64))
    assert (cotangents.reward, cotangents.value, cotangents.advantage) == (None, None, None)
