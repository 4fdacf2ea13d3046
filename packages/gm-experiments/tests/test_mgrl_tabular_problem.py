"""MGRL's sampled updates against every trajectory of tiny MDPs, and what each estimator computes on average."""

from itertools import product

import pytest
import torch
from torch.testing import assert_close

import gm_estimators as estimators
import gm_exact
from gm_estimators.surrogates import Trajectories, mean_surrogate
from gm_exact import ActorCritic, MetaParams, TabularMDP
from gm_experiments.mgrl_tabular import problem as mgrl
from gm_experiments.mgrl_tabular.settings import CORRECTED, Mgrl
from gm_experiments.mgrl_tabular.sources import ESTIMATORS

F64, HORIZON = torch.float64, 3
FLAGS = Mgrl(repeats=1, states=2, actions=2, horizon=HORIZON, gamma=0.9, gae_lambda=0.6, value_coef=0.4,
    entropy_coef=0.3, inner_lr=1.5)  # fmt: skip
PHI = mgrl.initial_phi(FLAGS)


@pytest.fixture(scope="module")
def tiny():
    """An MDP and a policy whose probabilities are quarters, so that repeated trajectories are as frequent as likely."""
    draw = torch.Generator().manual_seed(2)
    quarters = torch.randint(1, 4, (2, 2), generator=draw), torch.randint(1, 4, (2,), generator=draw)
    transition, policy = (torch.stack([of, 4 - of], -1).to(F64) / 4 for of in quarters)
    reward, values = torch.randn(2, 2, generator=draw, dtype=F64), torch.randn(2, generator=draw, dtype=F64)
    return TabularMDP(transition, reward, 0, 0.8), ActorCritic(policy.log(), values)


def batched(mdp):
    return TabularMDP(mdp.transition[None, None], mdp.reward[None, None], 0, mdp.discount)


@pytest.fixture(scope="module")
def point(tiny):
    """What there is at the tiny policy, and a sample in which every trajectory is as often as it is likely."""
    mdp, params = tiny
    every = gm_exact.trajectories(mdp, HORIZON)
    times = every.probability(params.logits) * 16**HORIZON
    assert_close(times, times.round())
    often = times.round().long()
    rollout = tuple(x.repeat_interleave(often, 0)[None, None] for x in (every.states, every.actions))
    problem = mgrl.MgrlProblem(
        batched(mdp), mgrl.joined(params)[None, None], PHI[None, None], FLAGS, lambda *_: rollout
    )
    at = problem.at(problem.params)
    return at, at.draw(0, {"hessian": slice(None), "outer": slice(None)})


def products(tiny, dependence, cotangents):
    """The exact ((∂u/∂θ)ᵀ λ, (∂u/∂φ)ᵀ λ) as far as a dependence counts."""
    mdp, params = tiny
    theta, phi = (x[None, None].clone().requires_grad_() for x in (mgrl.joined(params), PHI))
    moved = gm_exact.actor_critic_step(batched(mdp), mgrl.split(theta), mgrl.meta_params(phi), HORIZON, dependence)
    update = mgrl.joined(moved) - theta
    found = [torch.autograd.grad(update, (theta, phi), vector, retain_graph=True) for vector in cotangents]
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


@pytest.fixture(scope="module")
def cotangents():
    return torch.randn(2, 1, 1, 2, 3, generator=torch.Generator().manual_seed(3), dtype=F64)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_mean_of_a_sampled_update_and_of_its_derivatives_is_exact(tiny, point, cotangents, name):
    at, samples = point
    sampled = at.sampled("hessian", mgrl.estimator_of(name), samples["hessian"])
    assert_close(sampled.gradient, at.exact("inner").gradient, rtol=0, atol=1e-12)
    found, wanted = sampled.vjp(cotangents), products(tiny, ESTIMATORS[name], cotangents)
    assert_close(found, wanted, rtol=0, atol=1e-12)
    # a control: the truth's derivative in θ is none but the corrected one's
    off = (found[0] - products(tiny, gm_exact.Dependence(), cotangents)[0]).abs().max()
    assert (off < 1e-12) == (name == CORRECTED)
    assert name == CORRECTED or off > 1e-2


