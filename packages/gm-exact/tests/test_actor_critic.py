"""Expected updates of an actor-critic against every trajectory of tiny problems, and MGRL's meta-gradient."""

import pytest
import torch
from torch.testing import assert_close

from gm_exact import (
    ActorCritic,
    Dependence,
    MetaParams,
    TabularMDP,
    actor_critic_path,
    actor_critic_step,
    evaluate,
    mgrl_meta_gradient,
    trajectories,
)

F64 = torch.float64
SIZES = [(2, 2, 4), (3, 2, 3), (2, 3, 2), (2, 2, 1)]  # states, actions, horizon
PHI = MetaParams(*torch.tensor([0.9, 0.7, 0.4, 0.1, 0.5], dtype=F64).unbind())


@pytest.fixture(params=SIZES, ids=str)
def problem(request, make_mdp, normal):
    n_states, n_actions, horizon = request.param
    mdp = make_mdp(n_states=n_states, n_actions=n_actions)
    return mdp, ActorCritic(normal(n_states, n_actions), normal(n_states)), horizon


def sampled_advantages(every, values, phi):
    """By the recursion, trajectory by trajectory."""
    value = values[every.states]
    later, found = torch.zeros_like(value[:, 0]), []
    for t in reversed(range(every.rewards.shape[-1])):
        delta = every.rewards[:, t] + phi.discount * value[:, t + 1] - value[:, t]
        later = delta + phi.discount * phi.gae_lambda * later
        found.append(later)
    return torch.stack(found[::-1], -1), value[:, :-1]


def mean_of_updates(mdp, params, phi, horizon):
    """θ + α E[∇θ J(θ; τ)], where autograd differentiates the objective of each trajectory."""
    every = trajectories(mdp, horizon)
    leaves = ActorCritic(*(part.detach().requires_grad_() for part in params))
    advantage, value = sampled_advantages(every, leaves.values, phi)
    target = (advantage + value).detach()
    log_policy = leaves.logits.log_softmax(-1)
    entropy = -(log_policy.exp() * log_policy).sum(-1)[every.states[:, :-1]]
    terms = advantage.detach() * every.log_probs(leaves.logits)
    terms = terms - phi.value_coef * (value - target).square() + phi.entropy_coef * entropy
    objective = (every.probability(leaves.logits).detach() * terms.mean(-1)).sum()
    slopes = torch.autograd.grad(objective, leaves)
    return ActorCritic(*(part + phi.inner_lr * slope for part, slope in zip(params, slopes, strict=True)))


def test_a_step_is_the_mean_over_every_trajectory(problem):
    mdp, params, horizon = problem
    found, wanted = actor_critic_step(mdp, params, PHI, horizon), mean_of_updates(mdp, params, PHI, horizon)
    assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("inner_steps", [0, 1, 2, 3, 7])
def test_the_meta_gradient_is_that_of_central_differences_along_enumerated_steps(problem, inner_steps):
    mdp, params, horizon = problem

    def value_after(phi):
        theta = params
        for _ in range(inner_steps):
            theta = mean_of_updates(mdp, theta, phi, horizon)
        return evaluate(mdp, theta.logits).value

    found = mgrl_meta_gradient(mdp, params, PHI, inner_steps=inner_steps, horizon=horizon)
    width = 1e-4
    for name, exact in found._asdict().items():

        def slope(by, name=name):
            ends = [value_after(PHI._replace(**{name: getattr(PHI, name) + sign * by})) for sign in (1, -1)]
            return (ends[0] - ends[1]) / (2 * by)

        # Richardson's extrapolation: an error of order h⁴
        assert_close(exact, (4 * slope(width / 2) - slope(width)) / 3, rtol=1e-8, atol=1e-8)


def test_what_moves_the_policy(problem):
    """c_v moves the critic alone, which moves the policy from the second step on; the others do so at once."""
    mdp, params, horizon = problem
    once, twice = (mgrl_meta_gradient(mdp, params, PHI, inner_steps=k, horizon=horizon) for k in (1, 2))
    assert once.value_coef == 0
    assert twice.value_coef != 0
    assert once.discount != 0
    assert once.entropy_coef != 0
    assert (once.gae_lambda == 0) == (horizon == 1)  # nothing is looked ahead in one step
    none = mgrl_meta_gradient(mdp, params, PHI, inner_steps=0, horizon=horizon)
    assert all(part == 0 for part in none)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
