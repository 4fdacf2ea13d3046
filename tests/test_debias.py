"""Debiased composition by enumeration of whole batches: every tuple of n trajectories of a tiny MDP, n = 1 … 4."""

import math
from dataclasses import dataclass, replace
from functools import cache

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from given import given_problem

with jaxtyping.install_import_hook(
    ["gm_envs_ipd", "gm_envs_tabular", "gm_estimators", "gm_exact", "gm_experiments"], "shapes.checked"
):
    from gm_envs_ipd import GAMES, log_policy, log_probs
    from gm_envs_tabular import rollout, successors, uniforms
    from gm_estimators import Trajectories, decompose, meta_gradient
    from gm_estimators.debias import Jackknife, Levels, Term, combine, jackknife, trajectories_drawn
    from gm_estimators.decomposition import Splits
    from gm_estimators.estimator import CATALOGUE
    from gm_estimators.returns import discounts
    from gm_estimators.surrogates import dice, mean_surrogate
    from gm_exact import TabularMDP, expectation, game_value, gradient, lola_meta_gradient
    from gm_exact import trajectories as every_trajectory
    from gm_experiments.common.problem import TabularProblem

F64 = torch.float64
GAMMA, HORIZON, INNER_LR = 0.8, 2, 0.4
NEXT_IS_ACTION = torch.eye(2, dtype=F64).expand(2, 2, 2)
MDP = TabularMDP(NEXT_IS_ACTION, torch.tensor([[0.4, -0.2], [1.0, -0.9]], dtype=F64), 0, GAMMA)
THETA = torch.tensor([[0.3, -0.2], [0.1, 0.5]], dtype=F64)
EVERY = every_trajectory(MDP, HORIZON)
SIZES = (1, 2, 3, 4)


def tuples(size: int) -> Tensor:
    """Every batch of n trajectories."""
    return torch.cartesian_prod(*[torch.arange(len(EVERY.actions))] * size).reshape(-1, size)


def problem(*batches: Tensor, lirpg: bool = False) -> TabularProblem:
    """Step i reads the given trajectories for the inner gradient and the Hessian, after K for the outer gradient."""
    shape = torch.broadcast_shapes(*(batch.shape[:-1] for batch in batches))

    def rollout(role, step, policy, rows):
        chosen = batches[step].expand(*shape, -1)[..., rows]
        return EVERY.states[chosen], EVERY.actions[chosen]

    phi = torch.zeros(*shape, 2, 2, dtype=F64, requires_grad=True) if lirpg else None
    settings = {"critic_for": "none", "horizon": HORIZON, "intrinsic_reward": phi}
    return given_problem(MDP, THETA.expand(*shape, 2, 2), rollout, **settings)


def estimates(name: str, *batches: Tensor, debias=None, permutation: str = "SSE", lirpg: bool = False) -> Tensor:
    """With a sampled outer gradient the last batch is that of the outer gradient."""
    estimator = replace(CATALOGUE[name], debias=debias)
    settings = {"permutations": [permutation], "sizes": [batches[0].shape[-1]], "inner_lr": INNER_LR}
    settings |= {"inner_steps": len(batches) - (permutation[2] == "S")}
    (found,) = decompose(problem(*batches, lirpg=lirpg), [estimator], **settings).values()
    return found


def weights(batch: Tensor, theta: Tensor = THETA) -> Tensor:
    """The probability of every batch, of which θ may depend on leading axes."""
    return EVERY.probability(theta)[..., batch].prod(-1)


def surrogate(name: str):
    def of(log_prob: Tensor, every) -> Tensor:
        discount = discounts(GAMMA, HORIZON + 1)
        reward = every.rewards
        to_go = torch.stack([reward[:, 0] + GAMMA * reward[:, 1], reward[:, 1]], -1)
        return CATALOGUE[name].surrogate(
            Trajectories(log_prob, reward, torch.zeros(len(reward), HORIZON + 1, dtype=F64), to_go, discount)
        )

    return of


@cache
def limit(name: str, inner_steps: int = 1) -> Tensor:
    """g_∞: the meta-gradient with an estimator's expected gradient and Hessian."""
    theta, hessians = THETA, []
    for _ in range(inner_steps):
        mean = expectation(surrogate(name), MDP, theta, HORIZON)
        hessians.append(mean.hessian)
        theta = theta + INNER_LR * mean.gradient
    adjoint = gradient(MDP, theta, HORIZON)
    for hessian in reversed(hessians):
        adjoint = adjoint + INNER_LR * torch.einsum("saxb,xb->sa", hessian, adjoint)
    return adjoint