def test_the_exact_update_has_the_derivatives_of_everything(tiny, point, cotangents):
    at, _ = point
    assert_close(at.exact("inner").vjp(cotangents), products(tiny, gm_exact.Dependence(), cotangents))


def test_the_outer_gradient_is_a_discounted_policy_gradient_with_the_agents_critic(tiny, point):
    mdp, params = tiny
    at, samples = point
    every = gm_exact.trajectories(mdp, HORIZON)
    leaf = params.logits.clone().requires_grad_()
    value = params.values[every.states]
    advantage = estimators.returns.gae(every.rewards, value, mdp.discount, FLAGS.outer_lambda)
    discounted = estimators.returns.discounts(mdp.discount, HORIZON) * advantage * every.log_probs(leaf)
    (wanted,) = torch.autograd.grad((every.probability(params.logits) * discounted.sum(-1)).sum(), leaf)
    found = at.sampled("outer", mgrl.estimator_of("ad"), samples["outer"])
    assert_close(found.gradient[0, 0, :, :-1], wanted, rtol=0, atol=1e-12)
    assert (found.gradient[..., -1] == 0).all()


def objective(mdp, every, surrogate, weight, meta, params):
    """Eq. 14 over every trajectory, with that estimator's policy term: what code differentiates, without a formula."""
    logits, values = mgrl.split(params)
    phi = mgrl.meta_params(meta)
    value = values[every.states]
    advantage = estimators.returns.gae(every.rewards, value.detach(), phi.discount, phi.gae_lambda)
    read = Trajectories(every.log_probs(logits), every.rewards, value.detach(), advantage, torch.ones(HORIZON + 1))
    log_policy = logits.log_softmax(-1)
    entropy = -(log_policy.exp() * log_policy).sum(-1)[every.states[:, :-1]]
    error = (value[:, :-1] - (advantage + value[:, :-1].detach())).square()
    policy = torch.stack([mean_surrogate(surrogate, one(read, i)) for i in range(len(weight))])
    parts = policy + (phi.entropy_coef * entropy - phi.value_coef * error).sum(-1)
    return phi.inner_lr * (weight * parts).sum() / HORIZON


def one(read, i):
    """A single trajectory, whose mean is itself."""
    rows = slice(i, i + 1)
    return Trajectories(read.log_prob[rows], read.reward[rows], read.value[rows], read.advantage[rows], read.discount)


@pytest.mark.parametrize(("name", "inner_steps"), list(product(("ad", "lvc", "loaded_dice"), (1, 2))))
def test_the_expected_meta_gradient_is_that_of_enumerated_surrogates(tiny, name, inner_steps):
    """Exact inner and outer gradients; the Jacobian is the mean of what autograd makes of an estimator's surrogate."""
    mdp, params = tiny
    every, surrogate = gm_exact.trajectories(mdp, HORIZON), estimators.load(name).surrogate

    def hessian(meta, theta, _step):
        chance = every.probability(mgrl.split(theta).logits).detach()
        return objective(mdp, every, surrogate, chance, meta, theta)

    def inner(meta, theta, _step):
        """Its gradient is the exact update."""
        moved = gm_exact.actor_critic_step(mdp, mgrl.split(theta.detach()), mgrl.meta_params(meta), HORIZON)
        return ((mgrl.joined(moved) - theta.detach()) * theta).sum()

    found = estimators.meta_gradient(
        PHI, mgrl.joined(params), inner=inner, hessian=hessian, inner_steps=inner_steps, inner_lr=1.0,
        outer=lambda _, theta: gm_exact.value(mdp, mgrl.split(theta).logits),
    )  # fmt: skip
    terms = mdp, mgrl.joined(params), PHI, inner_steps, HORIZON
    expected, truth = (mgrl.exact_meta_gradient(*terms, each) for each in (ESTIMATORS[name], None))
    assert_close(found, expected, rtol=0, atol=1e-10)
    off = float((found - truth).norm() / truth.norm())
    assert off < 1e-10 if inner_steps == 1 else off > 1e-3


