"""Intervals of `gm_estimators.diagnose` hold the truth as often as they say, where enumeration knows the truth.

The loop is MAML in a tabular MDP, handed over as if it were a network: `draw` and `see` alone. All trajectories of two
steps, and all pairs of them that an inner gradient can be of, are enumerated; g is gm-exact's.
"""

from functools import cache
from itertools import product

import pytest
import torch

import gm_exact
from gm_estimators import Sizes, Trajectories, load
from gm_estimators.attribution import shapley, subsets
from gm_estimators.diagnose import diagnose
from gm_estimators.diagnose.measured import Sampled, verdict
from gm_estimators.diagnose.sources import config_of, sources_of
from gm_estimators.metrics import bias_sq_interval
from gm_estimators.returns import discounts, gae

HORIZON, DISCOUNT, LAMBDA, RATE, N = 2, 0.9, 0.5, 0.7, 2
REWARD = torch.tensor([[1.0, 0.2], [0.0, 2.0]], dtype=torch.float64)
CRITIC = torch.tensor([0.6, -0.4], dtype=torch.float64)  # wrong on purpose
THETA = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64)
TRANSITION = torch.eye(2, dtype=torch.float64).expand(2, 2, 2).clone()  # the action is the next state
MDP = gm_exact.TabularMDP(TRANSITION, REWARD, start=0, discount=DISCOUNT)
ACTIONS = torch.tensor(list(product((0, 1), repeat=HORIZON)))  # every trajectory
STATES = torch.cat([torch.zeros(4, 1, dtype=torch.long), ACTIONS], 1)
DIAGNOSES, REPEATS = 100, 32


def read(states, actions, logits, gae_lambda):
    """What a surrogate reads; the critic knows that nothing follows the last step."""
    log_prob = logits.log_softmax(-1).flatten(-2)
    cell = 2 * states[..., :-1] + actions
    log_prob = log_prob.unsqueeze(-2).expand(*cell.shape[:-1], 4).gather(-1, cell)
    reward = REWARD[states[..., :-1], actions]
    value = torch.cat([CRITIC[states[..., :-1]], torch.zeros_like(reward[..., :1])], -1)
    return Trajectories(log_prob, reward, value, gae(reward, value, DISCOUNT, gae_lambda), discounts(DISCOUNT, 3))


def draw(role, step, params, n, seed):
    probability = params["logits"].softmax(-1)
    number = torch.rand(*probability.shape[:-2], n, HORIZON, generator=torch.Generator().manual_seed(seed))
    state, states, actions = torch.zeros(number.shape[:-1], dtype=torch.long), [], []
    for t in range(HORIZON):
        second = probability[..., 1].unsqueeze(-2).expand(*state.shape, 2).gather(-1, state.unsqueeze(-1)).squeeze(-1)
        states.append(state)
        state = (number[..., t] < second).long()
        actions.append(state)
    return torch.stack([*states, state], -1), torch.stack(actions, -1)


def see(batch, params, gae_lambda):
    return read(*batch, params["logits"], gae_lambda)


def along_batch(function, theta):
    """A function of logits `[2, 2]` for a batch of them."""
    return torch.func.vmap(function)(theta)


def first(theta, gae_lambda):
    """(p, ∇f) of every trajectory, `[batch, trajectory]` and `[batch, trajectory, 4]`."""

    def surrogate(x):
        return load("ad").surrogate(read(STATES, ACTIONS, x, gae_lambda))

    log_prob = along_batch(lambda x: read(STATES, ACTIONS, x, 1.0).log_prob.sum(-1), theta)
    return log_prob.exp(), along_batch(torch.func.jacrev(surrogate), theta).flatten(2)


def second(theta, gae_lambda, name):
    """∇²f of every trajectory, `[batch, trajectory, 4, 4]`."""

    def surrogate(x):
        return load(name).surrogate(read(STATES, ACTIONS, x.reshape(2, 2), gae_lambda))

    return along_batch(torch.func.jacfwd(torch.func.jacrev(surrogate)), theta.flatten(1))


PAIRS = torch.tensor(list(product(range(4), repeat=N)))


