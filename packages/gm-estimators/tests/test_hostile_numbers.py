"""Numbers that break floating point: padded steps, overflowing ratios, means far from zero. Results stay right."""

import math
from dataclasses import fields, replace

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_estimators import Estimator, EstimatorError, Trajectories, load
from gm_estimators.estimator import CATALOGUE
from gm_estimators.metrics import bias_sq, bias_sq_interval
from gm_estimators.off_policy import OffPolicyTrajectories, cumulative_ratio, effective_sample_size, off_policy
from gm_estimators.operators import magic_box
from gm_estimators.surrogates import automatic_derivatives, lvc, mean_surrogate

F32, F64 = torch.float32, torch.float64
INF = math.inf
NAMES = ["ad", "lvc", "dice", "loaded_dice", "loaded_dice@0.5", "tmaml"]
DRAWN = settings(max_examples=25, deadline=None, derandomize=True)
NOT_FINITE = st.sampled_from([-INF, INF, math.nan])


def own(trajectories: Trajectories) -> torch.Tensor:
    """LVC by hand."""
    return (trajectories.discount[..., :-1] * trajectories.advantage * magic_box(trajectories.log_prob)).sum(-1)


def estimators() -> list[Estimator]:
    """Ours, and one's own."""
    return [*(load(name) for name in NAMES), Estimator("own", own, True, "own", None, "")]


def all_of(estimator: Estimator, read: Trajectories) -> list[torch.Tensor]:
    """Value, gradient and Hessian times one by automatic differentiation, then in closed form."""
    value = mean_surrogate(estimator.surrogate, read)
    (slope,) = torch.autograd.grad(value.sum(), read.log_prob, create_graph=True)
    curved = torch.zeros_like(slope)
    if slope.requires_grad:
        (curved,) = torch.autograd.grad(slope.sum(), read.log_prob, materialize_grads=True, allow_unused=True)
    derivatives = estimator.derivatives(read)
    ones = torch.ones_like(read.reward)
    product = derivatives.diagonal if derivatives.product is None else derivatives.product(ones)
    assert derivatives.mixed is not None
    mixed = [x for x in vars(derivatives.mixed(ones)).values() if x is not None]
    assert product is not None
    return [value, slope, curved, derivatives.first, product, *mixed]


@DRAWN
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_padded_steps_count_nothing(make_trajectories, data, seed):
    """Whatever stands there: value and derivatives are those of zeros in its place."""
    n, horizon = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 5))
    ends = torch.tensor(data.draw(st.lists(st.integers(1, horizon), min_size=n, max_size=n)))
    read = make_trajectories(n, horizon, seed=seed)
    padded = torch.arange(horizon) >= ends.unsqueeze(-1)
    discount = read.discount.masked_fill(torch.arange(horizon + 1) >= ends.unsqueeze(-1), 0)
    hostile, harmless = (
        replace(
            read,
            log_prob=read.log_prob.detach().masked_fill(padded, fill).requires_grad_(),
            reward=read.reward.masked_fill(padded, fill),
            advantage=read.advantage.masked_fill(padded, fill),
            discount=discount,
        )
        for fill in (data.draw(NOT_FINITE), 0.0)
    )
    estimator = data.draw(st.sampled_from(estimators()))
    for found, expected in zip(all_of(estimator, hostile), all_of(estimator, harmless), strict=True):
        assert_close(found, expected, rtol=0, atol=0)


def test_a_step_that_counts_still_shows_its_nan(make_trajectories):
    read = make_trajectories(2, 3)
    log_prob = read.log_prob.detach().clone()
    log_prob[0, 1] = math.nan
    assert mean_surrogate(lvc, replace(read, log_prob=log_prob)).isnan()
    assert replace(read, discount=torch.zeros(4, dtype=F64)).log_prob is read.log_prob  # finite ones are not touched


