"""E-MAML's sampling correction by enumeration: `decompose` against the gradient of the gain of adapting with n samples.

    G(θ, φ) = Σ_τ p(τ; θ) G(θ + α ĝ(τ; θ, φ), φ) over every batch τ of n trajectories, K times, then J(θᴷ),

differentiated in θ⁰ (MAML), in φ, a reward that only the inner steps see (LIRPG), or in a player's policy φ, which
draws every batch together with the opponent's θ (LOLA).
"""

from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from given import given_problem

with jaxtyping.install_import_hook(["gm_envs_ipd", "gm_estimators", "gm_exact", "gm_experiments"], "shapes.checked"):
    from gm_envs_ipd import GAMES, log_policy, log_probs
    from gm_estimators import Estimator, EstimatorError, Sizes, decompose, load
    from gm_estimators.decomposition import ExactObjective
    from gm_exact import TabularMDP, game_value, value
    from gm_exact import trajectories as every_trajectory
    from gm_experiments.lola.objectives import GameObjective, GameSignal, StepSums, joint_log_policy

F64 = torch.float64
GAMMA, HORIZON, INNER_LR = 0.8, 2, 0.8
NEXT_IS_ACTION = torch.eye(2, dtype=F64).expand(2, 2, 2)
MDP = TabularMDP(NEXT_IS_ACTION, torch.tensor([[0.4, -0.2], [1.0, -0.9]], dtype=F64), 0, GAMMA)
THETA = torch.tensor([[0.3, -0.2], [0.1, 0.5]], dtype=F64)
NOTHING = torch.zeros(2, 2, dtype=F64)
EVERY = every_trajectory(MDP, HORIZON)
CELL = torch.nn.functional.one_hot(2 * EVERY.states[:, :-1] + EVERY.actions, 4).to(F64)  # [trajectory, time, cell]


def tuples(size: int) -> Tensor:
    """Every batch of n trajectories."""
    return torch.cartesian_prod(*[torch.arange(len(EVERY.actions))] * size).reshape(-1, size)


def weights(batch: Tensor, theta: Tensor) -> Tensor:
    """The probability of every batch, after the leading axes of θ."""
    return EVERY.probability(theta)[..., batch].prod(-1)


def moved(batch: Tensor, theta: Tensor, phi: Tensor = NOTHING) -> Tensor:
    """θ + α (1/n) Σ_n Σ_t γᵗ G_t ∇log π, differentiable in both, for every batch."""
    reward = CELL @ (MDP.reward + phi).flatten()
    to_go = torch.stack((reward[:, 0] + GAMMA * reward[:, 1], GAMMA * reward[:, 1]), -1)
    table = torch.einsum("nt,ntc->nc", to_go, CELL).reshape(-1, 2, 2)[batch].mean(-3)
    start = theta.unsqueeze(-3)
    return start + INNER_LR * (table - start.softmax(-1) * table.sum(-1, keepdim=True))


def gain(theta: Tensor, phi: Tensor, size: int, inner_steps: int) -> Tensor:
    """J after K steps with n trajectories each, on average."""
    if inner_steps == 0:
        return value(MDP, theta, HORIZON)
    batch = tuples(size)
    ahead = gain(moved(batch, theta, phi), phi, size, inner_steps - 1)
    return (weights(batch, theta) * ahead).sum(-1)


@cache
def truth(kind: str, size: int, inner_steps: int) -> Tensor:
    """∇ of the gain in θ⁰ or φ."""
    leaves = {"maml": THETA.clone().requires_grad_(), "lirpg": torch.zeros(2, 2, dtype=F64, requires_grad=True)}
    return torch.autograd.grad(gain(leaves["maml"], leaves["lirpg"], size, inner_steps), leaves[kind])[0]