@cache
def plain_bias(name: str, size: int) -> Tensor:
    batch = tuples(size)
    return torch.einsum("n,nsa->sa", weights(batch), estimates(name, batch)) - limit(name)


def taylor_coefficient(name: str, factor: float = 0.5) -> Tensor:
    """½ ∂²G/∂z∂z : Cov z, z = (gradient, Hessian) of one trajectory, G(z) = (I + α H) ∇J(θ + α x)."""
    leaf = THETA.expand(len(EVERY.actions), 2, 2).clone().requires_grad_()
    log_prob = torch.stack([EVERY.log_probs(one)[i] for i, one in enumerate(leaf)])
    (slope,) = torch.autograd.grad(surrogate(name)(log_prob, EVERY).sum(), leaf, create_graph=True)
    curvature = torch.stack(
        [torch.autograd.grad(slope[:, s, a].sum(), leaf, retain_graph=True)[0] for s in range(2) for a in range(2)],
        1,
    )
    z = torch.cat((slope.detach().flatten(1), curvature.flatten(1)), 1)
    probability = EVERY.probability(THETA)
    mean = probability @ z
    covariance = torch.einsum("n,ni,nj->ij", probability, z - mean, z - mean)

    def composed(at: Tensor) -> Tensor:
        ahead = gradient(MDP, THETA + INNER_LR * at[:4].reshape(2, 2), HORIZON).flatten()
        return ahead + INNER_LR * at[4:].reshape(4, 4) @ ahead

    second = torch.stack([torch.autograd.functional.hessian(lambda at, i=i: composed(at)[i], mean) for i in range(4)])
    return factor * torch.einsum("kij,ij->k", second, covariance).reshape(2, 2)


def moved(batch: Tensor) -> Tensor:
    """θ¹ = θ⁰ + α times the batch's gradient, the same for all estimators without a critic."""
    leaf = THETA.clone().requires_grad_()
    values = surrogate("dice")(EVERY.log_probs(leaf), EVERY)
    slopes = torch.stack([torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values])
    return THETA + INNER_LR * slopes[batch].mean(-3)


@pytest.mark.claim("plain-bias")
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_plain_bias_is_of_order_one_over_n_with_taylors_coefficient(name):
    """n · bias = c₁ + c₂/n + c₃/n² + c₄/n³ …, through n = 1 … 4, at 1/n = 0."""
    scaled = torch.stack([size * plain_bias(name, size) for size in SIZES])
    nodes = torch.tensor([1 / size for size in SIZES], dtype=F64)
    fitted = torch.linalg.solve(torch.linalg.vander(nodes), scaled.flatten(1))[0].reshape(2, 2)
    coefficient = taylor_coefficient(name)
    assert_close(fitted, coefficient, rtol=0, atol=0.01 * coefficient.norm())
    assert (fitted - taylor_coefficient(name, factor=0.52)).norm() > 0.03 * coefficient.norm()  # the control


@pytest.mark.claim("jackknife-bias")
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_bias_of_the_jackknife_is_of_order_one_over_n_squared(name):
    """n (n − 1) · bias has a limit, n · bias goes to zero; the plain estimate is the control."""
    bias = {}
    for size in SIZES[1:]:
        batch = tuples(size)
        mean = torch.einsum("n,nsa->sa", weights(batch), estimates(name, batch, debias=Jackknife(size)))
        bias[size] = mean - limit(name)
        expected = size * plain_bias(name, size) - (size - 1) * plain_bias(name, size - 1)
        assert_close(bias[size], expected, rtol=0, atol=1e-12)
    scaled = torch.stack([size * (size - 1) * bias[size] for size in (2, 3, 4)]).flatten(1).norm(dim=-1)
    assert (scaled[1:] / scaled[:-1]).sub(1).abs().max() < 0.1
    control = torch.stack([size * (size - 1) * plain_bias(name, size) for size in (2, 3, 4)]).flatten(1).norm(dim=-1)
    assert (control[1:] / control[:-1]).min() > 1.3
    assert bias[4].norm() < 0.1 * plain_bias(name, 4).norm()