def test_the_critic_stays_at_the_values_of_the_policy(problem, gae_lambda):
    mdp, params, horizon = problem
    phi = PHI._replace(discount=torch.tensor(mdp.discount, dtype=F64), gae_lambda=torch.tensor(gae_lambda, dtype=F64))
    at_values = params._replace(values=evaluate(mdp, params.logits).state_values)
    assert_close(actor_critic_step(mdp, at_values, phi, horizon).values, at_values.values, rtol=0, atol=1e-12)
    away = actor_critic_step(mdp, params, phi, horizon).values
    assert (away - params.values).abs().max() > 1e-3


# what one trajectory's update is differentiated through, by hand: the surrogate whose gradient is the update
OF_ESTIMATORS = {
    "ad": Dependence(False, False, False, False, False, False),
    "lvc": Dependence(True, False, False, False, False, False),
    "loaded_dice": Dependence(True, True, "undamped", False, False, False),
    "values": Dependence(False, False, False, True, False, False),
    "earlier": Dependence(False, True, False, False, False, False),
    "later": Dependence(False, False, True, False, False, False),
    "critic": Dependence(False, False, False, False, True, False),
    "entropy": Dependence(False, False, False, False, False, True),
    "truth": Dependence(),
}


def box(x):
    return (x - x.detach()).exp()


def boxes(dependence, log_prob, phi):
    """Σ_t A_t ∇log π_t gets a box for what counts: for actions u ≤ t, and (γλ)^{u−t} A_u ∇log π_t beyond."""
    steps = log_prob.shape[-1]
    own = box(log_prob) if dependence.action else torch.ones_like(log_prob)
    before = box(log_prob.cumsum(-1) - log_prob) if dependence.earlier else torch.ones_like(log_prob)
    rows, columns = torch.meshgrid(torch.arange(steps), torch.arange(steps), indexing="ij")
    damped = 1.0 if dependence.later == "undamped" else (phi.discount * phi.gae_lambda).detach()
    look_ahead = torch.where(columns > rows, damped ** (columns - rows).clamp(min=0), 0.0) if dependence.later else 0
    return own * before, look_ahead * torch.ones(steps, steps, dtype=F64)


def mean_of_jacobians(mdp, params, phi, horizon, dependence):
    """The mean over every trajectory, which knows no θ, of the derivative of its update in θ and φ."""
    every = trajectories(mdp, horizon)
    chance = every.probability(params.logits)

    def update(logits, values, *meta):
        phi = MetaParams(*meta)
        log_policy = logits.log_softmax(-1)
        log_prob = every.log_probs(logits)
        advantage, value = sampled_advantages(every, values if dependence.values else values.detach(), phi)
        target = advantage + value
        ratio, ahead = boxes(dependence, log_prob, phi)
        # E[A_t ∇log π_t] is differentiated through the later actions by their own advantages
        weight = advantage * ratio + torch.einsum("tu,nu,nu->nt", ahead, advantage.detach(), box(log_prob) - 1)
        one_hot = torch.nn.functional.one_hot(every.actions, logits.shape[-1]) - log_policy.exp()[every.states[:, :-1]]
        where = torch.nn.functional.one_hot(every.states[:, :-1], logits.shape[-2]).to(F64)
        whole = box(log_prob.sum(-1, keepdim=True))
        own = values[every.states[:, :-1]]
        error = 2 * phi.value_coef * (target - own) * (whole if dependence.critic else 1)
        plogp = (log_policy.exp() * log_policy).sum(-1, keepdim=True)
        slope = -(log_policy.exp() * (log_policy - plogp))[every.states[:, :-1]]
        slope = phi.entropy_coef * slope * (whole.unsqueeze(-1) if dependence.entropy else 1)
        of_policy = torch.einsum("n,nts,nta->sa", chance, where, weight.unsqueeze(-1) * one_hot + slope) / horizon
        of_critic = torch.einsum("n,nts,nt->s", chance, where, error) / horizon
        return logits + phi.inner_lr * of_policy, values + phi.inner_lr * of_critic

    return torch.autograd.functional.jacobian(update, (*params, *phi))


