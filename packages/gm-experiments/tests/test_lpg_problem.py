"""LPG's update rule and its meta-gradient: by hand, against central differences, and against every trajectory."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import gm_lab
from gm_estimators import Estimator, EstimatorError, meta_gradient
from gm_estimators.estimator import CATALOGUE
from gm_exact import evaluate
from gm_experiments.lpg import problem, study

F64 = torch.float64
TASKS, STATES, ACTIONS, PREDICTIONS, HIDDEN, SIZE, HORIZON = 2, 3, 2, 3, 4, 5, 4


@pytest.fixture
def weights():
    drawn = problem.new_rule(HIDDEN, PREDICTIONS, torch.Generator().manual_seed(0), F64)
    return {name: 2 * weight for name, weight in drawn.items()}


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.fixture
def agent():
    return {
        problem.POLICY: normal(1, TASKS, STATES, ACTIONS),
        problem.PREDICTION: normal(2, TASKS, STATES, PREDICTIONS),
    }


@pytest.fixture
def samples():
    """A fixed batch for each inner step, whatever the agent."""
    found = []
    for step in range(3):
        random = torch.Generator().manual_seed(10 + step)
        state = torch.randint(0, STATES, (TASKS, SIZE, HORIZON + 1), generator=random)
        action = torch.randint(0, ACTIONS, (TASKS, SIZE, HORIZON), generator=random)
        over = (normal(20 + step, TASKS, SIZE, HORIZON) > 1).to(F64)
        found.append(problem.Experience(state, action, normal(30 + step, TASKS, SIZE, HORIZON), over))
    return found


def inner_of(name="ad", **changes):
    return problem.Inner(0.9, 0.5, CATALOGUE[name], **changes)


def test_the_lstm_is_torchs_run_backwards(weights):
    inputs = normal(3, TASKS, SIZE, HORIZON, problem.FEATURES)
    reference = torch.nn.LSTM(problem.FEATURES, HIDDEN, dtype=F64)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(weights["input"])
        reference.weight_hh_l0.copy_(weights["recurrent"])
        reference.bias_ih_l0.copy_(weights["input_bias"])
        reference.bias_hh_l0.zero_()
    expected, _ = reference(inputs.flatten(0, 1).transpose(0, 1).flip(0))
    found = problem.backward_lstm(weights, inputs)
    assert_close(found.flatten(1, 2), expected.flip(0))


def test_targets_see_what_follows_and_nothing_before(weights, agent, samples):
    reward = samples[0].reward.clone()
    reward[..., 2] += 1
    before, after = (problem.rule(weights, agent, s, 0.9) for s in (samples[0], samples[0]._replace(reward=reward)))
    changed = (before.policy != after.policy).all(0).all(0)
    assert changed.tolist() == [True, True, True, False]


def test_an_agent_with_a_rule_of_its_own_is_as_one_with_the_shared_rule(weights, agent, samples):
    own = {name: weight.expand(TASKS, *weight.shape) for name, weight in weights.items()}
    for shared, each in zip(*(problem.rule(w, agent, samples[0], 0.9) for w in (weights, own)), strict=True):
        assert_close(shared, each)


def by_hand(weights, agent, sample) -> dict[str, Tensor]:
    """u step by step: (1[a = a_t] − π) π̂_t for the policy, −α_y y (log y − log ŷ − KL) for the prediction."""
    targets = problem.rule(weights, agent, sample, 0.9)
    found = {name: torch.zeros_like(tensor) for name, tensor in agent.items()}
    for task in range(TASKS):
        for n in range(SIZE):
            for t in range(HORIZON):
                s, a = sample.state[task, n, t], sample.action[task, n, t]
                score = -agent[problem.POLICY][task, s].softmax(-1)
                score[a] += 1
                found[problem.POLICY][task, s] += score * targets.policy[task, n, t] / SIZE
                y = agent[problem.PREDICTION][task, s].softmax(-1)
                gap = y.log() - targets.log_prediction[task, n, t]
                found[problem.PREDICTION][task, s] -= 0.5 * y * (gap - (y * gap).sum()) / SIZE
    return found


@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_estimator_gives_the_update_that_the_equation_does(weights, agent, samples, name, correction):
    tracked = {key: tensor.requires_grad_() for key, tensor in agent.items()}
    found = inner_of(name, correction=correction).direction(weights, tracked, samples[0])
    expected = by_hand(weights, {k: v.detach() for k, v in agent.items()}, samples[0])
    for key, tensor in found.items():
        assert_close(tensor.detach(), expected[key])


def outer_value(theta) -> Tensor:
    """A smooth function of all of θᴷ, one number for each task."""
    return (theta[problem.POLICY].softmax(-1)[..., 0].square() + theta[problem.PREDICTION].sin().sum(-1)).sum(-1)


def test_the_meta_gradient_of_ad_is_that_of_central_differences(weights, agent, samples):
    """On fixed trajectories AD differentiates exactly what is computed: θᴷ as a function of φ, three updates long."""
    inner = inner_of()

    def after(phi) -> float:
        theta = agent
        for sample in samples:
            update = by_hand(phi, theta, sample)
            theta = {name: tensor + 0.7 * update[name] for name, tensor in theta.items()}
        return float(outer_value(theta).sum())

    found = meta_gradient(
        weights,
        agent,
        inner=lambda phi, theta, step: inner.objective(phi, theta, samples[step]),
        outer=lambda _phi, theta: outer_value(theta).sum(),
        inner_steps=3,
        inner_lr=0.7,
    )
    for seed in range(3):
        along = {name: normal(100 + seed, *weight.shape) for name, weight in weights.items()}
        ahead, behind = (
            after({name: weight + sign * 1e-5 * along[name] for name, weight in weights.items()}) for sign in (1, -1)
        )
        slope = sum(float((found[name] * along[name]).sum()) for name in weights)
        assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def stream(*labels: str | int) -> np.random.Generator:
    return np.random.default_rng(gm_lab.seed_of(0, *labels))


@pytest.fixture
def tiny():
    """Two tiny MDPs with agents and a rule whose targets are large enough for the Hessian to matter."""
    made = study.TinyProblem(study.Tiny(), range(2), stream)
    made.weights = {name: 2 * weight for name, weight in made.weights.items()}
    return made


def test_the_exact_meta_gradient_is_that_of_central_differences(tiny):
    """Of J after three expected updates, whose values owe nothing to the correction."""

    def after(phi) -> Tensor:
        theta = tiny.agent
        for _ in range(3):
            at = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
            (objective,) = [tiny.expected("ad", phi, at)]
            step = dict(zip(at, torch.autograd.grad(objective, list(at.values())), strict=True))
            theta = {name: tensor + tiny.tiny.inner_lr * step[name] for name, tensor in theta.items()}
        return evaluate(tiny.mdp, theta["policy"].detach(), tiny.tiny.horizon).value

    weights = tiny.spread()
    found = tiny.expected_meta_gradient(study.CORRECTED, weights, 3)
    biased = tiny.expected_meta_gradient("ad", weights, 3)
    along = {name: normal(len(name), *weight.shape) for name, weight in weights.items()}
    ahead, behind = (after({k: w + sign * 1e-5 * along[k] for k, w in weights.items()}) for sign in (1, -1))
    slope, wrong = (sum((g[k] * along[k]).flatten(1).sum(-1) for k in along) for g in (found, biased))
    assert_close(slope, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-9)
    assert ((wrong - slope).abs() > 1e-3 * slope.abs()).all()  # AD's is another number


def test_at_one_step_estimators_agree_and_beyond_it_only_the_corrected_one_is_exact(tiny):
    def of(name: str, steps: int) -> Tensor:
        return study.flat(tiny.expected_meta_gradient(name, tiny.spread(), steps))

    for name in ("ad", "lvc", "dice", "loaded_dice"):
        assert_close(of(name, 1), of(study.CORRECTED, 1), rtol=1e-10, atol=1e-12)
    truth = of(study.CORRECTED, 3)
    gaps = {name: float((of(name, 3) - truth).norm() / truth.norm()) for name in ("ad", "lvc", "dice")}
    assert gaps["ad"] > 2 * gaps["lvc"] > 0
    assert gaps["dice"] > 1e-6  # the update is no gradient, so that symmetrical derivatives don't fit it


REPEATS, DRAWN = 400, 8


def largest_z(tiny, name: str, reference: str) -> float:
    """The largest |mean of estimates − expectation| in standard errors of the mean, along twenty random directions."""
    uniforms = study.common_uniforms(stream, range(2), REPEATS, DRAWN, tiny.tiny)
    estimates = tiny.estimates(name, "ESE", 3, uniforms(DRAWN))
    expected = study.flat(tiny.expected_meta_gradient(reference, tiny.spread(), 3))
    along = torch.linalg.qr(normal(5, estimates.shape[-1], 20)).Q
    seen, truth = estimates @ along, expected @ along
    error = seen.std(1) / REPEATS**0.5
    return float(((seen.mean(1) - truth).abs() / error).max())


@pytest.mark.parametrize("name", ["ad", "lvc", "dice", "corrected"])
def test_the_sampled_mean_is_the_expectation_by_enumeration(tiny, name):
    """Within 4 standard errors: among 40 numbers a right estimator is that far off once in 400 seeds."""
    assert largest_z(tiny, name, name) < 4


def test_a_biased_control_is_rejected(tiny):
    assert largest_z(tiny, "ad", study.CORRECTED) > 8


@pytest.mark.parametrize(
    ("surrogate", "message"),
    [
        (lambda t: t.log_prob, "expected one number per trajectory"),
        (lambda t: t.reward.detach().sum(-1), "expected a differentiable function of trajectories.log_prob"),
    ],
)
def test_a_users_surrogate_that_fails_is_named(weights, agent, samples, surrogate, message):
    inner = problem.Inner(0.9, 0.5, Estimator("mine:wrong", surrogate, True, "mine", None, "this test"))
    tracked = {key: tensor.requires_grad_() for key, tensor in agent.items()}
    with pytest.raises(EstimatorError, match=f"estimator mine:wrong: surrogate: {message}"):
        inner.direction(weights, tracked, samples[0])