@pytest.mark.claim("jackknife-bias")
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_jackknife_of_a_reward_that_only_the_inner_step_sees(name):
    """LIRPG, φ ≠ θ, part by part: α ∇φ⟨∇θ J_In(φ, θ), ∇J(θ¹)⟩ in the limit of many trajectories."""
    theta, phi = THETA.clone().requires_grad_(), torch.zeros(2, 2, dtype=F64, requires_grad=True)
    seen = EVERY.rewards + phi[EVERY.states[:, :-1], EVERY.actions]
    log_prob = EVERY.log_probs(theta).sum(-1)
    objective = log_prob.exp() @ (seen * GAMMA ** torch.arange(HORIZON)).sum(-1)
    (slope,) = torch.autograd.grad(objective, theta, create_graph=True)
    ahead = gradient(MDP, THETA + INNER_LR * slope.detach(), HORIZON)
    truth = INNER_LR * torch.autograd.grad((slope * ahead).sum(), phi)[0]

    def bias(size: int, debias) -> Tensor:
        batch = tuples(size)
        assert problem(batch, lirpg=True).parts([torch.arange(size).unsqueeze(0)]) is None
        found = estimates(name, batch, debias=debias, lirpg=True)
        return torch.einsum("n,nsa->sa", weights(batch), found) - truth

    plain = {size: bias(size, None) for size in SIZES}
    debiased = {size: bias(size, Jackknife(size)) for size in SIZES[1:]}
    for size in SIZES[1:]:
        expected = size * plain[size] - (size - 1) * plain[size - 1]
        assert_close(debiased[size], expected, rtol=0, atol=1e-12)
    scaled = torch.stack([size * (size - 1) * debiased[size].norm() for size in SIZES[1:]])
    assert (scaled[1:] / scaled[:-1]).sub(1).abs().max() < 0.15
    control = torch.stack([size * (size - 1) * plain[size].norm() for size in SIZES[1:]])
    assert (control[1:] / control[:-1]).min() > 1.3
    assert debiased[4].norm() < 0.15 * plain[4].norm()


def test_a_second_order_removes_the_next_power():
    batch = tuples(3)
    mean = torch.einsum("n,nsa->sa", weights(batch), estimates("dice", batch, debias=Jackknife(3, 2)))
    first = torch.einsum("n,nsa->sa", weights(batch), estimates("dice", batch, debias=Jackknife(3)))
    assert (mean - limit("dice")).norm() < 0.2 * (first - limit("dice")).norm()


class Quadratic:
    """b·θ + ½ θᵀMθ in place of the outer objective: g is a polynomial of second degree of the batch's means."""

    meta_gradient = None

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, None]:
        raise AssertionError("the outer objective is differentiated once")

    def __init__(self, params: Tensor) -> None:
        draw = torch.Generator().manual_seed(1)
        slope, root = torch.randn(4, generator=draw, dtype=F64), torch.randn(4, 4, generator=draw, dtype=F64)
        self.gradient = (slope + params.flatten(-2) @ (root + root.mT)).unflatten(-1, (2, 2))


class QuadraticOutside:
    """A problem with that outer objective."""

    def __init__(self, batch: Tensor) -> None:
        self.whole = problem(batch)
        self.params, self.meta_is_params = self.whole.params, True

    def at(self, params: Tensor):
        point = self.whole.at(params)
        inside = point.exact
        point.exact = lambda role: Quadratic(params) if role == "outer" else inside(role)
        return point


@pytest.mark.parametrize("name", CATALOGUE)
def test_where_the_composition_is_a_polynomial_nothing_is_left(name):
    mean = expectation(surrogate(name), MDP, THETA, HORIZON)
    ahead = Quadratic(THETA + INNER_LR * mean.gradient).gradient
    truth = ahead + INNER_LR * torch.einsum("saxb,xb->sa", mean.hessian, ahead)

    def bias(batch: Tensor, debias) -> Tensor:
        estimator = replace(CATALOGUE[name], debias=debias)
        settings = {"permutations": ["SSE"], "sizes": [batch.shape[-1]], "inner_steps": 1}
        (found,) = decompose(QuadraticOutside(batch), [estimator], inner_lr=INNER_LR, **settings).values()
        return (torch.einsum("n,nsa->sa", weights(batch), found) - truth).norm()

    for size, blocks in ((2, 2), (3, 3), (4, 2), (4, 4)):
        assert bias(tuples(size), Jackknife(blocks)) < 1e-9
        assert bias(tuples(size), None) > 1e-3 / size  # the control