def off_policy_of(read: Trajectories, log_ratio: torch.Tensor, **controls) -> OffPolicyTrajectories:
    """The trajectories with a behaviour policy at those log ratios."""
    seen = {field.name: getattr(read, field.name) for field in fields(Trajectories)}
    return OffPolicyTrajectories(**seen, behaviour_log_prob=read.log_prob.detach() - log_ratio, **controls)


@pytest.mark.parametrize("controls", [{"clip": 2.0}, {"self_normalise": True}, {"clip": 1.5, "self_normalise": True}])
@DRAWN
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_controlled_ratios_never_overflow(make_trajectories, controls, data, seed):
    """In float32 as in float64, for log ratios far beyond what exp can take; no weight exceeds its bound."""
    logs = st.floats(-300, 300, width=32)
    row = st.lists(logs, min_size=3, max_size=3)
    log_ratio = torch.tensor(data.draw(st.lists(row, min_size=3, max_size=3)), dtype=F64)
    read = make_trajectories(3, 3, seed=seed)
    single = Trajectories(*(getattr(read, field.name).detach().float() for field in fields(Trajectories)))
    single = replace(single, log_prob=single.log_prob.requires_grad_())
    exact, rounded = off_policy_of(read, log_ratio, **controls), off_policy_of(single, log_ratio.float(), **controls)
    bound = min(controls.get("clip", INF), 3 if "self_normalise" in controls else INF)
    assert cumulative_ratio(rounded).max() <= bound * 1.001
    form = off_policy(load(data.draw(st.sampled_from(NAMES))))
    assert form.surrogate(rounded).isfinite().all()
    of_single, of_double = form.derivatives(rounded).first, form.derivatives(exact).first
    assert of_single.isfinite().all()
    # the ratio of a single step, up to 2²⁴, is in float32 right to its logarithm's rounding, 300 · 2⁻²³
    assert_close(of_single.double(), of_double, rtol=1e-3, atol=1e-3 + 1e-3 * float(of_double.abs().max()))


@pytest.mark.parametrize("log_ratio", [[[100.0, 0.0]], [[-100.0, 100.0]]])
def test_a_ratio_that_overflows_without_control_is_refused(make_trajectories, log_ratio):
    """Also where the cumulative one is 1 again, and only the baseline of DiCE reads the step's."""
    read = make_trajectories(1, 2, dtype=F32)
    given_ratio = off_policy_of(read, torch.tensor(log_ratio))
    with pytest.raises(ValueError, match="expected finite ratios to the behaviour policy, got infinity or NaN; clip"):
        off_policy(load("dice")).derivatives(given_ratio)
    with pytest.raises(ValueError, match="expected finite ratios to the behaviour policy, got infinity or NaN; clip"):
        off_policy(load("lvc+vtrace@inf")).derivatives(given_ratio)
    assert off_policy(load("lvc+vtrace@2")).derivatives(given_ratio).first.isfinite().all()