def expected(config, steps, theta):
    """E[d] `[batch, 4]` from θ on, by all that can be drawn in the steps that are left."""
    if steps == 0:
        p, slope = first(theta, config.end_lambda)
        return torch.einsum("bt,bti->bi", p, slope)
    p, slope = first(theta, config.inner_lambda)
    curvature = second(theta, config.curvature_lambda, config.curvature.name)
    if config.composition:
        weight, ascent = p[:, PAIRS].prod(-1), slope[:, PAIRS].mean(2)
    else:
        weight, ascent = torch.ones_like(p[:, :1]), torch.einsum("bt,bti->bi", p, slope).unsqueeze(1)
    jacobian = torch.einsum("bt,btij->bij", p, curvature).unsqueeze(1)
    if config.shared:
        jacobian = curvature[:, PAIRS].mean(2)
    moved = theta.unsqueeze(1) + RATE * ascent.unflatten(-1, (2, 2))
    later = expected(config, steps - 1, moved.flatten(0, 1)).unflatten(0, moved.shape[:2])
    return torch.einsum("bc,bci->bi", weight, later + RATE * torch.einsum("bcij,bcj->bci", jacobian, later))


@cache
def found(steps):
    """The diagnosis with a lane for every repeat of every diagnosis, and the truth of each of its numbers."""
    report = diagnose(
        draw=draw, see=see, params={"logits": THETA}, sizes=Sizes(N, N, 4, shared=True), inner_steps=steps,
        inner_lr=RATE, gae_lambda=LAMBDA, lanes=DIAGNOSES * REPEATS, blocks=16, budget=1,
    )  # fmt: skip
    truth = exact(steps)
    return report, truth, {each.name: truths(report.plan.loop, each, steps, truth) for each in report.plan.estimators}


def truths(loop, estimator, steps, g):
    sources, length = sources_of(loop, estimator), g @ g
    errors = {
        some: expected(config_of(loop, estimator, some), steps, THETA[None])[0] - g if some else torch.zeros_like(g)
        for some in subsets(sources)
    }
    squares = {some: e @ e / length for some, e in errors.items()}
    lengths = {some: e @ g / length for some, e in errors.items()}
    whole = frozenset(sources)
    return {
        "bias_sq": squares[whole], "along": lengths[whole],
        **{f"share of {name}": x for name, x in shapley(squares, sources).items()},
        **{f"share of {name} along g": x for name, x in shapley(lengths, sources).items()},
    }  # fmt: skip


def part(sampled, rows):
    return Sampled(
        sampled.reference[rows], sampled.coarser[rows], {name: x[rows] for name, x in sampled.estimates.items()},
        {name: x[rows] for name, x in sampled.variances.items()},
    )  # fmt: skip


def numbers(said):
    return {
        "bias_sq": said.bias_sq, "along": said.along, **{f"share of {name}": x for name, x in said.shares.items()},
        **{f"share of {name} along g": x for name, x in said.along_shares.items()},
    }  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3])
def test_the_truth_is_gm_exacts(steps):
    ideal = config_of(found(1)[0].plan.loop, load("loaded_dice"), ())
    assert torch.allclose(expected(ideal, steps, THETA[None])[0], exact(steps), rtol=1e-9)


def exact(steps):
    return gm_exact.maml_meta_gradient(MDP, THETA, inner_lr=RATE, inner_steps=steps, horizon=HORIZON).flatten()


def test_intervals_cover():
    """Of 100 intervals of each number at least 88 hold it, where 95 are expected: three standard errors below."""
    report, _, truth = found(1)
    for estimator in report.plan.estimators:
        inside = dict.fromkeys(truth[estimator.name], 0)
        for i in range(DIAGNOSES):
            sampled = part(report.sampled, slice(i * REPEATS, (i + 1) * REPEATS))
            for name, (_, low, high) in numbers(verdict(sampled, report.plan.loop, estimator)).items():
                inside[name] += bool(low <= truth[estimator.name][name] <= high)
        assert min(inside.values()) >= 88, inside


def test_intervals_that_take_the_reference_for_exact_do_not_cover():
    report, _, truth = found(1)
    lvc = load("lvc")
    config = config_of(report.plan.loop, lvc, sources_of(report.plan.loop, lvc))
    inside = 0
    for i in range(DIAGNOSES):
        sampled = part(report.sampled, slice(i * REPEATS, (i + 1) * REPEATS))
        g = sampled.reference.mean(0)
        _, low, high = (x / (g @ g) for x in bias_sq_interval(sampled.estimates[config], g))
        inside += bool(low <= truth["lvc"]["bias_sq"] <= high)
    assert inside < 88
