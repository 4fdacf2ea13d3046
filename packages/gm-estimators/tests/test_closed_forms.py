"""Every estimator's closed form is the derivative of its own surrogate: whoever changes one has to change the other."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_estimators import Trajectories, load
from gm_estimators.corrections import credit
from gm_estimators.estimator import CATALOGUE, FAMILY
from gm_estimators.off_policy import OffPolicyTrajectories, off_policy
from gm_estimators.surrogates import LogProbDerivatives, SignalCotangents, automatic_derivatives

NAMES = [*CATALOGUE, *FAMILY, "loaded_dice@0", "loaded_dice@0.3", "loaded_dice@1", "loaded_dice@0.5,0.9"]
OFF_POLICY = [name for name in NAMES if "," not in name] + ["loaded_dice@0.3+vtrace", "lvc+vtrace@0.7", "dice+selfnorm"]
SIGNALS = ("reward", "value", "advantage")
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 6)) | st.tuples(*[st.integers(1, 3)] * 4)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}
EXAMPLES = {"max_examples": 12, "deadline": None, "derandomize": True}
TRAJECTORIES = {
    "shape": SHAPES,
    "discount": st.sampled_from((1.0, 0.9, 0.5)),
    "critic": st.booleans(),
    "ends": st.booleans(),
    "seed": st.integers(0, 2**31),
}


@pytest.fixture(scope="module")
def make_any(make_trajectories):
    """Random trajectories, perhaps with an early end, whose advantages have nothing to do with rewards and values."""

    def make(shape, discount, critic, ends, seed, dtype=torch.float64) -> Trajectories:
        read = make_trajectories(*shape, discount=discount, critic=critic, seed=seed, dtype=dtype)
        draw = torch.Generator().manual_seed(seed + 1)
        if ends:
            end = int(torch.randint(shape[-1] + 1, (), generator=draw))
            read = replace(read, discount=read.discount * (torch.arange(shape[-1] + 1) <= end))
        return replace(read, advantage=torch.randn(shape, generator=draw, dtype=dtype))

    return make


def off(read: Trajectories, seed: int) -> OffPolicyTrajectories:
    """The trajectories with a behaviour policy near the current one."""
    noise = torch.rand(read.log_prob.shape, generator=torch.Generator().manual_seed(seed), dtype=read.log_prob.dtype)
    seen = {field.name: getattr(read, field.name) for field in fields(Trajectories)}
    return OffPolicyTrajectories(**seen, behaviour_log_prob=read.log_prob.detach() + noise - 0.5)


def apply(derivatives: LogProbDerivatives, direction: torch.Tensor) -> torch.Tensor:
    """F d."""
    return derivatives.diagonal * direction if derivatives.product is None else derivatives.product(direction)


def dense(cotangents: SignalCotangents, read: Trajectories) -> dict[str, torch.Tensor]:
    """Absent cotangents as zeros."""
    by_signal = {name: getattr(cotangents, name) for name in SIGNALS}
    return {name: torch.zeros_like(getattr(read, name)) if x is None else x for name, x in by_signal.items()}


def assert_one_holds_the_other(estimator, read: Trajectories, seed: int, *, mixed: bool = True) -> None:
    """w, F d and the mixed cotangents of the closed form are those of the surrogate."""
    assert estimator.closed_form is not None
    closed, automatic = estimator.closed_form(read), automatic_derivatives(estimator.surrogate, read)
    dtype = read.log_prob.dtype
    assert closed.first.dtype == dtype
    draw = torch.Generator().manual_seed(seed)
    direction = torch.randn(read.log_prob.shape, generator=draw, dtype=dtype)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * 10}
    assert_close(closed.first, automatic.first, **tolerance)
    assert_close(apply(closed, direction), apply(automatic, direction), **tolerance)
    if not mixed:
        assert closed.mixed is None
        return
    mine, expected = (dense(each.mixed(direction), read) for each in (closed, automatic))
    for signal in SIGNALS:
        assert_close(mine[signal], expected[signal], **tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", NAMES)
@settings(**EXAMPLES)
@given(**TRAJECTORIES)
def test_a_closed_form_is_the_derivative_of_its_surrogate(make_any, name, dtype, shape, discount, critic, ends, seed):
    read = make_any(shape, discount, critic, ends, seed, dtype)
    assert_one_holds_the_other(load(name), read, seed)


@pytest.mark.parametrize("name", OFF_POLICY)
@settings(**EXAMPLES)
@given(**TRAJECTORIES)
def test_so_is_that_of_its_off_policy_form(make_any, name, shape, discount, critic, ends, seed):
    read = off(make_any(shape, discount, critic, ends, seed), seed)
    assert_one_holds_the_other(off_policy(load(name)), read, seed, mixed=False)


def test_a_closed_form_of_another_surrogate_is_seen(make_any):
    """The control: each estimator with the closed form of the next; `ad` and `vtrace` are one surrogate."""
    read = make_any((2, 3), 0.9, True, False, 0)
    names = ["ad", "lvc", "loaded_dice@0.3", "loaded_dice", "dice", "tmaml"]
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        wrong = replace(load(name), closed_form=load(other).closed_form)
        with pytest.raises(AssertionError):
            assert_one_holds_the_other(wrong, read, 0)


@pytest.mark.parametrize("name", CATALOGUE)
def test_mixed_cotangents_are_derivatives_of_w(make_trajectories, name):
    """⟨w, d⟩ is linear in rewards, values and advantages: a step along each changes it by the cotangent, exactly."""
    read = make_trajectories(2, 4)
    estimator, draw = CATALOGUE[name], torch.Generator().manual_seed(1)
    direction, *steps = (
        torch.randn(like.shape, generator=draw, dtype=torch.float64)
        for like in (read.log_prob, read.reward, read.value, read.advantage)
    )
    derivatives = estimator.derivatives(read)
    cotangents = dense(derivatives.mixed(direction), read)
    for signal, step in zip(SIGNALS, steps, strict=True):
        moved = estimator.derivatives(replace(read, **{signal: getattr(read, signal) + step}))
        change = ((moved.first - derivatives.first) * direction).sum()
        assert_close((cotangents[signal] * step).sum(), change)
    assert any(cotangent.abs().max() > 0.01 for cotangent in cotangents.values())


@pytest.mark.parametrize("name", ["dice", "loaded_dice", "loaded_dice@0.3", "tmaml"])
def test_a_product_is_symmetric_and_takes_every_direction(make_trajectories, name):
    product = load(name).derivatives(make_trajectories(1, 4)).product
    matrix = torch.stack([product(row.unsqueeze(0))[0] for row in torch.eye(4, dtype=torch.float64)])
    assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    assert matrix.count_nonzero() == 16


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
