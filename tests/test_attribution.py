"""Shares of the error, by hand and by enumeration of equally likely batches."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from given import given_problem

with jaxtyping.install_import_hook(["gm_estimators", "gm_exact", "gm_experiments"], "shapes.checked"):
    from gm_estimators import Sizes, decompose, exact_meta_gradient, load, meta_gradient
    from gm_estimators.attribution import attribute, attribution, shapley
    from gm_estimators.surrogates import mean_surrogate
    from gm_exact import TabularMDP, evaluate
    from gm_exact import trajectories as every_trajectory
    from gm_experiments.common.problem import TabularProblem

F64 = torch.float64
GAMMA, HORIZON, INNER_LR = 0.8, 2, 3.0
NEXT_IS_ACTION = torch.eye(2, dtype=F64).expand(2, 2, 2)
MDP = TabularMDP(NEXT_IS_ACTION, torch.tensor([[0.4, -0.2], [1.0, -0.9]], dtype=F64), 0, GAMMA)
EVERY = every_trajectory(MDP, HORIZON)  # four, equally likely under the uniform policy
POPULATION = {
    "bias_sq": lambda estimates, truth: (estimates.mean(-2) - truth).square().sum(-1),
    "variance": lambda estimates, truth: estimates.var(-2, correction=0).sum(-1),
}


def problem(on: frozenset[str]) -> TabularProblem:
    """One unit; its repeats are all pairs of a batch of two for I and one for II, with two errors of the critic."""
    pair = torch.cartesian_prod(*[torch.arange(4)] * 4).repeat(2, 1)
    error = torch.cat((torch.ones(256), -torch.ones(256))).to(F64)

    def rollout(role, step, policy, rows):
        chosen = (pair[:, :2] if role == "inner" or "shared" in on else pair[:, 2:])[:, rows].unsqueeze(0)
        return EVERY.states[chosen], EVERY.actions[chosen]

    def critic(role, step, value):
        return ("critic" in on) * error.unsqueeze(-1) * torch.tensor([1.0, -0.5], dtype=F64)

    return given_problem(MDP, torch.zeros(1, 512, 2, 2, dtype=F64), rollout, critic=critic, horizon=HORIZON)


def shares(name: str, *extras: str) -> dict[str, dict[str, Tensor]]:
    settings = {"sample_size": 2, "inner_steps": 1, "inner_lr": INNER_LR, "measures": POPULATION}
    return attribution(problem, load(name), estimated=("composition", "hessian"), extras=extras, **settings)


def test_shapley_by_hand():
    """v = 1 for a, 4 for both, 0 for b: a gets (1 + 4) / 2, b (0 + 3) / 2."""
    value = {frozenset(k): torch.tensor(v, dtype=F64) for k, v in {"": 0.0, "a": 1.0, "b": 0.0, "ab": 4.0}.items()}
    assert {k: float(v) for k, v in shapley(value, ["a", "b"]).items()} == {"a": 2.5, "b": 1.5}
    with pytest.raises(ValueError, match=r"value: expected one for every set of sources, got none for \['a', 'c'\]"):
        shapley(value | {frozenset("c"): torch.ones(())}, ["a", "c"])
    with pytest.raises(ValueError, match=r"sources: expected different names, got \['a', 'a'\]"):
        attribute(lambda some: torch.zeros(3, 2), ["a", "a"], torch.zeros(2))


@pytest.mark.claim("attribution")
def test_independent_sources_keep_their_variances_and_share_their_biases():
    """x = y + Σ (b_i + noise_i): variance_i, and b_i² + b_i · Σ_{j≠i} b_j, since ‖Σ b‖² splits each product in two."""
    draw = torch.Generator().manual_seed(0)
    bias = torch.randn(3, 5, generator=draw, dtype=F64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 3)  # independent, equally likely
    scale = torch.randn(3, 5, generator=draw, dtype=F64)
    truth = torch.randn(5, generator=draw, dtype=F64)

    def estimate(some: frozenset[str]) -> Tensor:
        chosen = [int(name) for name in some]
        return truth + bias[chosen].sum(0) + signs[:, chosen] @ scale[chosen]

    found = attribute(estimate, ["0", "1", "2"], truth, POPULATION)
    for i in range(3):
        assert_close(found["variance"][str(i)], scale[i].square().sum(), rtol=0, atol=1e-12)
        assert_close(found["bias_sq"][str(i)], bias[i] @ bias.sum(0), rtol=0, atol=1e-12)


@pytest.mark.claim("attribution")
@pytest.mark.parametrize("name", ["dice", "loaded_dice", "lvc", "ad"])
def test_only_composition_biases_an_unbiased_hessian_from_trajectories_of_its_own(name):
    """II is linear in its batch and independent of I; what LVC and AD lack is a bias of II."""
    found = shares(name)
    assert found["bias_sq"]["composition"] > 1e-3
    assert (found["bias_sq"]["hessian"].abs().item() < 1e-12) == (name in ("dice", "loaded_dice"))
    assert found["variance"]["composition"] > 1e-3


@pytest.mark.claim("attribution")
@pytest.mark.parametrize("extras", [(), ("shared_batch",), ("critic",), ("shared_batch", "critic")])
def test_shares_sum_to_the_error_of_the_estimate_itself(extras):
    """Against the K-step objective by automatic differentiation, with everything as in practice."""
    found = shares("loaded_dice", *extras)
    practice = problem(frozenset(extras))
    drawn = practice.at(practice.params).draw(0, {"inner": slice(2), "hessian": slice(2)})
    judged, apart = drawn["inner"], drawn["inner" if "shared_batch" in extras else "hessian"]
    estimator = load("loaded_dice")

    def objective(sample):
        read = sample.trajectories(True)

        def of(_phi: Tensor, theta: Tensor, step: int) -> Tensor:
            log_prob = theta.log_softmax(-1).flatten()[sample.cell]
            return mean_surrogate(estimator.surrogate, replace(read, log_prob=log_prob)).sum()

        return of

    estimates = meta_gradient(
        practice.params,
        inner=objective(judged),
        hessian=objective(apart),
        outer=lambda phi, theta: evaluate(MDP, theta, HORIZON).value,
        inner_steps=1,
        inner_lr=INNER_LR,
    ).flatten(2)
    truth = exact_meta_gradient(practice, inner_steps=1, inner_lr=INNER_LR)[:, 0].flatten(1)
    for name, measure in POPULATION.items():
        assert sum(found[name].values()).item() == pytest.approx(measure(estimates, truth).item(), abs=1e-10)
        assert set(found[name]) == {"composition", "hessian", *extras}


@pytest.mark.claim("attribution")
def test_a_shared_batch_has_the_share_that_the_covariance_has():
    """It does nothing but where I and II are sampled both: a third of the difference that it makes there."""
    estimator, settings = load("dice"), {"permutations": ["SSE"], "inner_steps": 1, "inner_lr": INNER_LR}
    truth = exact_meta_gradient(problem(frozenset()), inner_steps=1, inner_lr=INNER_LR)[:, 0].flatten(1)
    measured = []
    for size in (Sizes.each(2, shared=True), 2):
        (estimates,) = decompose(problem(frozenset()), [estimator], sizes=[size], **settings).values()
        measured.append(POPULATION["bias_sq"](estimates.flatten(2), truth))
    found = shares("dice", "shared_batch")["bias_sq"]["shared_batch"]
    assert_close(found, (measured[0] - measured[1]) / 3, rtol=0, atol=1e-12)
    assert found.abs() > 1e-4


@pytest.mark.claim("attribution")
@pytest.mark.parametrize("name", ["dice", "loaded_dice", "dice+jackknife"])
def test_any_problem_can_be_made_to_share_its_batch(name):
    """Against one that does so itself; the control draws apart."""
    settings = {"permutations": ["SSE", "ESE"], "inner_steps": 1, "inner_lr": INNER_LR}
    sharing = Sizes.each(2, shared=True)
    own = decompose(problem(frozenset({"shared"})), [load(name)], sizes=[2], **settings)
    estimates = decompose(problem(frozenset()), [load(name)], sizes=[sharing, 2], **settings)
    for (_, permutation, _), estimate in own.items():
        assert_close(estimates[name, permutation, sharing], estimate, rtol=0, atol=1e-12)
        assert (estimates[name, permutation, 2] - estimate).abs().max() > 1e-3


def test_clipping_and_adam_in_a_loop_of_ones_own():
    """Sources that no `Problem` knows: a noisy inner gradient, its clipping, and Adam instead of plain ascent."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 3, generator=draw, dtype=F64)
    noise = torch.cat((noise, -noise))
    start, target = torch.tensor([1.0, -2.0, 0.5], dtype=F64), torch.tensor([0.3, 0.4, -1.0], dtype=F64)

    def estimate(some: frozenset[str]) -> Tensor:
        def inner(phi: Tensor, theta: Tensor, step: int) -> Tensor:
            return (-0.5 * (theta - target).square() + ("sampling" in some) * noise * theta).sum(-1)

        def update(params, gradient, state):
            (g,) = gradient.values()
            if "clipping" in some:
                g = g * (1.0 / g.norm(dim=-1, keepdim=True).clamp(min=1.0)).detach()
            if "adam" in some:  # its first step
                g = g / (g.square() + 1e-8).sqrt()
            return {name: value + 0.5 * g for name, value in params.items()}, state

        return meta_gradient(
            start.expand(128, 3),
            inner=inner,
            outer=lambda phi, theta: -theta.pow(4).sum(-1),
            inner_steps=2,
            update=update,
        )

    truth = estimate(frozenset())[0]
    found = attribute(estimate, ["sampling", "clipping", "adam"], truth, POPULATION)
    total = POPULATION["bias_sq"](estimate(frozenset({"sampling", "clipping", "adam"})), truth)
    assert_close(sum(found["bias_sq"].values()), total, rtol=0, atol=1e-10)
    assert all(share.abs() > 0.1 for share in found["bias_sq"].values())
    without = attribute(lambda some: estimate(some - {"adam"}), ["sampling", "clipping", "adam"], truth, POPULATION)
    assert without["bias_sq"]["adam"].abs() < 1e-12


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="estimated: expected some of composition, hessian, outer, got 'inner'"):
        attribution(problem, load("ad"), estimated=["inner"], sample_size=2, inner_steps=1, inner_lr=1.0)
