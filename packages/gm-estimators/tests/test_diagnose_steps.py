"""Advice on K, for a loop whose truth has a closed form: one action a ~ N(θ, 1) with reward −½ (a − 1)².

With δ = θ − 1 and q = (1 − α)²ᴷ, J_Out(θᴷ) = −½ (q δ² + 1) and g_K = −q δ.
"""

import math

import jaxtyping
import pytest
import torch

from gm_estimators import Sizes, Trajectories
from gm_estimators.diagnose import diagnose
from gm_estimators.diagnose.advice import Tried, Truth, relative, unit_of

RATE, LANES = 0.1, 256


@pytest.fixture(scope="module", autouse=True)
def unchecked():
    """Checking shapes would take half of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        yield


def draw(role, step, params, n, seed):
    return params + torch.randn(*params.shape[:-1], n, generator=torch.Generator().manual_seed(seed))


def see(action, params, gae_lambda):
    log_prob, reward = -0.5 * (action - params).square(), -0.5 * (action - 1).square()
    value = torch.zeros(*action.shape, 2)
    return Trajectories(log_prob[..., None], reward[..., None], value, reward[..., None], torch.ones(2))


def diagnosed(**changes):
    options = {
        "draw": draw, "see": see, "params": torch.zeros(1), "sizes": Sizes(8, 8, 8, shared=True), "blocks": 8,
        "inner_lr": RATE, "lanes": LANES, "budget": 1, "surrogate": "lvc",
    }  # fmt: skip
    return diagnose(**(options | changes))


def advised(report, **options):
    return report.advise(**({"trajectories": 12, "splits": (0.5,), "lambdas": (), "budget": 1} | options))


@pytest.fixture(scope="module")
def report(unchecked):
    return diagnosed()


@pytest.fixture(scope="module")
def advice(report):
    return advised(report, inner_steps=(1, 3))


def shrunk(steps):
    return (1 - RATE) ** (2 * steps)


def test_the_return_after_each_number_of_steps_is_told(advice):
    for steps, found in advice.returns.items():
        assert found.low < -0.5 * (shrunk(steps) + 1) < found.high
    assert list(advice.returns) == [1, 3]
    assert advice.returns[1].high < advice.returns[3].low
    assert "  3 " in str(advice)
    assert max(map(len, str(advice).splitlines())) <= 80


def test_a_choice_of_each_number_of_steps_spends_the_trajectories(advice):
    assert [choice.mse for choice in advice.choices] == sorted(choice.mse for choice in advice.choices)
    for choice in advice.choices:
        sizes = choice.sizes
        inner = sizes.inner if sizes.shared else sizes.inner + sizes.hessian
        assert choice.inner_steps * inner + sizes.outer == 12
    assert {choice.inner_steps for choice in advice.choices} == {1, 3}


def test_the_loops_own_steps_alone_cost_nothing_more(report):
    alone, same = advised(report), advised(report, inner_steps=[1, 1])
    assert alone == same
    assert alone.returns == {}
    other = advised(report, inner_steps=(3,))
    assert {choice.inner_steps for choice in other.choices} == {3}
    assert other.env_steps > alone.env_steps
    assert "K has a g" not in str(other)


def test_a_meta_gradient_that_may_be_zero_has_no_unit():
    """Where θ⁰ is the best there is, none of them is told apart from 0, and no K can be put before another."""
    there = diagnosed(params=torch.ones(1), lanes=16)
    advice = advised(there, inner_steps=(1, 2))
    assert all(math.isnan(choice.mse) for choice in advice.choices)
    assert all(choice.beyond.low <= 0 or math.isnan(choice.beyond.low) for choice in advice.choices)
    assert "errors are ranked, and have no unit" in str(advice)


def test_a_length_that_may_be_zero_is_no_unit_beside_others():
    """The estimate of the first is 0.30, not told apart from 0; that of the second is."""
    for x, told in (
        ([3.0, -1.0, 0.5, 2.0, -1.0, 0.8, 1.5, 0.1], False),
        ([1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1], True),
    ):
        truth = Truth(None, torch.tensor(x, dtype=torch.float64).unsqueeze(-1), ())
        assert truth.length > 0.2
        assert unit_of(truth, several=False) == truth.length
        assert math.isnan(unit_of(truth, several=True)) is not told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inner_steps": 3}, r"inner_steps: expected one or more numbers such as \(1, 2, 3\), got 3"),
        ({"inner_steps": ()}, r"inner_steps: expected one or more numbers such as \(1, 2, 3\), got none"),
        ({"inner_steps": (1, 0)}, "inner_steps: expected at least 1, got 0"),
        ({"inner_steps": "12"}, "inner_steps: expected an integer, got '1'"),
        ({"inner_steps": (1, 12)}, "trajectories: expected at least 13, got 12"),
    ],
)
def test_steps_that_cannot_be_tried_are_refused(report, options, said):
    with pytest.raises((ValueError, TypeError), match=said) as seen:
        advised(report, **options)
    assert "\n" not in str(seen.value)


def test_a_loop_that_fits_its_own_steps_alone_is_refused():
    def once(role, step, params, n, seed):
        return draw(role, step, params, n, seed) / (role == "outer" or step == 0)

    with pytest.raises(ValueError, match="see: expected finite numbers, got NaN or infinity in log_prob of inner step"):
        advised(diagnosed(draw=once, lanes=8), inner_steps=(1, 2))


TRIES, REPEATS, REFERENCES = 400, 64, 16
TRUTHS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.3, 0.3, -0.3, 0.3]], dtype=torch.float64)
MEANS = TRUTHS + torch.tensor([[0.2, 0.1, 0.0, 0.0], [0.0, -0.2, 0.0, 0.3]], dtype=torch.float64)
NOISE, OF_REFERENCE = 0.5, (0.3, 0.2)


def tried_at(seed):
    """Estimates of two meta-gradients, whose noise is in part the same, with references of their own."""
    rng = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, 4, generator=rng, dtype=torch.float64)

    common = noise(REPEATS)
    for g, mean, scale in zip(TRUTHS, MEANS, OF_REFERENCE, strict=True):
        truth = Truth(None, g + scale * noise(REFERENCES), ())
        yield Tried(mean + NOISE * (common + noise(REPEATS)) / 2**0.5, truth, truth.length)


def test_an_interval_across_steps_has_both_references_errors():
    """95% of them hold the truth; of those that take references for exact far fewer do."""
    length = TRUTHS.square().sum(-1)
    exact = ((MEANS - TRUTHS).square().sum(-1) + 4 * NOISE**2) / length
    beyond = float(exact[0] - exact[1])
    held, control = 0, 0
    for seed in range(TRIES):
        one, other = tried_at(seed)
        found = relative(one, other)
        held += found.low <= beyond <= found.high
        apart = one.errors / one.unit - other.errors / other.unit
        control += abs(float(apart.mean()) - beyond) <= 2 * float(apart.std()) / REPEATS**0.5
    assert 0.92 * TRIES <= held <= 0.98 * TRIES
    assert control < 0.85 * TRIES