@pytest.mark.claim("multilevel-bias")
@pytest.mark.parametrize("name", CATALOGUE)
def test_multilevel_with_an_end_has_the_expectation_of_its_largest_batch(name):
    levels = Levels(highest=2)
    mean = torch.zeros(2, 2, dtype=F64)
    unweighted = torch.zeros(2, 2, dtype=F64)
    for level in range(3):
        batch = tuples(levels.size(level))
        given = torch.einsum("n,nsa->sa", weights(batch), estimates(name, batch, debias=levels.at(level)))
        mean += levels.probability(level) * given
        unweighted += given / 3
    assert_close(mean - limit(name), plain_bias(name, 4), rtol=0, atol=1e-9)
    assert (mean - limit(name) - plain_bias(name, 2)).norm() > 1e-3
    assert (unweighted - limit(name) - plain_bias(name, 4)).norm() > 1e-3  # the control: levels drawn alike


REWARDS, LOGITS = torch.tensor([1.5, 0.5], dtype=F64), torch.tensor([0.7, -0.1], dtype=F64)


def bandit(size: int) -> tuple[Tensor, Tensor]:
    """Every batch of n actions of a bandit, by how often action 0 was chosen: probabilities, and DiCE's estimates.

    Batches further than 12 standard deviations from the mean are left out.
    """
    first = float(LOGITS.softmax(-1)[0])
    spread = 12 * (size * first * (1 - first)) ** 0.5 + 12
    low, high = max(0, int(size * first - spread)), min(size, int(size * first + spread))
    count = torch.arange(low, high + 1, dtype=F64)
    steps = ((size - count[:-1]) / (count[:-1] + 1)).log() + (LOGITS[0] - LOGITS[1])
    log_probability = torch.nn.functional.pad(steps.cumsum(-1), (1, 0))
    share = torch.stack((count / size, 1 - count / size), -1)
    policy = LOGITS.softmax(-1)
    score = torch.eye(2, dtype=F64) - policy
    slopes = REWARDS.unsqueeze(-1) * score
    fisher = policy.diag() - torch.outer(policy, policy)
    curvatures = REWARDS[:, None, None] * (score.unsqueeze(-1) * score.unsqueeze(-2) - fisher)
    theta = LOGITS + share @ slopes
    ahead_policy = theta.softmax(-1)
    ahead = ahead_policy * (REWARDS - (ahead_policy @ REWARDS).unsqueeze(-1))
    curvature = torch.einsum("na,axy->nxy", share, curvatures)
    return log_probability.softmax(-1), ahead + torch.einsum("nxy,ny->nx", curvature, ahead)


def bandit_limit() -> Tensor:
    leaf = LOGITS.clone().requires_grad_()
    slope = torch.autograd.grad(leaf.softmax(-1) @ REWARDS, leaf, create_graph=True)[0]
    return torch.autograd.grad((leaf + slope).softmax(-1) @ REWARDS, leaf)[0]


def bandit_mean(size: int) -> Tensor:
    probability, found = bandit(size)
    return probability @ found


@pytest.mark.claim("multilevel-bias")
def test_multilevel_without_an_end_has_no_bias():
    """Σ_l p_l E[Z | l] over all levels to 2³⁰, with the terms of the code for the first ten."""
    levels = Levels()
    mean = torch.zeros(2, dtype=F64)
    for level in range(31):
        probability = levels.probability(level)
        if level < 10:
            terms = [(term.weight, term.parts.shape[-1]) for term in levels.at(level).terms(levels.size(level))]
        else:  # as above, without numbering a thousand million trajectories
            terms = [(1.0, 1), (1 / probability, 2**level), (-1 / probability, 2 ** (level - 1))]
        mean += probability * sum(weight * bandit_mean(size) for weight, size in terms)
    unseen = 1 - sum(levels.probability(level) for level in range(31))
    mean += unseen * bandit_mean(1)  # of higher levels only the start counts: their differences are below 1e-10
    assert_close(mean, bandit_limit(), rtol=0, atol=1e-9)
    for size in (1, 4, 1024, 2**20):  # the control: a batch of any size is biased
        assert (bandit_mean(size) - bandit_limit()).norm() > 1e-2 / size