@pytest.mark.parametrize("name", OF_ESTIMATORS)
def test_a_derivative_is_the_mean_of_what_an_estimator_differentiates(problem, name):
    mdp, params, horizon = problem
    dependence = OF_ESTIMATORS[name]
    chance = trajectories(mdp, horizon).probability(params.logits)
    assert_close(chance.sum(), torch.ones((), dtype=F64))

    def step(logits, values, *phi):
        return tuple(actor_critic_step(mdp, ActorCritic(logits, values), MetaParams(*phi), horizon, dependence))

    found = torch.autograd.functional.jacobian(step, (*params, *PHI))
    assert_close(found, mean_of_jacobians(mdp, params, PHI, horizon, dependence), rtol=0, atol=1e-12)
    assert_close(step(*params, *PHI), tuple(actor_critic_step(mdp, params, PHI, horizon)), rtol=0, atol=1e-14)


def test_each_way_into_the_update_counts(problem):
    """A control: leaving out any of them changes the derivative, unless a single step or action has none of it."""
    mdp, params, horizon = problem
    truth = jacobian_norm(mdp, params, horizon, Dependence())
    for name in Dependence._fields:
        without = Dependence(**{name: False})
        changed = jacobian_norm(mdp, params, horizon, without) != truth
        assert changed or (horizon == 1 and name in ("earlier", "later", "entropy")), name
    undamped = jacobian_norm(mdp, params, horizon, Dependence(later="undamped"))
    assert (undamped == truth) == (horizon == 1)


def jacobian_norm(mdp, params, horizon, dependence):
    def step(logits, values):
        return tuple(actor_critic_step(mdp, ActorCritic(logits, values), PHI, horizon, dependence))

    blocks = torch.autograd.functional.jacobian(step, tuple(params))
    return round(float(sum(block.square().sum() for of_row in blocks for block in of_row)), 12)


def test_what_is_left_out_makes_no_difference_to_one_step_and_some_to_two(problem):
    mdp, params, horizon = problem
    for inner_steps in (1, 2):
        truth, *others = (
            torch.stack(mgrl_meta_gradient(
                mdp, params, PHI, inner_steps=inner_steps, horizon=horizon, dependence=dependence
            ))
            for dependence in (Dependence(), *OF_ESTIMATORS.values())
        )  # fmt: skip
        for name, found in zip(OF_ESTIMATORS, others, strict=True):
            equal = bool((found - truth).abs().max() < 1e-14)
            assert equal == (inner_steps == 1 or name == "truth"), (name, inner_steps)


def test_problems_are_a_batch(make_mdp, normal):
    mdps, params = make_mdp(2, 3), ActorCritic(normal(2, 3, 3, 2), normal(2, 3, 3))
    spread = MetaParams(*(part + torch.linspace(0, 0.09, 6, dtype=F64).view(2, 3) for part in PHI))
    together = mgrl_meta_gradient(mdps, params, spread, inner_steps=2, horizon=4)
    for at in [(i, j) for i in range(2) for j in range(3)]:
        mdp = TabularMDP(mdps.transition[at], mdps.reward[at], mdps.start[at], mdps.discount)
        alone = mgrl_meta_gradient(
            mdp, ActorCritic(*(part[at] for part in params)), MetaParams(*(part[at] for part in spread)),
            inner_steps=2, horizon=4,
        )  # fmt: skip
        assert_close(MetaParams(*(part[at] for part in together)), alone, rtol=1e-12, atol=1e-14)


def test_the_path_has_every_step(problem):
    mdp, params, horizon = problem
    path = actor_critic_path(mdp, params, PHI, inner_steps=2, horizon=horizon)
    assert len(path) == 3
    assert path[0] is params
    assert_close(path[2], actor_critic_step(mdp, path[1], PHI, horizon))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 0}, "horizon: expected a positive integer, got 0"),
        ({"logits": torch.zeros(2, 2, dtype=F64)}, r"logits: expected shape \[\.\.\., 3, 2\], got \(2, 2\)"),
        ({"values": torch.zeros(2, dtype=F64)}, r"values: expected shape \[\.\.\., 3\], got \(2,\)"),
        ({"inner_steps": -1}, "inner_steps: expected an integer of at least 0, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(make_mdp, normal, change, message):
    given = {"logits": normal(3, 2), "values": normal(3), "horizon": 3, "inner_steps": 1} | change
    params = ActorCritic(given.pop("logits"), given.pop("values"))
    with pytest.raises(ValueError, match=message):
        mgrl_meta_gradient(make_mdp(), params, PHI, **given)
