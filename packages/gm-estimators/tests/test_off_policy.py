import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_estimators import Trajectories, load
from gm_estimators.estimator import CATALOGUE
from gm_estimators.off_policy import (
    OffPolicyTrajectories,
    cumulative_ratio,
    effective_sample_size,
    off_policy,
    off_policy_dice,
    off_policy_dice_derivatives,
)
from gm_estimators.returns import gae
from gm_estimators.surrogates import LogProbDerivatives, automatic_derivatives, dice

F64 = torch.float64
INF = float("inf")
CONTROLS = [{}, {"clip": 1.3}, {"self_normalise": True}, {"self_normalise": True, "clip": 1.1}]


def behaved(read: Trajectories, seed: int = 1, spread: float = 0.5, **controls) -> OffPolicyTrajectories:
    """The trajectories with a behaviour policy near the current one."""
    noise = torch.rand(read.log_prob.shape, generator=torch.Generator().manual_seed(seed), dtype=read.log_prob.dtype)
    seen = {field.name: getattr(read, field.name) for field in fields(Trajectories)}
    return OffPolicyTrajectories(**seen, behaviour_log_prob=read.log_prob.detach() - spread * noise, **controls)


def apply(derivatives: LogProbDerivatives, direction: torch.Tensor) -> torch.Tensor:
    """F d."""
    return derivatives.diagonal * direction if derivatives.product is None else derivatives.product(direction)


def two_steps(**controls) -> OffPolicyTrajectories:
    """Two trajectories of two steps with ratios 1/2, 2 and 2, 3; d = 1, 1/2, 1/4."""
    ratio = torch.tensor([[0.5, 2.0], [2.0, 3.0]], dtype=F64)
    return OffPolicyTrajectories(
        log_prob=torch.full((2, 2), -0.5, dtype=F64).requires_grad_(),
        reward=torch.tensor([[1.0, 4.0], [2.0, 8.0]], dtype=F64),
        value=torch.tensor([[3.0, 2.0, 4.0], [1.0, 6.0, 8.0]], dtype=F64),
        advantage=torch.full((2, 2), torch.nan, dtype=F64),  # not read
        discount=torch.tensor([1.0, 0.5, 0.25], dtype=F64),
        behaviour_log_prob=-0.5 - ratio.log(),
        **controls,
    )


def test_by_hand():
    # ρ = (1/2, 1) and (2, 6); rewards Σ d ρ r = 1/2 + 2 and 4 + 24; bootstrap 1/4·1·4 and 1/4·6·8
    # baseline Σ d V (1 − ratio) = 3/2 − 1 and −1 − 6
    assert_close(off_policy_dice(two_steps()).detach(), torch.tensor([2.5 + 1 + 0.5, 28.0 + 12 - 7], dtype=F64))
    first = off_policy(CATALOGUE["dice"]).derivatives(two_steps()).first
    # w_u = Σ_{t≥u} d ρ r + bootstrap − d ratio V
    assert_close(first, torch.tensor([[3.5 - 1.5, 3 - 2.0], [40 - 2.0, 36 - 9.0]], dtype=F64))
    # the others: − d ρ V instead
    first = off_policy(CATALOGUE["ad"]).derivatives(two_steps()).first
    assert_close(first, torch.tensor([[3.5 - 1.5, 3 - 1.0], [40 - 2.0, 36 - 18.0]], dtype=F64))


def test_dice_leads_to_off_policy_dice():
    estimator = off_policy(CATALOGUE["dice"])
    assert (estimator.surrogate, estimator.closed_form) == (off_policy_dice, off_policy_dice_derivatives)
    read = two_steps()
    normalised = off_policy(load("dice+selfnorm"))
    assert_close(normalised.surrogate(read), off_policy_dice(two_steps(self_normalise=True)))
    assert_close(normalised.derivatives(read).first, off_policy_dice_derivatives(two_steps(self_normalise=True)).first)


def test_controls_by_hand():
    assert_close(cumulative_ratio(two_steps()), torch.tensor([[0.5, 1.0], [2.0, 6.0]], dtype=F64))
    assert_close(cumulative_ratio(two_steps(clip=1.5)), torch.tensor([[0.5, 1.0], [1.5, 1.5]], dtype=F64))
    normal = torch.tensor([[0.4, 2 / 7], [1.6, 12 / 7]], dtype=F64)
    assert_close(cumulative_ratio(two_steps(self_normalise=True)), normal)
    assert_close(cumulative_ratio(two_steps(self_normalise=True, clip=1.65)), normal.clamp(max=1.65))