@pytest.mark.claim("multilevel-variance")
def test_antithetic_halves_keep_the_variance_finite():
    """E|Δ_l|² falls by four with each level where the parts share all trajectories."""

    def second_moment(level: int, antithetic: bool) -> float:
        half, found = bandit(2 ** (level - 1))
        assert len(half) == 2 ** (level - 1) + 1  # every batch
        together = torch.arange(len(half)).unsqueeze(-1) + torch.arange(len(half))
        other = found.unsqueeze(0) if antithetic else found.unsqueeze(1)
        difference = bandit(2**level)[1][together] - (found.unsqueeze(1) + other) / 2
        return float(torch.einsum("i,j,ijk->", half, half, difference.square()))

    assert 3.5 < second_moment(5, True) / second_moment(6, True) < 4.5
    assert 1.8 < second_moment(5, False) / second_moment(6, False) < 2.2  # the control


@dataclass(frozen=True)
class Difference:
    """Δ_l alone."""

    def terms(self, size: int) -> list[Term]:
        return [Term(1.0, torch.arange(size).reshape(1, -1)), Term(-1.0, torch.arange(size).reshape(2, -1))]


def decay(make_mdp, permutation: str, inner_steps: int, *, common: bool = True) -> tuple[float, float]:
    """The exponent b of E|Δ_l|² ∝ 2^{−b l} between l = 3 and 7, and its standard error, of what `decompose` does."""
    mdp = make_mdp(states=2, actions=2, concentration=0.5, discount=0.8, seed=0)
    transition, repeats, sizes = successors(mdp.transition), 3000, (8, 128)
    estimator, log_mean, error = replace(CATALOGUE["dice"], debias=Difference()), [], 0.0
    for size in sizes:
        fresh = np.random.default_rng(size)

        def numbers(role: str, step: int, rows: slice | Tensor, size=size, fresh=fresh) -> Tensor:
            if common or step == 0:
                return uniforms(np.random.default_rng([size, len(role), step]), (repeats,), size, HORIZON)[..., rows, :]
            return uniforms(fresh, (repeats,), size, HORIZON)[..., rows, :]

        problem = given_problem(
            mdp,
            THETA.expand(repeats, 2, 2),
            lambda role, step, policy, rows, of=numbers: rollout(policy, transition, of(role, step, rows)),
            critic_for="none",
            horizon=HORIZON,
        )
        settings = {"permutations": [permutation], "inner_steps": inner_steps, "inner_lr": INNER_LR}
        (found,) = decompose(problem, [estimator], sizes=[size], **settings).values()
        squares = found.square().sum((-2, -1))
        log_mean.append(squares.mean().log2())
        error += float(squares.var() / squares.mean().square() / repeats)
    levels = math.log2(sizes[1] / sizes[0])
    return float(log_mean[0] - log_mean[1]) / levels, error**0.5 / math.log(2) / levels


@pytest.mark.claim("multilevel-variance")
@pytest.mark.parametrize(("permutation", "inner_steps"), [("SSS", 1), ("SSE", 2), ("SSS", 2)])
def test_what_is_drawn_later_slows_the_decay_of_the_differences(make_mdp, permutation, inner_steps):
    """By four standard errors: faster than the default rate, slower than where all trajectories are shared."""
    found, error = decay(make_mdp, permutation, inner_steps)
    assert Levels().rate < found - 4 * error
    assert abs(found - 1.5) < 0.15 + 4 * error
    assert found + 4 * error < decay(make_mdp, "SSE", 1)[0]  # where all trajectories are shared
    found, error = decay(make_mdp, permutation, inner_steps, common=False)  # the control: no rate above 1 will do
    assert found + 4 * error < Levels().rate
    assert abs(found - 1) < 0.15 + 4 * error


def test_the_default_rate_has_finite_cost_and_variance_on_common_random_numbers():
    """Σ 2^{(1 − ra) l} and Σ 2^{(ra − 3/2) l} converge."""
    assert 1 < Levels().rate < 1.5
    assert Levels().expected_size == pytest.approx((1 - 2**-1.25) / (1 - 2**-0.25))


