"""∇φ of K differentiable updates against central differences of a plain loop, in float64 on a tiny network.

The loop holds at their unperturbed values all that the method takes as constant: critic values inside advantages, the
discount that the critic is told, LVC's denominators and the clipping coefficient.
"""

from itertools import product

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import ascent, load
from gm_estimators.optimisers import adam, adam_state, constant
from gm_mgrl_atari.actor_critic import functional
from gm_mgrl_atari.distributions import Categorical, Normal
from gm_mgrl_atari.learner import Learner, Point
from gm_mgrl_atari.network import Network
from gm_mgrl_atari.objectives import Batch, coefficients, combined, fixed_coefficients, policy_estimator, terms

F64 = torch.float64
RATE = {"sgd": 0.3, "adam": 0.02}
OUTER = (0.99, 0.95, 0.0, 0.0)


class Plain:
    """The same computation step by step; `constants` are recorded in the first run and then held."""

    def __init__(self, network, batches, estimator, rule, max_norm, hold_clip=True):
        self.network, self.batches, self.estimator = network, batches, estimator
        self.rule, self.max_norm, self.hold_clip = rule, max_norm, hold_clip
        self.constants = {}

    def held(self, name, value):
        return self.constants.setdefault(name, value.detach().clone())

    def evaluated(self, params, observation, told):
        """What the network makes of states of two batch axes."""
        return self.network(params, observation, told)

    def policy(self, log_probs, action):
        """Log-probability and entropy."""
        return log_probs[action], -(log_probs.exp() * log_probs).sum()

    def objective(self, params, batch, values, name):
        gamma, lam, value_coef, entropy_coef = values
        told = self.held(f"gamma {name}", gamma)
        outputs, value = self.evaluated(params, batch.observation, told)
        critic = self.held(f"critic {name}", value)
        total, count = 0.0, int(batch.valid.sum())
        for env in range(len(batch.action)):
            advantage = torch.zeros((), dtype=F64)
            for t in reversed(range(batch.action.shape[1])):
                ends, cut = bool(batch.terminated[env, t]), bool(batch.truncated[env, t])
                delta = batch.reward[env, t] + (0 if ends else gamma * critic[env, t + 1]) - critic[env, t]
                advantage = delta + (0 if ends or cut else gamma * lam * advantage)
                if not batch.valid[env, t]:
                    continue
                log_prob, entropy = self.policy(outputs[env, t], batch.action[env, t])
                before = self.held(f"log_prob {name} {env} {t}", log_prob)
                score = log_prob if self.estimator == "ad" else (log_prob - before).exp()
                error = (value[env, t] - critic[env, t] - advantage) ** 2
                total = total + advantage * score - value_coef * error + entropy_coef * entropy
        return total / count

    def outer(self, params, logits, inner_steps):
        """J_Out(θᴷ) of the logits."""
        first = {name: torch.zeros_like(value) for name, value in params.items()}
        second = {name: torch.zeros_like(value) for name, value in params.items()}
        for i in range(inner_steps):
            leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
            objective = self.objective(leaves, self.batches[i], logits.sigmoid(), str(i))
            grads = dict(zip(leaves, torch.autograd.grad(objective, list(leaves.values())), strict=True))
            if self.max_norm is not None:
                norm = torch.cat([g.flatten() for g in grads.values()]).norm()
                scale = torch.clamp(self.max_norm / (norm + 1e-6), max=1)
                scale = self.held(f"clip {i}", scale) if self.hold_clip else scale
                grads = {name: scale * g for name, g in grads.items()}
            if self.rule == "sgd":
                params = {name: params[name] + RATE["sgd"] * g for name, g in grads.items()}
                continue
            for name, g in grads.items():
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
            params = {
                name: params[name]
                + RATE["adam"]
                * (first[name] / (1 - 0.9 ** (i + 1)))
                / ((second[name] / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
                for name in params
            }
        with torch.no_grad():
            return self.objective(params, self.batches[-1], torch.tensor(OUTER, dtype=F64), "outer")

    def differences(self, params, logits, inner_steps, step=1e-5):
        self.outer(params, logits, inner_steps)
        shifts = step * torch.eye(4, dtype=F64)
        ends = [[self.outer(params, logits + sign * shift, inner_steps) for sign in (1, -1)] for shift in shifts]
        return torch.stack([(up - down) / (2 * step) for up, down in ends])


class PlainLogits(Plain):
    """With outputs that aren't normalised, of a network that takes one batch axis."""

    def evaluated(self, params, observation, told):
        outputs, value = self.network(params, observation.flatten(0, 1), told)
        return outputs.unflatten(0, observation.shape[:2]), value.unflatten(0, observation.shape[:2])

    def policy(self, outputs, action):
        kind = torch.distributions.Categorical(logits=outputs)
        return kind.log_prob(action), kind.entropy()


class PlainNormal(PlainLogits):
    """With continuous actions."""

    def policy(self, outputs, action):
        kind = torch.distributions.Normal(outputs[:2], outputs[2:].exp())
        return kind.log_prob(action).sum(), kind.entropy().sum()


class Small(torch.nn.Module):
    """Three numbers to four, for the policy, and a critic that is told γ."""

    def __init__(self):
        super().__init__()
        self.hidden, self.actor, self.critic = (torch.nn.Linear(*size) for size in ((3, 5), (5, 4), (6, 1)))

    def forward(self, observation, discount):
        features = torch.tanh(self.hidden(observation))
        told = torch.cat([features, discount.expand(*features.shape[:-1], 1)], -1)
        return self.actor(features), self.critic(told)


def small_network():
    module, draw = Small().double(), torch.Generator().manual_seed(0)
    for value in module.parameters():
        value.data = 0.5 * torch.randn(value.shape, generator=draw, dtype=F64)
    return functional(module)


def small_batch(seed, distribution, action):
    """Random experience of vectors, with ends of both kinds."""
    draw = torch.Generator().manual_seed(seed)
    flags = torch.zeros(3, 3, 4, dtype=torch.bool)
    flags[0, 0, 1] = flags[1, 1, 2] = flags[2, 1, 3] = True
    return Batch(
        observation=torch.randn((3, 5, 3), generator=draw, dtype=F64), action=action(draw),
        reward=torch.randn((3, 4), generator=draw, dtype=F64), terminated=flags[0], truncated=flags[1],
        valid=~flags[2], distribution=distribution,
    )  # fmt: skip


KINDS = {
    "logits": (PlainLogits, Categorical(), lambda draw: torch.randint(4, (3, 4), generator=draw)),
    "normal": (PlainNormal, Normal(), lambda draw: torch.randn((3, 4, 2), generator=draw, dtype=F64)),
}


@pytest.mark.parametrize(
    ("kind", "estimator", "rule", "inner_steps"), list(product(KINDS, ("ad", "lvc"), ("sgd", "adam"), (2, 3)))
)
def test_the_meta_gradient_of_a_plain_module(logits, kind, estimator, rule, inner_steps):
    """Logits and normal actions of an MLP, by `functional`, whose critic is told γ."""
    plain, distribution, action = KINDS[kind]
    network = small_network()
    used = [small_batch(seed, distribution, action) for seed in range(inner_steps + 1)]
    found = window(network, network.params, logits, used, estimator, rule_of(rule, 0.5), inner_steps).meta_gradient
    loop = plain(network, used, estimator, rule, 0.5)
    expected = loop.differences(network.params, logits, inner_steps)
    assert expected.abs().min() > 1e-8, "a test that sees nothing of some meta-parameter"
    assert_close(found, expected, rtol=1e-5, atol=1e-9)


def rule_of(name, max_norm, detach_clip=True):
    if name == "sgd":
        return ascent(RATE["sgd"], max_norm=max_norm, detach_clip=detach_clip)
    return adam(constant(RATE["adam"]), max_norm=max_norm, detach_clip=detach_clip)


def window(network, params, logits, batches, estimator, rule, inner_steps):
    learner = Learner(network, load(estimator), rule)
    return learner.window(Point(params, adam_state(params)), logits, lambda _, i: batches[i], inner_steps)


@pytest.fixture
def batches(random_batch):
    return [random_batch(seed) for seed in range(4)]


@pytest.mark.parametrize(
    ("estimator", "rule", "max_norm", "inner_steps"),
    list(product(("ad", "lvc"), ("sgd", "adam"), (None, 0.05), (1, 2, 3))),
)
def test_the_meta_gradient_is_the_derivative_of_the_outer_objective(
    network, params, logits, batches, estimator, rule, max_norm, inner_steps
):
    used = [*batches[:inner_steps], batches[-1]]
    found = window(network, params, logits, used, estimator, rule_of(rule, max_norm), inner_steps).meta_gradient
    expected = Plain(network, used, estimator, rule, max_norm).differences(params, logits, inner_steps)
    assert expected.abs().min() > 1e-8, "a test that sees nothing of some meta-parameter"
    assert_close(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("inner_steps", [2, 3])
def test_the_derivative_goes_through_every_convolution(logits, random_batch, inner_steps):
    """Two layers: derivatives of the second filters and of the images between them matter from the second step on."""
    network = Network(actions=3, frames=2, size=6, layers=((3, 3, 1), (3, 2, 2)), hidden=4, embedding=2)
    draw = torch.Generator().manual_seed(0)
    initial = network.init(draw, dtype=F64)
    params = {n: value + 0.3 * torch.randn(value.shape, generator=draw, dtype=F64) for n, value in initial.items()}
    used = [random_batch(seed) for seed in range(inner_steps + 1)]
    found = window(network, params, logits, used, "lvc", rule_of("adam", None), inner_steps).meta_gradient
    expected = Plain(network, used, "lvc", "adam", None).differences(params, logits, inner_steps)
    assert_close(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_the_detached_clipping_coefficient_makes_the_documented_difference(network, params, logits, batches, rule):
    """Differentiated clipping agrees with differences that let the coefficient move; detached clipping doesn't."""
    expected = Plain(network, batches, "lvc", rule, 0.05, hold_clip=False).differences(params, logits, 3)
    moving, detached = (
        window(network, params, logits, batches, "lvc", rule_of(rule, 0.05, detach), 3).meta_gradient
        for detach in (False, True)
    )
    assert_close(moving, expected, rtol=1e-5, atol=1e-9)
    assert (detached - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.claim("MGRL-3")
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_ad_and_lvc_agree_for_one_step_and_differ_for_three(network, params, logits, batches, rule):
    def both(inner_steps):
        used = [*batches[:inner_steps], batches[-1]]
        return (
            window(network, params, logits, used, name, rule_of(rule, 0.5), inner_steps).meta_gradient
            for name in ("ad", "lvc")
        )

    ad, lvc = both(1)
    assert_close(ad, lvc, rtol=0, atol=1e-12)
    ad, lvc = both(3)
    assert (ad - lvc).norm() > 1e-4 * ad.norm()


def test_the_inner_steps_of_ad_and_lvc_have_the_same_values(network, params, logits, batches):
    paths = [
        window(network, params, logits, batches, name, rule_of("adam", 0.5), 3).path
        for name in ("ad", "lvc", "loaded_dice")
    ]
    for ad, lvc, loaded in zip(*paths, strict=True):
        assert_close(ad.params, lvc.params, rtol=0, atol=1e-12)
        assert_close(ad.params, loaded.params, rtol=0, atol=1e-12)
    assert (paths[0][2].params["conv0.weight"] - params["conv0.weight"]).abs().max() > 0.01


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_the_first_point_of_a_window_is_where_one_a2c_update_leads(network, params, logits, batches, rule):
    """Bit for bit, so that the discard schedule trains exactly as A2C does."""
    learner = Learner(network, load("lvc"), rule_of(rule, 0.5))
    point = Point(params, adam_state(params))
    kept = learner.window(point, logits, lambda _, i: batches[i], 3).path[0]
    updated, _ = learner.update(point, batches[0], coefficients(logits))
    for name in params:
        assert torch.equal(kept.params[name], updated.params[name])
        assert torch.equal(kept.optimiser.first[name], updated.optimiser.first[name])
        assert torch.equal(kept.optimiser.second[name], updated.optimiser.second[name])
    assert kept.optimiser.step == updated.optimiser.step
    assert not any(value.requires_grad for value in kept.params.values())


def test_the_policy_of_each_step_collects_its_batch(network, params, logits, batches):
    seen = []

    def batch_at(theta, i):
        seen.append((i, theta))
        return batches[i]

    learner = Learner(network, policy_estimator("lvc"), rule_of("adam", 0.5))
    result = learner.window(Point(params, adam_state(params)), logits, batch_at, 3)
    assert [i for i, _ in seen] == [0, 1, 2, 3]
    for (_, theta), point in zip(seen[1:], result.path, strict=True):
        assert all(torch.equal(theta[name], point.params[name]) for name in theta)
    assert result.batches == batches


def test_values_do_not_depend_on_the_estimator_but_the_outer_objective_ignores_the_critic(
    network, params, logits, batches
):
    """Outer: the policy term alone at γ = 0.99 and λ = 0.95, whatever the meta-parameters are."""
    outer = Learner(network, load("ad"), rule_of("sgd", None)).outer
    assert [round(float(value), 12) for value in outer] == list(OUTER)
    parts = terms(network, params, batches[0], fixed_coefficients(), load("ad"))
    assert torch.equal(combined(parts, fixed_coefficients()), parts.policy)