def test_lvc_is_nearer_the_truth_than_ad_and_the_corrected_one_is_the_truth(tiny):
    mdp, params = tiny
    for inner_steps in (2, 3, 7):
        terms = mdp, mgrl.joined(params), PHI, inner_steps, HORIZON
        truth = mgrl.exact_meta_gradient(*terms)
        off = {name: (mgrl.exact_meta_gradient(*terms, each) - truth).norm() for name, each in ESTIMATORS.items()}
        assert off["ad"] > off["lvc"] > off[CORRECTED] == 0


def test_phi_is_logits_and_a_logarithm():
    phi = mgrl.meta_params(PHI)
    assert_close(phi, MetaParams(*(torch.tensor(x, dtype=F64) for x in (0.9, 0.6, 0.4, 0.3, 1.5))))
    jacobian = torch.autograd.functional.jacobian(lambda x: torch.stack(list(mgrl.meta_params(x)), -1), PHI)
    assert_close(jacobian, torch.diag(mgrl.slopes(PHI)))


def drawing(tiny, repeats, seed=0):
    """A problem whose trajectories are drawn afresh for each role and step."""
    import numpy as np

    import gm_envs_tabular as envs

    mdp, params = tiny
    next_states = envs.successors(batched(mdp).transition)

    def rollout(role, step, policy, rows):
        assert isinstance(rows, slice)
        rng = np.random.default_rng([seed, step, *role.encode()])
        numbers = envs.uniforms(rng, policy.shape[:-2], 64, HORIZON)[..., rows, :]
        return envs.rollout(policy, next_states, numbers)

    flags = Mgrl(**vars(FLAGS) | {"repeats": repeats})
    return mgrl.MgrlProblem(batched(mdp), mgrl.joined(params)[None, None], PHI[None, None], flags, rollout)


def test_the_exact_meta_gradient_of_the_decomposition_is_the_same(tiny):
    problem = drawing(tiny, 1)
    found = estimators.exact_meta_gradient(problem, inner_steps=3, inner_lr=mgrl.COMPOSED)
    assert_close(found, mgrl.exact_meta_gradient(problem.mdp, problem.params, problem.phi, 3, HORIZON))


def test_estimates_have_the_mean_that_is_computed(tiny):
    """Within four standard errors, K = 3, only the Hessian sampled; a biased control isn't: AD beside the truth."""
    problem, repeats = drawing(tiny, 3000), 3000
    found = estimators.decompose(
        problem, [mgrl.estimator_of(name) for name in ESTIMATORS], permutations=["ESE"], sizes=[16], inner_steps=3,
        inner_lr=mgrl.COMPOSED,
    )  # fmt: skip

    def worst(name, wanted):
        estimates = found[name, "ESE", 16][0]
        error = estimates.std(0) / repeats**0.5
        return float(((estimates.mean(0) - wanted).abs() / error.where(error > 0, 1)).max())

    terms = problem.mdp, problem.params, problem.phi, 3, HORIZON
    for name, dependence in ESTIMATORS.items():
        assert worst(name, mgrl.exact_meta_gradient(*terms, dependence)[0, 0]) < 4, name
    truth = mgrl.exact_meta_gradient(*terms)[0, 0]
    assert worst("ad", truth) > 10
    assert worst("lvc", truth) > 4


def test_a_window_can_begin_with_given_trajectories_and_smaller_samples_are_parts_of_larger_ones(tiny):
    problem = drawing(tiny, 5)
    at = problem.at(problem.params)
    first = problem.rollout("outer", 9, at._spread.logits.softmax(-1), slice(16))
    reused = mgrl.MgrlProblem(problem.mdp, problem.params, problem.phi, problem.mgrl, problem.rollout, first)
    drawn = {step: reused.at(reused.params).draw(step, {"inner": slice(16), "hessian": slice(16)}) for step in (0, 1)}
    assert torch.equal(drawn[0]["inner"].state, first[0])
    assert not torch.equal(drawn[0]["hessian"].state, first[0])
    assert not torch.equal(drawn[1]["inner"].state, first[0])
    part, whole = (at.draw(0, {"inner": slice(n)})["inner"] for n in (8, 16))
    for name in ("state", "cell", "by_discount", "by_lambda"):
        assert torch.equal(getattr(whole.select(slice(8)), name), getattr(part, name))
    assert torch.equal(whole.select(slice(8)).read.advantage, part.read.advantage)
