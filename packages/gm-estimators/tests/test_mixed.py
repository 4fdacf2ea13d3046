"""What rewards, values and advantages do to w, and the adjoint of GAE, against automatic differentiation."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import load
from gm_estimators.estimator import CATALOGUE, FAMILY
from gm_estimators.returns import gae, gae_adjoint
from gm_estimators.surrogates import automatic_derivatives

NAMES = ("reward", "value", "advantage")


def dense(cotangents, read):
    """Absent cotangents as zeros."""
    found = {name: getattr(cotangents, name) for name in NAMES}
    return {name: torch.zeros_like(getattr(read, name)) if x is None else x for name, x in found.items()}


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (2, 3, 5)])
@pytest.mark.parametrize("critic", [True, False])
@pytest.mark.parametrize("name", [*CATALOGUE, *FAMILY])
def test_closed_forms_are_the_automatic_mixed_derivatives(make_trajectories, name, critic, shape):
    read = make_trajectories(*shape, critic=critic)
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    closed = dense(load(name).derivatives(read).mixed(direction), read)
    automatic = dense(automatic_derivatives(load(name).surrogate, read).mixed(direction), read)
    for signal in NAMES:
        assert_close(closed[signal], automatic[signal], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CATALOGUE)
def test_they_are_derivatives_of_w(make_trajectories, name):
    """⟨w, d⟩ is linear in rewards, values and advantages: a step along each changes it by the cotangent, exactly."""
    read = make_trajectories(2, 4)
    estimator, draw = CATALOGUE[name], torch.Generator().manual_seed(1)
    direction, *steps = (
        torch.randn(like.shape, generator=draw, dtype=torch.float64)
        for like in (read.log_prob, read.reward, read.value, read.advantage)
    )
    derivatives = estimator.derivatives(read)
    cotangents = dense(derivatives.mixed(direction), read)
    for signal, step in zip(NAMES, steps, strict=True):
        moved = estimator.derivatives(replace(read, **{signal: getattr(read, signal) + step}))
        change = ((moved.first - derivatives.first) * direction).sum()
        assert_close((cotangents[signal] * step).sum(), change)
    assert any(cotangent.abs().max() > 0.01 for cotangent in cotangents.values())


def test_a_surrogate_whose_w_reads_nothing_has_no_mixed_derivative(make_trajectories):
    read = make_trajectories(2, 3)
    mixed = automatic_derivatives(lambda trajectories: trajectories.log_prob.sum(-1), read).mixed
    found = mixed(torch.ones(2, 3, dtype=torch.float64))
    assert (found.reward, found.value, found.advantage) == (None, None, None)


@pytest.mark.parametrize("shape", [(1,), (3, 4), (2, 3, 5)])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
def test_the_adjoint_of_gae(shape, gae_lambda):
    draw = torch.Generator().manual_seed(0)
    reward, cotangent = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    value = torch.randn(*shape[:-1], shape[-1] + 1, generator=draw, dtype=torch.float64)
    leaves = reward.requires_grad_(), value.requires_grad_()
    expected = torch.autograd.grad((cotangent * gae(*leaves, 0.8, gae_lambda)).sum(), leaves)
    for found, wanted in zip(gae_adjoint(cotangent, 0.8, gae_lambda), expected, strict=True):
        assert_close(found, wanted, rtol=1e-13, atol=1e-13)
