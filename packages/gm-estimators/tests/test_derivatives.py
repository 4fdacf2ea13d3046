from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_estimators import load
from gm_estimators.corrections import credit
from gm_estimators.estimator import CATALOGUE, FAMILY
from gm_estimators.surrogates import LogProbDerivatives, automatic_derivatives

NAMES = [*CATALOGUE, *FAMILY, "loaded_dice@0.3"]
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 6)) | st.tuples(*[st.integers(1, 3)] * 4)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}


def apply(derivatives: LogProbDerivatives, direction: torch.Tensor) -> torch.Tensor:
    """F d."""
    if derivatives.diagonal is not None:
        return derivatives.diagonal * direction
    return derivatives.product(direction)


@pytest.mark.parametrize("critic", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_closed_forms_are_the_automatic_derivatives(make_trajectories, name, dtype, critic, shape, seed):
    read = make_trajectories(*shape, dtype=dtype, critic=critic, seed=seed)
    closed = load(name).derivatives(read)
    automatic = automatic_derivatives(load(name).surrogate, read)
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * 10}
    assert closed.first.dtype == dtype
    assert_close(closed.first, automatic.first, **tolerance)
    assert_close(apply(closed, direction), apply(automatic, direction), **tolerance)


@pytest.mark.parametrize("size", [1, 3])
def test_the_credit_of_each_trajectory_has_a_baseline_of_the_others(make_trajectories, size):
    read, outer = make_trajectories(2, size, 4), torch.tensor([1.5, -0.5], dtype=torch.float64)
    estimator = credit(load("dice+correction@0.7"), outer)
    closed, automatic = estimator.derivatives(read), automatic_derivatives(estimator.surrogate, read)
    assert_close(closed.first, automatic.first)
    assert automatic.diagonal.count_nonzero() == closed.diagonal.count_nonzero() == 0
    returns = (read.discount[:-1] * read.reward).sum(-1) + read.discount[-1] * read.value[..., -1]
    for batch in range(2):
        for i in range(size):
            others = [returns[batch, j] for j in range(size) if j != i]
            baseline = sum(others) / max(len(others), 1)
            expected = 0.7 * size * (outer[batch] - baseline)
            assert_close(closed.first[batch, i], expected.expand(4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dice", "loaded_dice", "loaded_dice@0.3", "tmaml"])
def test_a_product_is_symmetric_and_takes_every_direction(make_trajectories, name):
    product = load(name).derivatives(make_trajectories(1, 4)).product
    matrix = torch.stack([product(row.unsqueeze(0))[0] for row in torch.eye(4, dtype=torch.float64)])
    assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    assert matrix.count_nonzero() == 16


def test_the_callers_log_probabilities_are_left_alone(make_trajectories):
    read = make_trajectories(2, 3)
    constant = replace(read, log_prob=read.log_prob.detach())
    automatic_derivatives(CATALOGUE["lvc"].surrogate, constant)
    assert not constant.log_prob.requires_grad
    automatic_derivatives(CATALOGUE["lvc"].surrogate, read)
    assert read.log_prob.grad is None


def test_a_partly_linear_surrogate_has_zeros_where_it_is_linear(make_trajectories):
    read = make_trajectories(2, 3)
    found = automatic_derivatives(lambda trajectories: trajectories.log_prob[..., 0].exp(), read)
    direction = torch.ones(2, 3, dtype=torch.float64)
    expected = torch.zeros(2, 3, dtype=torch.float64)
    expected[:, 0] = read.log_prob[:, 0].exp()
    assert_close(found.first, expected.detach())
    assert_close(apply(found, direction), expected.detach())
    assert_close(apply(found, direction), expected.detach())  # the graph survives