def mean(
    name: str, size: int, *, inner_steps: int = 1, kind: str = "maml", permutation: str = "SSE", shared: bool = True
) -> Tensor:
    """The expectation of what `decompose` estimates, over the batches of all steps and roles."""
    batch = tuples(size)
    axes = inner_steps + (not shared) + (permutation[2] == "S")

    def along(axis: int) -> Tensor:
        """Every batch along one of the batch axes."""
        return batch.reshape(*(-1 if i == axis else 1 for i in range(axes)), size).expand(*[len(batch)] * axes, size)

    def axis_of(role: str, step: int) -> int:
        return axes - 1 if role == "outer" else step + (role == "hessian" and not shared)

    def rollout(role, step, policy, rows):
        chosen = along(axis_of(role, step))[..., rows]
        return EVERY.states[chosen], EVERY.actions[chosen]

    shape = [len(batch)] * axes
    phi = torch.zeros(*shape, 2, 2, dtype=F64, requires_grad=True) if kind == "lirpg" else None
    settings = {"critic_for": "none", "horizon": HORIZON, "intrinsic_reward": phi}
    problem = given_problem(MDP, THETA.expand(*shape, 2, 2), rollout, **settings)
    settings = {"permutations": [permutation], "sizes": [Sizes.each(size, shared=shared)], "inner_lr": INNER_LR}
    (found,) = decompose(problem, [load(name)], inner_steps=inner_steps, **settings).values()
    probability, theta = weights(batch, THETA), THETA
    if not shared:
        probability = probability.unsqueeze(-1) * weights(batch, THETA)
    for _ in range(inner_steps - 1 + (permutation[2] == "S")):
        theta = moved(batch, theta)
        drawn = weights(batch, theta)  # [batches of the steps before, batches of this step]
        probability = probability.unsqueeze(-1) * drawn
    return (probability[..., None, None] * found).flatten(0, -3).sum(0)


