"""`decompose` against plain automatic differentiation of the K-step objective on the same samples."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gm_estimators import PERMUTATIONS, Estimator, Sizes, Trajectories, decompose, exact_meta_gradient, meta_gradient
from gm_estimators.decomposition import ROLES, sampled_path
from gm_estimators.estimator import CATALOGUE
from gm_estimators.returns import discounts, gae
from gm_estimators.surrogates import lvc, mean_surrogate
from gm_exact import evaluate, maml_meta_gradient

HORIZON, SIZES, INNER_LR = 5, [2, 4, 8], 2.0
USERS_LVC = Estimator("mine", lvc, True, "mine", None, "this test")


@pytest.fixture(scope="module")
def wiring(make_mdp, wire):
    """Two MDPs × two repeats at a random θ⁰, a critic that depends on θ and differs between roles and steps."""
    mdp = make_mdp(2, states=3, actions=2, concentration=0.5, discount=0.8, seed=3)
    spread = type(mdp)(mdp.transition.unsqueeze(1), mdp.reward.unsqueeze(1), 0, mdp.discount)
    params = torch.randn(2, 2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return wire(spread, params, horizon=HORIZON, size=max(SIZES), seed=1)


@pytest.fixture(scope="module", params=[1, 2, 3], ids="K={}".format)
def run(request, wiring):
    """K with everything that `decompose` gives there."""
    settings = {"inner_steps": request.param, "inner_lr": INNER_LR}
    return request.param, decompose(wiring.problem, [*CATALOGUE.values(), USERS_LVC], sizes=SIZES, **settings)


def objective(wiring, role: str, letter: str, estimator: Estimator, size: int):
    """J(φ, θ, step) of one role, exact or estimated from trajectories drawn at θ."""

    def exact(_phi: Tensor, theta: Tensor, step: int) -> Tensor:
        return evaluate(wiring.mdp, theta).value

    def sampled(_phi: Tensor, theta: Tensor, step: int) -> Tensor:
        at, (*batch, _, _) = theta.detach(), theta.shape
        state, action = wiring.rollout(role, step, at.softmax(-1), slice(size))
        index = [axis[..., None, None] for axis in torch.meshgrid(*map(torch.arange, batch), indexing="ij")]
        reward = wiring.mdp.reward.expand(theta.shape)[(*index, state[..., :-1], action)]
        critic = wiring.critic(role, step, at) * estimator.critic
        value, gamma = critic[(*index, state)], wiring.mdp.discount
        log_prob = theta.log_softmax(-1)[(*index, state[..., :-1], action)]
        read = Trajectories(log_prob, reward, value, gae(reward, value, gamma), discounts(gamma, HORIZON + 1))
        return mean_surrogate(estimator.surrogate, read)

    return sampled if letter == "S" else exact


def by_autograd(wiring, estimator: Estimator, permutation: str, size: int, inner_steps: int) -> Tensor:
    inner, hessian, outer = (
        objective(wiring, role, letter, estimator, size)
        for role, letter in zip(("inner", "hessian", "outer"), permutation, strict=True)
    )
    return meta_gradient(
        wiring.params,
        inner=inner,
        hessian=hessian,
        outer=lambda phi, theta: outer(phi, theta, inner_steps),
        inner_steps=inner_steps,
        inner_lr=INNER_LR,
    )


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_every_permutation_is_what_automatic_differentiation_gives(wiring, run, permutation, name):
    inner_steps, estimates = run
    expected = by_autograd(wiring, CATALOGUE[name], permutation, SIZES[1], inner_steps)
    assert_close(estimates[name, permutation, SIZES[1]], expected, rtol=0, atol=1e-10)


def test_the_truth_is_the_exact_meta_gradient(wiring, run):
    settings = {"inner_steps": run[0], "inner_lr": INNER_LR}
    found = exact_meta_gradient(wiring.problem, **settings)
    assert_close(found, maml_meta_gradient(wiring.mdp, wiring.params, **settings), rtol=0, atol=1e-12)
    assert_close(found, by_autograd(wiring, CATALOGUE["ad"], "EEE", 1, run[0]), rtol=0, atol=1e-10)


def test_all_results_are_there_and_differ(wiring, run):
    estimates = run[1]
    names = [*CATALOGUE, "mine"]
    assert set(estimates) == {(name, p, size) for name in names for p in PERMUTATIONS for size in SIZES}
    assert all(estimate.shape == wiring.params.shape for estimate in estimates.values())
    for name in names:
        distinct = torch.stack([estimates[name, p, size] for p in PERMUTATIONS for size in SIZES]).flatten(1)
        assert (torch.cdist(distinct, distinct) + torch.eye(len(distinct))).min() > 1e-3


def test_estimators_with_one_gradient_share_what_only_needs_gradients(run):
    estimates = run[1]
    for size in SIZES:
        for permutation in ("EES", "SEE", "SES"):  # II exact
            ad = estimates["ad", permutation, size]
            assert torch.equal(ad, estimates["lvc", permutation, size])
            assert torch.equal(ad, estimates["loaded_dice", permutation, size])
            assert not torch.equal(ad, estimates["dice", permutation, size])


def test_an_estimator_without_closed_form_gets_the_same_numbers(run):
    estimates = run[1]
    for permutation in PERMUTATIONS:
        for size in SIZES:
            mine, theirs = estimates["mine", permutation, size], estimates["lvc", permutation, size]
            assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_smaller_samples_are_parts_of_larger_ones(wiring, run):
    inner_steps, estimates = run
    alone = decompose(wiring.problem, CATALOGUE.values(), sizes=[2], inner_steps=inner_steps, inner_lr=INNER_LR)
    for key, estimate in alone.items():
        assert_close(estimate, estimates[key], rtol=0, atol=1e-12)


@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_fewer_permutations_or_estimators_change_no_number(wiring, run, permutation):
    inner_steps, estimates = run
    settings = {"sizes": SIZES, "inner_steps": inner_steps, "inner_lr": INNER_LR}
    narrow = decompose(wiring.problem, [CATALOGUE["loaded_dice"]], permutations=[permutation], **settings)
    assert set(narrow) == {("loaded_dice", permutation, size) for size in SIZES}
    for key, estimate in narrow.items():
        assert torch.equal(estimate, estimates[key])


def test_a_step_size_one_percent_off_is_seen(wiring):
    settings = {"permutations": ["SSS"], "sizes": [8], "inner_steps": 1}
    (wrong,) = decompose(wiring.problem, [CATALOGUE["lvc"]], inner_lr=0.99 * INNER_LR, **settings).values()
    assert (wrong - by_autograd(wiring, CATALOGUE["lvc"], "SSS", 8, 1)).abs().max() > 1e-3


def test_what_makes_no_sense_is_refused(wiring):
    settings = {"sizes": [2], "inner_steps": 1, "inner_lr": INNER_LR}
    with pytest.raises(ValueError, match="expected a permutation of SSS, SES, ESS, EES, SSE, SEE, ESE, got 'EEE'"):
        decompose(wiring.problem, [], permutations=["EEE"], **settings)
    with pytest.raises(ValueError, match="sizes: expected at least 1 trajectory, got 0, 0, 0"):
        decompose(wiring.problem, [], **(settings | {"sizes": [2, 0]}))
    with pytest.raises(ValueError, match="inner_steps: expected at least 1, got 0"):
        decompose(wiring.problem, [], **(settings | {"inner_steps": 0}))


def test_roles_have_samples_of_their_own_size(wiring):
    """I from 8, II from 2 and III from 4 trajectories: plain automatic differentiation with the same ones."""
    size, estimator = Sizes(8, 2, 4), CATALOGUE["loaded_dice"]
    estimates = decompose(wiring.problem, [estimator], sizes=[8, size], inner_steps=2, inner_lr=INNER_LR)
    for permutation in PERMUTATIONS:
        inner, hessian, outer = (
            objective(wiring, role, letter, estimator, of_role)
            for role, letter, of_role in zip(ROLES, permutation, (8, 2, 4), strict=True)
        )
        expected = meta_gradient(
            wiring.params,
            inner=inner,
            hessian=hessian,
            outer=lambda phi, theta, outer=outer: outer(phi, theta, 2),
            inner_steps=2,
            inner_lr=INNER_LR,
        )
        assert_close(estimates["loaded_dice", permutation, size], expected, rtol=0, atol=1e-10)
        if permutation != "SEE":
            assert (estimates["loaded_dice", permutation, 8] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_a_shared_batch_is_that_of_the_inner_gradient(wiring, inner_steps):
    size, estimator = Sizes.each(4, shared=True), CATALOGUE["lvc"]
    settings = {"sizes": [size, 4], "inner_steps": inner_steps, "inner_lr": INNER_LR}
    estimates = decompose(wiring.problem, [estimator], **settings)
    for permutation in PERMUTATIONS:
        inner, hessian, outer = (
            objective(wiring, role, letter, estimator, 4)
            for role, letter in zip(("inner", "inner", "outer"), permutation, strict=True)
        )
        expected = meta_gradient(
            wiring.params,
            inner=inner,
            hessian=hessian,
            outer=lambda phi, theta, outer=outer: outer(phi, theta, inner_steps),
            inner_steps=inner_steps,
            inner_lr=INNER_LR,
        )
        assert_close(estimates["lvc", permutation, size], expected, rtol=0, atol=1e-10)
        if permutation[1] == "S":
            assert (estimates["lvc", permutation, 4] - expected).abs().max() > 1e-3


class Counted:
    """A problem that notes where it is evaluated and what is drawn there."""

    def __init__(self, problem):
        self.problem, self.params, self.meta_is_params = problem, problem.params, problem.meta_is_params
        self.points, self.draws = 0, []

    def at(self, params):
        self.points += 1
        point, draws = self.problem.at(params), self.draws

        class Point:
            exact, sampled = staticmethod(point.exact), staticmethod(point.sampled)

            def draw(self, step, rows):
                draws.append((step, {role: some.stop for role, some in rows.items()}))
                return point.draw(step, rows)

        return Point()


def test_nothing_is_drawn_or_evaluated_twice(wiring):
    """K = 2, one family, sizes 2 and 4: an exact path of three points and two sampled ones that share the first."""
    counted = Counted(wiring.problem)
    settings = {"sizes": [2, 4], "inner_steps": 2, "inner_lr": INNER_LR}
    decompose(counted, [CATALOGUE["ad"], CATALOGUE["lvc"], CATALOGUE["loaded_dice"]], **settings)
    assert counted.points == 3 + 2 * 2
    assert sorted(counted.draws, key=str) == sorted(
        [
            (0, {"inner": 4, "hessian": 4}),
            (1, {"hessian": 4}),
            (2, {"outer": 4}),
            *((1, {"inner": size, "hessian": size}) for size in (2, 4)),
            *((2, {"outer": size}) for size in (2, 4)),
        ],
        key=str,
    )


def test_only_what_is_asked_for_is_drawn(wiring):
    counted = Counted(wiring.problem)
    settings = {"permutations": ["SEE", "EES"], "inner_steps": 1, "inner_lr": INNER_LR}
    decompose(counted, [CATALOGUE["lvc"]], sizes=[3], **settings)
    assert sorted(counted.draws, key=str) == [(0, {"inner": 3}), (1, {"outer": 3})]


def test_a_kept_path_is_what_the_estimate_went_along(wiring):
    settings = {"permutations": ["SSS", "ESS"], "inner_steps": 2, "inner_lr": INNER_LR}
    estimates = decompose(wiring.problem, [CATALOGUE["lvc"]], sizes=[4], keep_paths=True, **settings)
    assert set(estimates.paths) == {("lvc", "S", 4), ("lvc", "E", 4)}
    path = estimates.paths["lvc", "S", 4]
    for theta, following, objective_there in zip(path.params, path.params[1:], path.inner, strict=False):
        assert torch.equal(following, theta + INNER_LR * objective_there.gradient)
    assert torch.equal(path.params[2], sampled_path(wiring.problem, CATALOGUE["lvc"], 4, **along(settings)).params[2])
    assert (path.outer.gradient.shape, len(path.hessian["lvc"])) == (wiring.params.shape, 2)
    assert decompose(wiring.problem, [CATALOGUE["lvc"]], sizes=[4], **settings).paths == {}


def along(settings: dict) -> dict:
    return {name: settings[name] for name in ("inner_steps", "inner_lr")}


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="sizes: expected at least 1 trajectory, got 1, 0, 1"):
        Sizes(1, 0, 1)
    with pytest.raises(ValueError, match="sizes: expected one size for a shared batch, got 2 and 3"):
        Sizes(2, 3, 2, shared=True)


def test_a_failing_estimator_is_named(wiring):
    broken = replace(USERS_LVC, surrogate=lambda trajectories: trajectories.log_prob)
    with pytest.raises(ValueError, match=r"estimator mine: surrogate: expected one number per trajectory"):
        decompose(wiring.problem, [broken], sizes=[2], inner_steps=1, inner_lr=1.0)