def two_batches_mean(name: str, size: int, debias, permutation: str = "SSE") -> Tensor:
    """The expectation where each part draws its second batch at its own θ¹, of the second step or the outer gradient.

    The conditional mean over these is a function of the first batch.
    """
    first = tuples(size)

    def given_first(numbers: Tensor) -> Tensor:
        mine, second = first[:, numbers], tuples(len(numbers))
        found = estimates(name, mine.unsqueeze(1), second.unsqueeze(0), permutation=permutation)
        return torch.einsum("fg,fgsa->fsa", weights(second, moved(mine)), found)

    given = given_first(torch.arange(size)) if debias is None else combine(given_first, debias.terms(size))
    return torch.einsum("n,nsa->sa", weights(first), given)


@pytest.mark.claim("multilevel-bias")
@pytest.mark.parametrize("permutation", ["SSE", "SSS"])
@pytest.mark.parametrize("name", ["lvc", "dice"])
def test_multilevel_where_parts_run_apart_has_the_expectation_of_its_largest_batch(name, permutation):
    """K = 2, and K = 1 with a sampled outer gradient."""
    levels = Levels(highest=2)
    of_level = torch.stack([two_batches_mean(name, 2**level, levels.at(level), permutation) for level in range(3)])
    plain = {size: two_batches_mean(name, size, None, permutation) for size in (1, 2, 4)}
    probability = torch.tensor([levels.probability(level) for level in range(3)], dtype=F64)
    found = torch.einsum("l,lsa->sa", probability, of_level)
    assert_close(found, plain[4], rtol=0, atol=1e-9)
    for control in (plain[1], plain[2], of_level.mean(0)):  # smaller batches, levels drawn alike
        assert (found - control).norm() > 1e-3


@pytest.mark.claim("jackknife-bias")
@pytest.mark.parametrize("name", CATALOGUE)
def test_with_two_steps_parts_run_apart(name):
    """O(1/n) and O(1/n²) with K = 2."""

    def bias(size: int, debias) -> Tensor:
        return two_batches_mean(name, size, debias) - limit(name, 2)

    plain = {size: bias(size, None).norm() for size in (2, 4)}
    debiased = {size: bias(size, Jackknife()).norm() for size in (2, 4)}
    assert 1.6 < plain[2] / plain[4] < 2.2  # the control: O(1/n)
    assert 2.5 < debiased[2] / debiased[4] < 5.5  # O(1/n²)
    assert debiased[4] < 0.25 * plain[4]


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_jackknife_of_a_problem_is_that_of_its_parts(make_mdp, wire, inner_steps):
    """`decompose` with `+jackknife`, batched or part by part, against whole runs on selected trajectories."""
    mdp = make_mdp(states=3, actions=2, concentration=0.5, discount=0.8, seed=3)
    params = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    wiring = wire(mdp, params, horizon=4, size=3, seed=1)
    settings = {"permutations": ["SSS", "ESE"], "inner_steps": inner_steps, "inner_lr": 2.0}
    chosen = [replace(CATALOGUE[name], debias=Jackknife(3, 2)) for name in ("lvc", "dice")]
    found = decompose(wiring.problem, chosen, sizes=[3], **settings)

    class PartByPart:
        """The same problem without the batched way to its parts."""

        def __init__(self) -> None:
            whole = wiring.problem
            self.params, self.meta_is_params, self.at = whole.params, whole.meta_is_params, whole.at

    assert isinstance(wiring.problem, Splits)
    assert not isinstance(PartByPart(), Splits)
    part_by_part = decompose(PartByPart(), chosen, sizes=[3], **settings)

    def by_hand(numbers: Tensor) -> Tensor:
        own = replace(wiring)
        object.__setattr__(own, "uniforms", lambda role, step: wiring.uniforms(role, step)[..., numbers, :])
        names = [CATALOGUE[estimator.name] for estimator in chosen]
        plain = decompose(own.problem, names, sizes=[len(numbers)], **settings)
        return torch.stack([plain[name, permutation, len(numbers)] for name, permutation, _ in found])

    expected = jackknife(by_hand, 3, blocks=3, order=2)
    for key, one in zip(found, expected, strict=True):
        assert_close(found[key], one, rtol=0, atol=1e-9)
        assert_close(part_by_part[key], one, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"estimator lvc: sample size: expected a multiple of .* 3 blocks, got 4"):
        decompose(wiring.problem, chosen, sizes=[4], **settings)