@pytest.mark.claim("sampling-correction")
@pytest.mark.parametrize("permutation", ["SSE", "SSS"])
@pytest.mark.parametrize(("size", "inner_steps"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_with_ad_the_estimate_is_unbiased_for_adapting_with_n_trajectories(size, inner_steps, permutation):
    settings = {"inner_steps": inner_steps, "permutation": permutation}
    expected = truth("maml", size, inner_steps)
    assert_close(mean("ad+correction", size, **settings), expected, rtol=0, atol=1e-10)
    for wrong in ("ad", "ad+correction@0.5", "lvc+correction", "dice+correction", "loaded_dice"):  # the controls
        assert (mean(wrong, size, **settings) - expected).abs().max() > 2e-3


@pytest.mark.claim("sampling-correction")
@pytest.mark.parametrize("permutation", ["SSE", "SSS"])
def test_a_learned_reward_is_credited_for_what_later_steps_sample(permutation):
    """With φ ≠ θ⁰ the first batch does not depend on φ, later ones do through θ."""
    settings = {"kind": "lirpg", "permutation": permutation}
    first = mean("ad", 2, **settings)
    assert_close(first, truth("lirpg", 2, 1), rtol=0, atol=1e-10)
    assert_close(mean("ad+correction", 2, **settings), first, rtol=0, atol=1e-10)
    for size in (1, 2):
        expected = truth("lirpg", size, 2)
        assert_close(mean("ad+correction", size, inner_steps=2, **settings), expected, rtol=0, atol=1e-10)
        for wrong in ("ad", "ad+correction@0.5", "dice+correction"):  # the controls
            assert (mean(wrong, size, inner_steps=2, **settings) - expected).abs().max() > 2e-3


class Histories(NamedTuple):
    """Batches of histories of a game."""

    outcome: Tensor

    def select(self, rows: slice) -> "Histories":
        return Histories(self.outcome[..., rows, :])


@pytest.mark.claim("sampling-correction")
@pytest.mark.parametrize("size", [1, 2])
def test_a_policy_that_draws_the_inner_batches_itself_is_credited_for_that(size):
    """One look-ahead of AD: where the opponent's step goes depends on φ through the histories alone."""
    payoffs = GAMES["ipd"].tensor()
    start = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    outcome = torch.cartesian_prod(torch.arange(4), torch.arange(4)).to(torch.uint8)
    batch = outcome[torch.cartesian_prod(*[torch.arange(16)] * size).reshape(-1, size)]
    many = len(batch)

    def both(phi: Tensor, theta: Tensor) -> Tensor:
        """Each policy in its player's own states: the opponent sees CD and DC the other way round."""
        return torch.stack((phi.expand_as(theta), theta[..., [0, 1, 3, 2, 4]]), -2)

    def probability(phi: Tensor) -> Tensor:
        every = log_probs(log_policy(both(phi, start[1])), outcome).sum((-2, -1)).exp()
        return torch.cartesian_prod(*[every] * size).reshape(-1, size).prod(-1)

    def outer(phi: Tensor, theta: Tensor) -> Tensor:
        return game_value(payoffs, both(phi, theta), discount=GAMMA, horizon=2)[..., 0]

    class LookAhead:
        params, meta_is_params = start[1].expand(many, 5), False

        def at(self, theta):
            return SimpleNamespace(
                exact=lambda role: exact(theta),
                draw=lambda step, rows: dict.fromkeys(rows, Histories(batch)),
                sampled=lambda role, estimator, sample: sampled(theta, estimator, sample),
            )

    def exact(theta: Tensor) -> SimpleNamespace:
        phi, at = start[0].expand(many, 5).clone().requires_grad_(), theta.clone().requires_grad_()
        found = outer(phi, at)
        meta_gradient, gradient = torch.autograd.grad(found.sum(), (phi, at))
        known = {"value": found.detach(), "gradient": gradient, "meta_gradient": meta_gradient}
        return SimpleNamespace(**known, vjp=lambda cotangent: (cotangent, cotangent))  # not asked for

    def sampled(theta: Tensor, estimator: Estimator, sample: Histories) -> GameObjective:
        signal = GameSignal(payoffs.flatten(-2)[1].expand(many, 4), torch.zeros(many, 5, dtype=F64), GAMMA)
        phi = start[0].expand(many, 5)
        table = joint_log_policy(torch.stack((phi, theta), -2))
        sums = StepSums(estimator, sample.outcome, table, signal)
        return GameObjective(phi, theta, torch.zeros(many, dtype=torch.long), sums)

    def mean(name: str) -> Tensor:
        settings = {"permutations": ["SSE"], "sizes": [size], "inner_steps": 1, "inner_lr": INNER_LR}
        (found,) = decompose(LookAhead(), [load(name)], **settings).values()
        return probability(start[0]) @ found

    theta = LookAhead.params
    ahead = theta + INNER_LR * sampled(theta, load("ad"), Histories(batch)).gradient
    phi = start[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(probability(phi) @ outer(phi, ahead), phi)
    assert_close(mean("ad+correction"), expected, rtol=0, atol=1e-10)
    for wrong in ("ad", "ad+correction@0.5", "dice+correction"):  # the controls
        assert (mean(wrong) - expected).abs().max() > 2e-3


def test_a_hessian_from_a_batch_of_its_own_leaves_a_covariance():
    """E[(I + αH(τ′)) ∇J(θ¹(τ))] lacks α Cov(H(τ), ∇J(θ¹(τ))), which falls with n."""
    off = {size: mean("ad+correction", size, shared=False) - truth("maml", size, 1) for size in (1, 2)}
    plain = {size: mean("ad", size, shared=False) - mean("ad", size) for size in (1, 2)}
    for size in (1, 2):
        assert_close(off[size], plain[size], rtol=0, atol=1e-10)
        assert off[size].abs().max() > 2e-3
    assert off[2].norm() < 0.7 * off[1].norm()


def test_the_two_targets_meet_with_many_trajectories_and_the_jackknife_goes_on_to_the_limit():
    theta = THETA.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(MDP, theta, HORIZON), theta, create_graph=True)
    (limit,) = torch.autograd.grad(value(MDP, theta + INNER_LR * slope, HORIZON), theta)
    bias = {size: (truth("maml", size, 1) - limit).norm() for size in (1, 2, 4)}
    assert 1.6 < bias[1] / bias[2] < 2.4
    assert 1.6 < bias[2] / bias[4] < 2.4
    found = mean("ad+correction+jackknife", 2)
    assert_close(found, 2 * truth("maml", 2, 1) - truth("maml", 1, 1), rtol=0, atol=1e-10)
    assert (found - limit).norm() < 0.3 * bias[2]


@pytest.mark.parametrize("permutation", ["SES", "SEE", "ESS", "ESE", "EES"])
def test_where_i_or_ii_is_exact_there_is_no_correction(permutation):
    assert torch.equal(mean("ad+correction", 1, permutation=permutation), mean("ad", 1, permutation=permutation))
    assert (mean("ad+correction", 1) - mean("ad", 1)).abs().max() > 1e-2  # the control


def test_an_outer_objective_has_to_have_a_value(monkeypatch):
    monkeypatch.delattr(ExactObjective, "value")
    wording = r"estimator ad\+correction: expected outer objectives with a value, got ExactObjective without"
    with pytest.raises(EstimatorError, match=wording):
        mean("ad+correction", 1)
    assert mean("ad+correction", 1, permutation="SSS").isfinite().all()