@pytest.mark.parametrize("name", [*NAMES, "lvc+vtrace"])
def test_what_the_policy_cannot_do_has_no_weight(make_trajectories, name):
    """log π = −∞ is the limit of a very small π, in value, gradient and second derivative."""
    read, form = make_trajectories(3, 4), off_policy(load(name))
    log_prob = read.log_prob.detach().clone()
    log_prob[1, 2] = -400.0
    behaviour = torch.full((3, 4), -1.0, dtype=F64)

    def judged(log_prob: torch.Tensor) -> list[torch.Tensor]:
        theta = log_prob.clone().requires_grad_()
        seen = {f.name: getattr(read, f.name) for f in fields(Trajectories)} | {"log_prob": theta}
        value = form.surrogate(OffPolicyTrajectories(**seen, behaviour_log_prob=behaviour))
        (slope,) = torch.autograd.grad(value.sum(), theta, create_graph=True)
        if not slope.requires_grad:
            return [value[[0, 2]], slope]
        return [value[[0, 2]], slope, torch.autograd.grad(slope.sum(), theta)[0]]

    almost = judged(log_prob)
    log_prob[1, 2] = -INF
    value, slope, *curved = judged(log_prob)
    assert_close((value, slope), (almost[0], almost[1]), rtol=1e-12, atol=1e-12)
    assert all(x.isfinite().all() for x in curved)
    if (
        name != "tmaml"
    ):  # whose control variate of later steps has products with this one's score, off-policy biased ones
        assert_close(curved, almost[2:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("controls", [{}, {"clip": 2.0}, {"self_normalise": True}])
@pytest.mark.parametrize("log_mu", [-INF, math.nan])
def test_a_behaviour_that_cannot_do_what_was_played_is_refused(make_trajectories, controls, log_mu):
    read = make_trajectories(2, 3)
    behaviour = torch.full((2, 3), -1.0, dtype=F64)
    behaviour[1, 1] = log_mu
    seen = {field.name: getattr(read, field.name) for field in fields(Trajectories)}
    for name in ("dice", "lvc"):
        with pytest.raises(ValueError, match="it has to be able to do what was played"):
            off_policy(load(name)).derivatives(OffPolicyTrajectories(**seen, behaviour_log_prob=behaviour, **controls))
    # at a padded step nothing was played
    seen["discount"] = seen["discount"].expand(2, 4).clone().index_put((torch.tensor(1),), torch.zeros(4, dtype=F64))
    padded = OffPolicyTrajectories(**seen, behaviour_log_prob=behaviour, **controls)
    assert off_policy(load("dice")).derivatives(padded).first.isfinite().all()


def test_a_policy_that_can_produce_no_trajectory_is_refused(make_trajectories):
    read = make_trajectories(2, 3)
    read = replace(read, log_prob=torch.full((2, 3), -INF, dtype=F64))
    seen = {field.name: getattr(read, field.name) for field in fields(Trajectories)}
    alike = OffPolicyTrajectories(**seen, behaviour_log_prob=torch.zeros(2, 3, dtype=F64), self_normalise=True)
    with pytest.raises(ValueError, match="expected a trajectory that the policy can produce, got weights that are all"):
        cumulative_ratio(alike)


@DRAWN
@given(weights=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6), power=st.integers(-100, 100))
def test_the_effective_sample_size_has_no_scale(weights, power):
    weight = torch.tensor(weights)
    # a weight below 2⁻²⁰ of the largest is none, at any scale
    weight = weight.where(weight > weight.max() * 2**-20, 0)
    scaled = effective_sample_size(weight * 2.0**power)
    assert_close(scaled, effective_sample_size(weight), equal_nan=True)
    assert scaled.isnan() or 1 - 1e-5 <= scaled <= len(weights) * (1 + 1e-5)


def test_the_effective_sample_size_of_what_is_no_weight():
    assert_close(effective_sample_size(torch.full((3,), 2e38)), torch.tensor(3.0))
    for weight in ([-1.0, 1.0], [INF, 1.0], [0.0, 0.0], [math.nan, 1.0]):
        assert effective_sample_size(torch.tensor(weight)).isnan()


@DRAWN
@given(
    seed=st.integers(0, 2**31),
    shift=st.floats(-1e6, 1e6),
    repeats=st.integers(3, 12),
    dtype=st.sampled_from([F32, F64]),
)
def test_the_interval_of_the_squared_bias_does_not_depend_on_where_zero_is(seed, shift, repeats, dtype):
    """Estimates that float32 holds exactly, moved with their truth to where squares have no digits left for them."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(-8, 9, (repeats, 3), generator=draw).to(dtype)
    truth, shift = torch.ones(3, dtype=dtype), float(round(shift))
    expected, found = bias_sq_interval(x.double(), truth.double()), bias_sq_interval(x + shift, truth + shift)
    half = expected.high - expected.value
    assert_close((found.high - found.low).double(), 2 * half, rtol=1e-4, atol=1e-3)


def test_the_interval_far_from_the_truth_is_that_in_double_precision():
    """Means a thousand standard deviations from zero: the half-width was 37 instead of 2.6."""
    x = 1000 + torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    exact = bias_sq_interval(x, torch.zeros(3, dtype=F64))
    found = bias_sq_interval(x.float(), torch.zeros(3))
    assert_close((found.high - found.low).double(), exact.high - exact.low, rtol=1e-3, atol=0)


@DRAWN
@given(pair=st.lists(st.floats(-1e10, 1e10), min_size=4, max_size=4))
def test_two_repeats_bound_nothing(pair):
    x, truth = torch.tensor(pair, dtype=F64).reshape(2, 2), torch.zeros(2, dtype=F64)
    found = bias_sq_interval(x, truth)
    assert (found.value.item(), found.low.item(), found.high.item()) == (bias_sq(x, truth).item(), -INF, INF)


def greedy(trajectories: Trajectories) -> torch.Tensor:
    """LVC of centred advantages; it centres them, and all else that it reads, where they are."""
    for tensor in (trajectories.advantage, trajectories.reward, trajectories.value, trajectories.discount):
        tensor -= tensor.mean()
    return own(trajectories)


@pytest.mark.parametrize("through", ["derivatives", "mixed", "load"])
def test_an_estimator_that_changes_its_input_changes_no_one_elses(make_trajectories, tmp_path, monkeypatch, through):
    read = make_trajectories(4, 3)
    before = {field.name: getattr(read, field.name).detach().clone() for field in fields(Trajectories)}
    if through == "load":
        source = (
            "def greedy(t):\n    t.advantage.sub_(1)\n    t.reward.mul_(2)\n    return (t.reward * t.log_prob).sum(-1)"
        )
        (tmp_path / "greedy_module.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        load("greedy_module:greedy").surrogate(read)
    else:
        derivatives = Estimator("greedy", greedy, True, "greedy", None, "").derivatives(read)
        if through == "mixed":
            assert derivatives.mixed is not None
            assert derivatives.mixed(torch.ones(4, 3, dtype=F64)).advantage is not None
    for name, tensor in before.items():
        assert torch.equal(getattr(read, name), tensor), name


def test_time_major_data_are_refused_by_their_shapes(make_trajectories, monkeypatch):
    read = make_trajectories(3, 3)
    tensors = {field.name: getattr(read, field.name) for field in fields(Trajectories)}
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # outside of tests nothing else checks
    with pytest.raises(ValueError, match=r"value: expected shape \(3, 4\) beside log_prob's \(3, 3\), time last"):
        Trajectories(**(tensors | {"value": read.value.mT}))
    with pytest.raises(ValueError, match=r"discount: expected 4 time steps, one more than log_prob, got \(4, 3\)"):
        Trajectories(**(tensors | {"discount": read.discount.unsqueeze(-1).expand(4, 3)}))
    with pytest.raises(ValueError, match=r"behaviour_log_prob: expected log_prob's shape \(3, 3\), got \(3, 1\)"):
        OffPolicyTrajectories(**tensors, behaviour_log_prob=read.log_prob[:, :1])


def test_derivatives_are_had_where_the_caller_wants_none(make_trajectories):
    read = make_trajectories(3, 4)
    expected = CATALOGUE["lvc"].derivatives(read)
    with torch.no_grad():
        found = automatic_derivatives(own, read)
        assert found.product is not None
        product = found.product(torch.ones(3, 4, dtype=F64))
    assert_close(found.first, expected.first)
    assert_close(product, expected.diagonal)


def test_a_surrogate_that_fails_is_named(make_trajectories):
    def broken(trajectories: Trajectories) -> torch.Tensor:
        return trajectories.log_prob.sum(-1) / 0

    with pytest.raises(EstimatorError, match="estimator broken: surrogate: expected a finite gradient"):
        Estimator("broken", broken, True, "broken", None, "").derivatives(make_trajectories(2, 3))