@pytest.mark.parametrize("intrinsic", [False, True])
@pytest.mark.parametrize("debias", [None, Jackknife(), Jackknife(4, 2), Levels(base=3).at(2)])
def test_no_more_is_rolled_out_than_a_sample_costs(make_mdp, wire, debias, intrinsic):
    """MAML's parts in one go and LIRPG's one by one: n at θ⁰, later what `trajectories_drawn` says."""
    mdp = make_mdp(states=3, actions=2, concentration=0.5, discount=0.8, seed=3)
    wiring = wire(mdp, torch.zeros(2, 3, 2, dtype=F64), horizon=4, size=12, seed=1)
    counts: dict = {}

    def counted(role, step, policy, rows):
        found = wiring.rollout(role, step, policy, rows)
        counts[role, step] = counts.get((role, step), 0) + found.action.shape[-2]
        return found

    phi = torch.zeros(2, 3, 2, dtype=F64, requires_grad=True) if intrinsic else None
    problem = given_problem(mdp, wiring.params, counted, intrinsic_reward=phi)
    estimator = replace(CATALOGUE["lvc"], debias=debias)
    decompose(problem, [estimator], permutations=["SSS"], sizes=[12], inner_steps=2, inner_lr=2.0)
    start, later = trajectories_drawn(debias, 12)
    assert counts == {
        ("inner", 0): start,
        ("hessian", 0): start,
        ("inner", 1): later,
        ("hessian", 1): later,
        ("outer", 2): later,
    }


@pytest.mark.claim("jackknife-bias", "multilevel-bias")
def test_in_lolas_look_ahead():
    """φ is the learner's policy, θ the opponent's; every tuple of up to 4 histories of the dilemma, φ ≠ θ."""
    payoffs, lr = GAMES["ipd"].tensor(), 0.3
    draw = torch.Generator().manual_seed(0)
    params = torch.randn(2, 5, generator=draw, dtype=F64)
    outcome = torch.cartesian_prod(torch.arange(4), torch.arange(4)).to(torch.uint8)
    weight = log_probs(log_policy(params), outcome).sum((-2, -1)).exp()
    truth = lola_meta_gradient(payoffs, params, discount=GAMMA, inner_lr=lr, horizon=2).gradient[0]

    def meta(histories: Tensor) -> Tensor:
        """∇φ J¹(φ, θ + α ∇θ Ĵ²(φ, θ)) for a batch of samples of histories."""
        many = len(histories)

        def inner(phi: Tensor, theta: Tensor, step: int) -> Tensor:
            table = log_policy(torch.stack((phi, theta), -2)).unsqueeze(-4)
            log_prob = log_probs(table, outcome[histories]).sum(-2)
            reward = payoffs.flatten(-2)[1][outcome[histories].long()]
            nothing = torch.zeros(*reward.shape[:-1], 3, dtype=F64)
            return mean_surrogate(dice, Trajectories(log_prob, reward, nothing, reward, discounts(GAMMA, 3)))

        def outer(phi: Tensor, theta: Tensor) -> Tensor:
            return game_value(payoffs, torch.stack((phi, theta), -2), discount=GAMMA, horizon=2)[..., 0]

        start = params[1].expand(many, 5)
        return meta_gradient(params[0].expand(many, 5), start, inner=inner, outer=outer, inner_steps=1, inner_lr=lr)

    def bias(size: int, terms) -> Tensor:
        batch = torch.cartesian_prod(*[torch.arange(16)] * size).reshape(-1, size)
        found = meta(batch) if terms is None else combine(lambda numbers: meta(batch[:, numbers]), terms)
        return weight[batch].prod(-1) @ found - truth

    levels = Levels(highest=2)
    found = sum(levels.probability(level) * bias(2**level, levels.at(level).terms(2**level)) for level in range(3))
    assert_close(found, bias(4, None), rtol=0, atol=1e-9)
    assert (found - bias(2, None)).norm() > 5e-4  # the control

    plain = [bias(size, None).norm() for size in (2, 3)]
    debiased = [bias(size, Jackknife(size).terms(size)).norm() for size in (2, 3)]
    assert 1.3 < plain[0] / plain[1] < 1.7  # the control: O(1/n)
    assert debiased[0] / debiased[1] > 2.4  # O(1/(n (n − 1))) and smaller
    assert debiased[1] < 0.2 * plain[1]
