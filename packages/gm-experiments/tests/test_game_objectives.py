import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_estimators import Trajectories
from gm_estimators.estimator import CATALOGUE
from gm_experiments.lola.blocks import DiceBlocks
from gm_experiments.lola.objectives import GameObjective, GameSignal, StepSums, joint_log_policy

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    """Joint outcomes, as good as any other numbers."""
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def signal(*batch: int, discount: float = 0.9, seed: int = 3) -> GameSignal:
    return GameSignal(normal(*batch, 4, seed=seed), normal(*batch, 5, seed=seed + 1), discount)


def read(outcome: torch.Tensor, params: torch.Tensor, judged: GameSignal) -> Trajectories:
    """One batch element's trajectories, differentiable in both players' policies."""
    outcome = outcome.long()
    state = torch.nn.functional.pad(outcome[:, :-1] + 1, (1, 0))
    horizon = outcome.shape[-1]
    value = torch.nn.functional.pad(judged.value[state], (0, 1))
    reward = judged.reward[outcome]
    discount = judged.discount ** torch.arange(horizon + 1, dtype=F64)
    to_go = (discount[:-1] * reward).flip(-1).cumsum(-1).flip(-1) / discount[:-1]
    log_prob = joint_log_policy(params)[state, outcome]
    return Trajectories(log_prob, reward, value, to_go - value[:, :-1], discount)


@pytest.mark.parametrize("learner", [0, 1])
@pytest.mark.parametrize("name", CATALOGUE)
def test_derivatives_are_those_of_automatic_differentiation(name, learner):
    estimator, outcome, judged = CATALOGUE[name], sample(1, 6, 4), signal(1)
    phi, theta = normal(5, seed=7), normal(5, seed=8)
    cotangent = normal(2, 5, seed=9)

    def mean(both: torch.Tensor) -> torch.Tensor:
        params = both if learner == 0 else both.flip(0)
        one = GameSignal(judged.reward[0], judged.value[0], judged.discount)
        return estimator.surrogate(read(outcome[0], params, one)).mean()

    both = torch.stack((phi, theta))
    gradient = torch.autograd.functional.jacobian(mean, both)
    hessian = torch.autograd.functional.hessian(mean, both)
    table = joint_log_policy((both if learner == 0 else both.flip(0)).unsqueeze(0))
    sums = StepSums(estimator, outcome, table, judged)
    found = GameObjective(phi.unsqueeze(0), theta.unsqueeze(0), torch.tensor([learner]), sums)
    assert_close(found.meta_gradient[0], gradient[0], rtol=0, atol=1e-10)
    assert_close(found.gradient[0], gradient[1], rtol=0, atol=1e-10)
    own, mixed = found.vjp(cotangent.unsqueeze(1))
    assert_close(own[:, 0], cotangent @ hessian[1, :, 1], rtol=0, atol=1e-10)
    assert_close(mixed[:, 0], cotangent @ hessian[1, :, 0], rtol=0, atol=1e-10)
    if name != "ad":
        assert mixed.abs().max() > 1e-3


@pytest.mark.parametrize("off_policy", [False, True])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    horizon=st.integers(1, 13),
    rounds=st.integers(1, 4),
    size=st.integers(1, 5),
    discount=st.sampled_from([0.0, 0.5, 0.96, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_blocks_of_rounds_are_the_rounds_one_by_one(off_policy, horizon, rounds, size, discount, seed):
    outcome, judged = sample(2, 3, size, horizon, seed=seed), signal(2, 3, discount=discount, seed=seed % 1000)
    table, direction = joint_log_policy(normal(2, 3, 2, 5, seed=seed)), normal(2, 2, 3, 5, 4, seed=seed + 1)
    ratio = group = behaviour = None
    if off_policy:
        group = torch.randint(0, 2, (3, size), generator=torch.Generator().manual_seed(seed))
        behaviours = joint_log_policy(normal(2, 3, 2, 2, 5, seed=seed + 2))
        ratio = table.unsqueeze(-3) - behaviours
        index = group.expand(2, 3, size)[..., None].expand(2, 3, size, 20)
        behaviour = behaviours.flatten(-2).gather(-2, index).unflatten(-1, (5, 4))
    blocks = DiceBlocks(outcome, judged, ratio, group, rounds=rounds, dtype=F64)
    steps = StepSums(CATALOGUE["dice"], outcome, table, judged, behaviour)
    close = {"rtol": 1e-10, "atol": 1e-10}
    assert_close(blocks.first(), steps.first(), **close)
    assert_close(blocks.product(direction), steps.product(direction), **close)
    assert_close(blocks.visits(), steps.visits(), **close)
    if off_policy:
        assert_close(blocks.weight, steps.weight, **close)


def test_single_precision_is_enough():
    outcome, judged = sample(3, 256, 100), signal(3, discount=0.96)
    direction = normal(1, 3, 5, 4, seed=1)
    fast, exact = (DiceBlocks(outcome, judged, rounds=3, dtype=dtype) for dtype in (torch.float32, F64))
    assert_close(fast.first(), exact.first(), rtol=0, atol=1e-5 * float(exact.first().abs().max()))
    assert_close(fast.product(direction), exact.product(direction), rtol=0, atol=1e-5 * 100)
    assert (fast.first() != exact.first()).any()


def test_visits_are_counted():
    outcome = torch.tensor([[[3, 1, 3], [3, 1, 0]]], dtype=torch.uint8)
    expected = torch.zeros(1, 5, 4, dtype=F64)
    expected[0, 0, 3], expected[0, 4, 1], expected[0, 2, 3], expected[0, 2, 0] = 1, 1, 0.5, 0.5
    assert_close(DiceBlocks(outcome, signal(1)).visits(), expected)


def test_weights_that_overflow_are_refused():
    outcome, ratio = sample(1, 2, 200), torch.full((1, 1, 5, 4), 100.0, dtype=F64)
    with pytest.raises(ValueError, match="log_ratio: expected finite ratios to the behaviour policy, got infinity"):
        DiceBlocks(outcome, signal(1, discount=1.0), ratio, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("logit", [27.7, 800.0])
def test_saturated_policies_stay_finite(logit):
    params = torch.full((1, 2, 5), logit, dtype=F64)
    outcome = torch.zeros(1, 3, 6, dtype=torch.uint8)  # what they would do
    for sums in (
        DiceBlocks(outcome, signal(1)),
        StepSums(CATALOGUE["dice"], outcome, joint_log_policy(params), signal(1)),
    ):
        found = GameObjective(params[:, 0], params[:, 1], torch.tensor([0]), sums)
        assert found.gradient.isfinite().all()
        assert all(part.isfinite().all() for part in found.vjp(torch.ones(1, 1, 5, dtype=F64)))
