"""Every estimator against exact derivatives, by enumeration of all trajectories of tiny MDPs."""

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gm_estimators import Estimator, Trajectories
from gm_estimators.estimator import CATALOGUE
from gm_estimators.returns import discounts, gae
from gm_exact import Expectation, TabularMDP, expectation, gradient, hessian
from gm_exact import trajectories as every_trajectory

F64 = torch.float64
SIZES = [(2, 2, 4), (3, 2, 3), (2, 2, 2)]  # states, actions, horizon
UNBIASED = ["dice", "loaded_dice"]
BIASED = ["ad", "lvc"]


@dataclass(frozen=True, eq=False)
class Tiny:
    """A tiny problem with a critic, whose last value is what the trajectories bootstrap with."""

    mdp: TabularMDP
    params: Tensor
    horizon: int
    critic: Tensor

    def read(self, log_prob, every) -> Trajectories:
        value = self.critic[every.states]
        gamma = self.mdp.discount
        return Trajectories(
            log_prob, every.rewards, value, gae(every.rewards, value, gamma), discounts(gamma, self.horizon + 1)
        )

    @property
    def exact(self) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian of E[Σ_t γᵗ r_t + γᵀ V(s_T)]."""
        terms = self.mdp, self.params, self.horizon, self.critic
        return gradient(*terms), hessian(*terms)


@cache
def expected(tiny: Tiny, estimator: Estimator) -> Expectation:
    """Expectation of what an estimator computes from one trajectory."""
    return expectation(
        lambda log_prob, every: estimator.surrogate(tiny.read(log_prob, every)), tiny.mdp, tiny.params, tiny.horizon
    )


@pytest.fixture(scope="module", params=[(size, critic) for size in SIZES for critic in (True, False)], ids=str)
def tiny(request, make_mdp) -> Tiny:
    (states, actions, horizon), has_critic = request.param
    mdp = make_mdp(states=states, actions=actions, concentration=0.7, discount=0.8, seed=horizon + states)
    mdp = TabularMDP(mdp.transition[0], mdp.reward[0], 0, 0.8)
    draw = torch.Generator().manual_seed(horizon)
    params = torch.randn(states, actions, generator=draw, dtype=F64)
    critic = 2 * torch.randn(states, generator=draw, dtype=F64) * has_critic
    return Tiny(mdp, params, horizon, critic)


def occupancies(tiny: Tiny) -> list[Tensor]:
    """p_t(s) = Pr(s_t = s), t = 0 … T−1."""
    step = torch.einsum("sa,sax->sx", tiny.params.softmax(-1), tiny.mdp.transition)
    p_t = [tiny.mdp.start_distribution]
    for _ in range(tiny.horizon - 1):
        p_t.append(p_t[-1] @ step)
    return p_t


def action_values(tiny: Tiny) -> list[Tensor]:
    """Q_t(s, a) = r(s, a) + γ Σₓ P(x|s, a) V_{t+1}(x), V_t = Σₐ π Q_t, V_T the critic, t = 0 … T−1."""
    policy, value, q_t = tiny.params.softmax(-1), tiny.critic, []
    for _ in range(tiny.horizon):
        q_t.insert(0, tiny.mdp.reward + tiny.mdp.discount * tiny.mdp.transition @ value)
        value = (policy * q_t[0]).sum(-1)
    return q_t


def expected_hessian(tiny: Tiny, name: str) -> Tensor:
    """E[∇² ad] = Σ_t γᵗ Σ_s p_t Σₐ π (Q_t − V) ∇²log π,   E[∇² lvc] = Σ_t γᵗ Σ_s p_t Σₐ Q_t ∇²π."""
    policy = tiny.params.softmax(-1)
    eye = torch.eye(policy.shape[-1], dtype=F64)
    log_curvature = policy.unsqueeze(-1) * policy.unsqueeze(-2) - torch.diag_embed(policy)  # same for every action
    result = torch.zeros(*policy.shape, *policy.shape, dtype=F64)
    for t, (p, q) in enumerate(zip(occupancies(tiny), action_values(tiny), strict=True)):
        for s in range(len(policy)):
            for a, pi in enumerate(policy[s]):
                score = eye[a] - policy[s]
                if name == "ad":
                    term = pi * (q[s, a] - tiny.critic[s]) * log_curvature[s]
                else:
                    term = q[s, a] * pi * (log_curvature[s] + torch.outer(score, score))
                result[s, :, s, :] += tiny.mdp.discount**t * p[s] * term
    return result


def cross_time_terms(tiny: Tiny) -> Tensor:
    """Σ_t γᵗ E[A_t (∇ℓ_t C_{t−1}ᵀ + C_{t−1} ∇ℓ_tᵀ)], C_{t−1} = Σ_{u<t} ∇ℓ_u."""
    every = every_trajectory(tiny.mdp, tiny.horizon)
    policy, shape = tiny.params.softmax(-1), tiny.params.shape
    read = tiny.read(every.log_probs(tiny.params), every)
    scores = torch.zeros(*every.actions.shape, *shape, dtype=F64)  # ∇ℓ_t of every trajectory
    n, t = torch.meshgrid(*(torch.arange(size) for size in every.actions.shape), indexing="ij")
    state = every.states[:, :-1]
    scores[n, t, state] = -policy[state]
    scores[n, t, state, every.actions] += 1
    before = scores.cumsum(1) - scores
    weight = every.probability(tiny.params).unsqueeze(-1) * read.discount[:-1] * read.advantage
    half = torch.einsum("nt,ntsa,ntxb->saxb", weight, scores, before)
    return half + half.permute(2, 3, 0, 1)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_expected_gradient_is_exact(tiny, name):
    assert_close(expected(tiny, CATALOGUE[name]).gradient, tiny.exact[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_hessian_of_the_dice_family_is_exact(tiny, name):
    assert_close(expected(tiny, CATALOGUE[name]).hessian, tiny.exact[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BIASED)
def test_the_expected_hessian_of_the_others_is_what_theory_gives(tiny, name):
    found = expected(tiny, CATALOGUE[name]).hessian
    assert_close(found, expected_hessian(tiny, name), rtol=0, atol=1e-10)
    assert (found - tiny.exact[1]).abs().max() > 1e-3


def test_lvc_lacks_the_products_of_scores_at_different_times(tiny):
    missing = tiny.exact[1] - expected(tiny, CATALOGUE["lvc"]).hessian
    assert_close(missing, cross_time_terms(tiny), rtol=0, atol=1e-10)


def test_every_estimator_is_sorted_into_one_of_the_two_kinds():
    assert sorted(UNBIASED + BIASED) == sorted(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_discount_one_percent_off_is_seen(tiny, name):
    def off(read: Trajectories) -> Tensor:
        gamma = 0.99 * tiny.mdp.discount
        advantage = gae(read.reward, read.value, gamma)
        wrong = replace(read, discount=discounts(gamma, tiny.horizon + 1), advantage=advantage)
        return CATALOGUE[name].surrogate(wrong)

    wrong = expected(tiny, replace(CATALOGUE[name], surrogate=off))
    assert (wrong.gradient - tiny.exact[0]).abs().max() > 1e-4