def test_normalised_ratios_have_the_mean_one_to_double_precision():
    """With three trajectories, whose log isn't a float32."""
    ratio = torch.tensor([[0.5], [2.0], [3.0]], dtype=F64)
    read = Trajectories(torch.zeros(3, 1, dtype=F64), ratio, torch.zeros(3, 2, dtype=F64), ratio, torch.ones(2))
    found = cumulative_ratio(OffPolicyTrajectories(**vars(read), behaviour_log_prob=-ratio.log(), self_normalise=True))
    assert_close(found, ratio / ratio.mean(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("controls", CONTROLS, ids=str)
@pytest.mark.parametrize("name", CATALOGUE)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 5)), seed=st.integers(0, 2**31))
def test_closed_forms_are_the_automatic_derivatives(make_trajectories, name, controls, shape, seed):
    read = behaved(make_trajectories(*shape, seed=seed), seed, **controls)
    estimator = off_policy(CATALOGUE[name])
    closed, automatic = estimator.derivatives(read), automatic_derivatives(estimator.surrogate, read)
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    assert_close(closed.first, automatic.first, rtol=1e-12, atol=1e-12)
    assert_close(apply(closed, direction), apply(automatic, direction), rtol=1e-12, atol=1e-12)


def test_the_equations_of_the_docstring(make_trajectories):
    read = behaved(make_trajectories(3, 4))
    read = replace(read, value=torch.cat((read.value[..., :-1], torch.zeros(3, 1, dtype=F64)), -1))
    d, ratio, step = read.discount[:-1], cumulative_ratio(read), (read.log_prob - read.behaviour_log_prob).exp()
    direction = torch.randn(3, 4, generator=torch.Generator().manual_seed(3), dtype=F64)
    found = off_policy(CATALOGUE["dice"]).derivatives(read)
    for u in range(4):
        later = slice(u, None)
        baseline = d[u] * step[:, u] * read.value[:, u]
        weighted = (d * ratio * read.reward)[:, later]
        assert_close(found.first[:, u], (weighted.sum(-1) - baseline).detach())
        product = (weighted * direction.cumsum(-1)[:, later]).sum(-1) - baseline * direction[:, u]
        assert_close(found.product(direction)[:, u], product.detach())


@pytest.mark.parametrize("controls", [{}, {"clip": 1.0}, {"self_normalise": True}], ids=str)
@pytest.mark.parametrize("name", CATALOGUE)
def test_from_the_current_policy_itself_nothing_changes(make_trajectories, name, controls):
    read = make_trajectories(2, 3, 4)
    read = replace(read, advantage=gae(read.reward, read.value, 0.9))
    on, off = CATALOGUE[name], off_policy(CATALOGUE[name])
    same = behaved(read, spread=0.0, **controls)
    direction = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3), dtype=F64)
    assert_close(off.derivatives(same).first, on.derivatives(read).first)
    assert_close(apply(off.derivatives(same), direction), apply(on.derivatives(read), direction))
    if on.surrogate is dice:
        assert_close(off.surrogate(same), on.surrogate(read))
    assert off.name != on.name
    assert off.gradient_family != on.gradient_family


def test_a_surrogate_of_ones_own_becomes_off_policy_too(make_trajectories):
    own = replace(CATALOGUE["lvc"], name="own", closed_form=None)
    read = behaved(make_trajectories(3, 4))
    expected = off_policy(CATALOGUE["lvc"]).derivatives(read).first
    assert_close(off_policy(own).derivatives(read).first, expected)


def test_effective_sample_size():
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 3.0, 0.0, 0.0], [1.0, 1.0, 2.0, 0.0]])
    assert_close(effective_sample_size(weight), torch.tensor([4.0, 1.0, 16 / 6]))
    assert effective_sample_size(torch.zeros(3)).isnan()


def test_self_normalised_ratios_survive_what_overflows(make_trajectories):
    read = behaved(make_trajectories(3, 4), spread=3000.0)
    with pytest.raises(ValueError, match=r"expected finite ratios to the behaviour policy, got infinity or NaN"):
        cumulative_ratio(read)
    for controls in ({"clip": 2.0}, {"self_normalise": True}):
        assert cumulative_ratio(replace(read, **controls)).isfinite().all()
    mean = cumulative_ratio(replace(read, self_normalise=True)).mean(-2)
    assert_close(mean, torch.ones(4, dtype=F64))


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_a_clip_that_is_not_positive_is_refused(clip):
    with pytest.raises(ValueError, match=f"clip: expected a positive number, got {clip}"):
        two_steps(clip=clip)


def test_on_policy_trajectories_are_refused(make_trajectories):
    with pytest.raises(TypeError, match="expected OffPolicyTrajectories, got Trajectories"):
        off_policy(CATALOGUE["dice"]).derivatives(make_trajectories(2, 3))
