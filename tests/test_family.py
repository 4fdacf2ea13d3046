"""The rest of the family by enumeration: TMAML, Loaded-DiCE's λ, learnt critics, V-trace, the sampling correction."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from given import given_problem

with jaxtyping.install_import_hook(["gm_estimators", "gm_exact", "gm_experiments"], "shapes.checked"):
    from gm_estimators import EstimatorError, Trajectories, decompose, load, meta_gradient
    from gm_estimators.corrections import sampling_correction
    from gm_estimators.estimator import CATALOGUE, FAMILY, families
    from gm_estimators.off_policy import OffPolicyTrajectories, off_policy, vtrace
    from gm_estimators.returns import discounts, gae, returns_to_go
    from gm_estimators.surrogates import mean_surrogate
    from gm_exact import TabularMDP, expectation, gradient, hessian, value
    from gm_exact import trajectories as every_trajectory
    from gm_experiments.common.problem import TabularProblem
    from gm_experiments.lola.objectives import GameSignal, StepSums

F64 = torch.float64
GAMMA, HORIZON = 0.8, 3
MDP = TabularMDP(
    torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.3, 0.7], [1.0, 0.0]]], dtype=F64),
    torch.tensor([[0.4, -0.2], [1.0, -0.9]], dtype=F64),
    0,
    GAMMA,
)
THETA = torch.tensor([[0.3, -0.2], [0.1, 0.5]], dtype=F64)
BEHAVIOUR = torch.tensor([[-0.4, 0.1], [0.6, -0.3]], dtype=F64)
CRITIC = torch.tensor([0.7, -0.4], dtype=F64)
EVERY = every_trajectory(MDP, HORIZON)


def read(log_prob: Tensor, every, critic: Tensor = CRITIC) -> Trajectories:
    values = critic[every.states]
    advantage = gae(every.rewards, values, GAMMA)
    return Trajectories(log_prob, every.rewards, values, advantage, discounts(GAMMA, HORIZON + 1))


def expected(surrogate):
    return expectation(lambda log_prob, every: surrogate(read(log_prob, every)), MDP, THETA, HORIZON)


def scores() -> Tensor:
    """∇ℓ_t of every trajectory."""
    found = torch.zeros(*EVERY.actions.shape, *THETA.shape, dtype=F64)
    n, t = torch.meshgrid(*(torch.arange(size) for size in EVERY.actions.shape), indexing="ij")
    state = EVERY.states[:, :-1]
    found[n, t, state] = -THETA.softmax(-1)[state]
    found[n, t, state, EVERY.actions] += 1
    return found


def test_the_family_is_beside_the_catalogue():
    assert not set(FAMILY) & set(CATALOGUE)
    assert {name: estimator.surrogate.__name__ for name, estimator in FAMILY.items()} == {
        "tmaml": "tmaml",
        "vtrace": "ad",
    }
    for name, estimator in FAMILY.items():
        assert load(name) is estimator
        assert estimator.name == name


@pytest.mark.claim("tmaml")
def test_tmaml_is_unbiased_to_second_order():
    found = expected(load("tmaml").surrogate)
    assert_close(found.gradient, gradient(MDP, THETA, HORIZON, CRITIC), rtol=0, atol=1e-10)
    assert_close(found.hessian, hessian(MDP, THETA, HORIZON, CRITIC), rtol=0, atol=1e-10)

    def without_the_past(trajectories: Trajectories) -> Tensor:
        """The control: the baseline's box on its own, without that of the steps before."""
        box = (trajectories.log_prob - trajectories.log_prob.detach()).exp()
        wrong = trajectories.discount[:-1] * trajectories.value[..., :-1] * (1 - box).square()
        return load("tmaml").surrogate(trajectories) - wrong.sum(-1)

    assert (expected(without_the_past).hessian - found.hessian).abs().max() > 1e-2


def test_tmaml_has_the_derivatives_of_loaded_dice_and_less_variance_than_dice():
    log_prob = EVERY.log_probs(THETA)
    direction = torch.randn(log_prob.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    tmaml, loaded, dice = (load(name).derivatives(read(log_prob, EVERY)) for name in ("tmaml", "loaded_dice", "dice"))
    assert_close(tmaml.first, loaded.first, rtol=0, atol=1e-12)
    assert_close(tmaml.product(direction), loaded.product(direction), rtol=0, atol=1e-12)
    assert_close(tmaml.first, dice.first, rtol=0, atol=1e-12)
    assert (tmaml.product(direction) - dice.product(direction)).abs().max() > 0.1


@pytest.mark.claim("loaded-dice-lambda")
@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_loaded_dice_weighs_products_of_scores_by_lambda(decay):
    """E[∇²f] = E[∇² lvc] + Σ_t γᵗ E[A_t (∇ℓ_t C_tᵀ + C_t ∇ℓ_tᵀ)], C_t = Σ_{u<t} λ^{t−u} ∇ℓ_u."""
    found = expected(load(f"loaded_dice@{decay}").surrogate)
    score, before = scores(), torch.zeros(len(EVERY.actions), 2, 2, dtype=F64)
    judged = read(EVERY.log_probs(THETA), EVERY)
    cross = torch.zeros(2, 2, 2, 2, dtype=F64)
    for t in range(HORIZON):
        weight = EVERY.probability(THETA) * judged.discount[t] * judged.advantage[:, t]
        cross += torch.einsum("n,nsa,nxb->saxb", weight, score[:, t], before)
        before = decay * (before + score[:, t])
    truth = expected(CATALOGUE["lvc"].surrogate).hessian + cross + cross.permute(2, 3, 0, 1)
    assert_close(found.hessian, truth, rtol=0, atol=1e-10)
    assert_close(found.gradient, gradient(MDP, THETA, HORIZON, CRITIC), rtol=0, atol=1e-10)
    bias = (found.hessian - hessian(MDP, THETA, HORIZON, CRITIC)).abs().max()
    assert (bias < 1e-10) == (decay == 1)


def tuples(size: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(len(EVERY.actions))] * size).reshape(-1, size)


def tabular(batch: Tensor, theta: Tensor = THETA, **settings) -> TabularProblem:
    return given_problem(
        MDP,
        theta.expand(len(batch), 2, 2),
        lambda role, step, policy, rows: (EVERY.states[batch[:, rows]], EVERY.actions[batch[:, rows]]),
        critic=lambda role, step, value: CRITIC.expand(value.shape),
        horizon=HORIZON,
        **settings,
    )


def drawn(problem: TabularProblem, size: int):
    """What there is at θ⁰, and a sample there."""
    point = problem.at(problem.params)
    return point, point.draw(0, {"inner": slice(size)})["inner"]


def with_tau(tau: float) -> tuple[Tensor, Tensor]:
    """x_t(s, a) = r + γ E V(s') − V(s) + γ τ E x_{t+1}(s', a') by dynamic programming: E[Σ γᵗ x_t ∇log π], and x."""
    policy, ahead, found = THETA.softmax(-1), torch.zeros(2, 2, dtype=F64), []
    for _ in range(HORIZON):
        later = (policy * ahead).sum(-1)
        ahead = MDP.reward + GAMMA * MDP.transition @ (CRITIC + tau * later) - CRITIC.unsqueeze(-1)
        found.insert(0, ahead)
    slope, visits = torch.zeros(2, 2, dtype=F64), MDP.start_distribution
    for t, x in enumerate(found):
        share = visits.unsqueeze(-1) * policy * x
        slope += GAMMA**t * (share - policy * share.sum(-1, keepdim=True))
        visits = torch.einsum("s,sa,sax->x", visits, policy, MDP.transition)
    return slope, torch.stack(found)


@pytest.mark.claim("loaded-dice-tau")
@pytest.mark.parametrize("decay", [0.3, 1.0])
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_loaded_dice_reads_advantages_of_its_own_tau(decay, tau):
    """Gradient and Hessian over every trajectory, in a problem of another λ; at τ = λ = 1 nothing is biased."""
    batch, weight = tuples(1), EVERY.probability(THETA)
    problem = tabular(batch, gae_lambda=0.2)
    point, sample = drawn(problem, 1)
    found = point.sampled("inner", load(f"loaded_dice@{decay},{tau}"), sample)
    directions = torch.eye(4, dtype=F64).reshape(4, 1, 2, 2).expand(4, len(batch), 2, 2)
    slope = torch.einsum("n,nsa->sa", weight, found.gradient)
    curvature = torch.einsum("n,dnsa->dsa", weight, found.vjp(directions)[0]).reshape(2, 2, 2, 2)
    expected_slope, advantage = with_tau(tau)
    assert_close(slope, expected_slope, rtol=0, atol=1e-10)

    # products of scores as `test_loaded_dice_weighs_products_of_scores_by_lambda` has them, and the mean of A ∇²log π
    score, before = scores(), torch.zeros(len(EVERY.actions), 2, 2, dtype=F64)
    policy, truth = THETA.softmax(-1), torch.zeros(2, 2, 2, 2, dtype=F64)
    fisher = torch.diag_embed(policy) - policy.unsqueeze(-1) * policy.unsqueeze(-2)
    for t in range(HORIZON):
        state = EVERY.states[:, t]
        share = weight * GAMMA**t * advantage[t][state, EVERY.actions[:, t]]
        cross = torch.einsum("n,nsa,nxb->saxb", share, score[:, t], before)
        truth += cross + cross.permute(2, 3, 0, 1) + torch.einsum("n,nsa,nxb->saxb", share, score[:, t], score[:, t])
        for s in range(2):
            truth[s, :, s] -= share[state == s].sum() * fisher[s]
        before = decay * (before + score[:, t])
    assert_close(curvature, truth, rtol=0, atol=1e-10)
    unbiased = (slope - gradient(MDP, THETA, HORIZON, CRITIC)).abs().max() < 1e-10
    assert unbiased == (tau == 1)
    if decay == 1:
        assert ((curvature - hessian(MDP, THETA, HORIZON, CRITIC)).abs().max() < 1e-10) == (tau == 1)


@pytest.mark.claim("loaded-dice-tau")
def test_tau_is_the_lambda_of_the_problem_for_one_estimator():
    """Mixed derivatives in an intrinsic reward, too, beside an estimator that has the problem's."""
    batch, names = tuples(2), ("lvc", "loaded_dice@0.5,0.7", "loaded_dice@0.5", "loaded_dice@0.5,0.7+jackknife")

    def estimates(gae_lambda: float) -> dict:
        phi = torch.zeros(len(batch), 2, 2, dtype=F64, requires_grad=True)
        problem = tabular(batch, gae_lambda=gae_lambda, intrinsic_reward=phi)
        chosen = [load(name) for name in names]
        found = decompose(problem, chosen, permutations=["SSE"], sizes=[2], inner_steps=1, inner_lr=0.8)
        return {name: found[name, "SSE", 2] for name in names}

    one, other = estimates(1.0), estimates(0.7)
    assert_close(one["loaded_dice@0.5,0.7"], other["loaded_dice@0.5"], rtol=0, atol=1e-12)
    assert_close(one["loaded_dice@0.5,0.7"], other["loaded_dice@0.5,0.7"], rtol=0, atol=1e-12)
    assert_close(one["loaded_dice@0.5,0.7+jackknife"], other["loaded_dice@0.5,0.7+jackknife"], rtol=0, atol=1e-12)
    for name in ("lvc", "loaded_dice@0.5"):  # the control
        assert (one[name] - other[name]).abs().max() > 1e-2


def test_tau_is_refused_where_advantages_have_one_of_their_own():
    with pytest.raises(EstimatorError, match=r"estimator loaded_dice@1,0.5: expected advantages without a τ"):
        off_policy(load("loaded_dice@1,0.5"))
    signal = GameSignal(torch.zeros(1, 4), torch.zeros(1, 5), 0.9)
    with pytest.raises(EstimatorError, match=r"estimator loaded_dice@1,0.5: expected one without τ, which only the"):
        StepSums(load("loaded_dice@1,0.5"), torch.zeros(1, 2, 3, dtype=torch.uint8), torch.zeros(1, 5, 4), signal)


@pytest.mark.claim("self-normalised")
@pytest.mark.parametrize("name", ["dice", "lvc", "loaded_dice"])
def test_self_normalised_ratios_have_a_bias_that_falls_with_n(name):
    """The gradient over every batch of n trajectories of the behaviour."""
    every = every_trajectory(MDP, 2)
    values = CRITIC[every.states]
    judged = Trajectories(every.rewards, every.rewards, values, every.rewards, discounts(GAMMA, 3))  # advantages unread

    def mean(estimator, size: int) -> Tensor:
        batch = torch.cartesian_prod(*[torch.arange(len(every.actions))] * size).reshape(-1, size)
        theta = THETA.clone().requires_grad_()
        signals = {part: getattr(judged, part)[batch] for part in ("reward", "value", "advantage")}
        behaviour = every.log_probs(BEHAVIOUR)[batch]
        read = replace(judged, log_prob=every.log_probs(theta)[batch], **signals)
        of_batch = mean_surrogate(
            off_policy(estimator).surrogate, OffPolicyTrajectories(**vars(read), behaviour_log_prob=behaviour)
        )
        return torch.autograd.grad(every.probability(BEHAVIOUR)[batch].prod(-1) @ of_batch, theta)[0]

    truth = gradient(MDP, THETA, 2, CRITIC)
    bias = [(mean(load(f"{name}+selfnorm"), size) - truth).norm() for size in (1, 2, 4)]
    assert bias[0] > 0.1 * truth.norm()
    assert 1.2 < bias[0] / bias[1] < 3
    assert 1.6 < bias[1] / bias[2] < 2.5  # O(1/n)
    for size in (1, 2):  # the control
        assert_close(mean(load(name), size), truth, rtol=0, atol=1e-10)


def test_a_game_reads_normalised_ratios_by_name():
    """As with the switch of the trajectories themselves; the control does without."""
    draw = torch.Generator().manual_seed(0)
    outcome = torch.randint(4, (1, 6, 3), generator=draw, dtype=torch.uint8)
    policy, behaviour = (torch.randn(1, *shape, 5, 4, generator=draw).log_softmax(-1) for shape in ((), (6,)))
    signal = GameSignal(torch.randn(1, 4, generator=draw), torch.randn(1, 5, generator=draw), 0.9)
    for name in ("dice", "lvc"):
        plain = StepSums(load(name), outcome, policy, signal, behaviour)
        switched = StepSums(load(name), outcome, policy, signal, behaviour, self_normalise=True)
        named = StepSums(load(f"{name}+selfnorm"), outcome, policy, signal, behaviour)
        assert_close(named.first(), switched.first())
        assert_close(named.weight, switched.weight)
        assert (named.first() - plain.first()).abs().max() > 1e-2


@pytest.mark.claim("learnt-critic")
@pytest.mark.parametrize("name", ["lvc", "dice", "loaded_dice", "tmaml"])
def test_a_critic_learnt_from_the_other_trajectories_biases_nothing(name):
    """All pairs of trajectories, each judged by what it sees in the other."""
    batch = tuples(2)
    weight = EVERY.probability(THETA)[batch].prod(-1)
    problem = tabular(batch)
    point, sample = drawn(problem, 2)
    judged = sample.trajectories("learnt")
    assert judged.value[..., :-1].abs().max() > 0.1

    def mean(critic: Trajectories) -> tuple[Tensor, Tensor]:
        estimator = replace(load(name), critic="learnt")
        other = replace(sample, learn=lambda place, old: critic)
        found = point.sampled("inner", estimator, other)
        directions = torch.eye(4, dtype=F64).reshape(4, 1, 2, 2).expand(4, len(batch), 2, 2)
        return weight @ found.gradient.flatten(1), torch.einsum("n,dnsa->dsa", weight, found.vjp(directions)[0])

    slope, curvature = mean(judged)
    assert_close(slope.reshape(2, 2), gradient(MDP, THETA, HORIZON), rtol=0, atol=1e-10)
    if name != "lvc":
        assert_close(curvature.reshape(2, 2, 2, 2), hessian(MDP, THETA, HORIZON), rtol=0, atol=1e-10)

    to_go = returns_to_go(judged.reward, GAMMA)  # the control: its own return counts, too
    state = EVERY.states[batch][..., :-1]
    same = (state[:, None, None] == state[..., None, None]).to(F64)
    own = (same * to_go[:, None, None]).sum((-2, -1)) / same.sum((-2, -1))
    value = torch.nn.functional.pad(own, (0, 1))
    biased = mean(replace(judged, value=value, advantage=gae(judged.reward, value, GAMMA)))[0]
    assert (biased.reshape(2, 2) - gradient(MDP, THETA, HORIZON)).abs().max() > 1e-2


def off_policy_mean(estimator) -> Tensor:
    """The expected gradient of an off-policy estimator over the behaviour's trajectories."""
    theta = THETA.clone().requires_grad_()
    on = read(EVERY.log_probs(theta), EVERY)
    off = OffPolicyTrajectories(**vars(on), behaviour_log_prob=EVERY.log_probs(BEHAVIOUR))
    return torch.autograd.grad((EVERY.probability(BEHAVIOUR) * estimator.surrogate(off)).sum(), theta)[0]


def clipped_weights(ratio_clip: float, trace_clip: float, decay: float = 1.0) -> Tensor:
    """Σ_t γᵗ μ_t(s) min(clip μ, π) (r + γ v_{t+1}(s') − V) for each (s, a), by dynamic programming."""
    policy, behaviour = THETA.softmax(-1), BEHAVIOUR.softmax(-1)
    clipped = torch.minimum(ratio_clip * behaviour, policy)
    trace = decay * torch.minimum(trace_clip * behaviour, policy)
    target = [CRITIC]  # v_T … v_0
    for _ in range(HORIZON):
        difference = MDP.reward + GAMMA * MDP.transition @ CRITIC - CRITIC.unsqueeze(-1)
        ahead = GAMMA * MDP.transition @ (target[-1] - CRITIC)
        target.append(CRITIC + (clipped * difference + trace * ahead).sum(-1))
    found, visits = torch.zeros(2, 2, dtype=F64), MDP.start_distribution
    for t in range(HORIZON):
        after = target[HORIZON - t - 1]
        advantage = MDP.reward + GAMMA * MDP.transition @ after - CRITIC.unsqueeze(-1)
        found += GAMMA**t * visits.unsqueeze(-1) * clipped * advantage
        visits = torch.einsum("s,sa,sax->x", visits, behaviour, MDP.transition)
    return found


def of_the_clipped_policy(ratio_clip: float, trace_clip: float, decay: float = 1.0) -> Tensor:
    """Σ_{s, a} weight ∇log π."""
    share = clipped_weights(ratio_clip, trace_clip, decay)
    return share - THETA.softmax(-1) * share.sum(-1, keepdim=True)


@pytest.mark.claim("v-trace")
@pytest.mark.parametrize(("name", "squares"), [("ad", False), ("lvc", True)])
def test_the_hessian_of_v_trace_is_that_of_its_estimator_with_its_weights(name, squares):
    """Over every trajectory of the behaviour: Σ_{s, a} weight (∇²log π + [LVC] ∇log π ∇log πᵀ)."""
    settings = {"ratio_clip": 1.0, "trace_clip": 0.8, "decay": 0.9}
    share, policy = clipped_weights(**settings), THETA.softmax(-1)
    estimator = vtrace(load(name), **settings)

    def mean(theta: Tensor) -> Tensor:
        off = OffPolicyTrajectories(
            **vars(read(EVERY.log_probs(theta), EVERY)), behaviour_log_prob=EVERY.log_probs(BEHAVIOUR)
        )
        return (EVERY.probability(BEHAVIOUR) * estimator.surrogate(off)).sum()

    found = torch.autograd.functional.hessian(mean, THETA)

    def hessian_of(shares: Tensor, products: bool) -> Tensor:
        rows = []
        for s in range(2):
            fisher = policy[s].diag() - torch.outer(policy[s], policy[s])
            score = torch.eye(2, dtype=F64) - policy[s]
            rows.append(products * torch.einsum("a,ax,ay->xy", shares[s], score, score) - shares[s].sum() * fisher)
        blocks = torch.zeros(2, 2, 2, 2, dtype=F64)
        blocks[0, :, 0], blocks[1, :, 1] = rows
        return blocks

    assert_close(found, hessian_of(share, squares), rtol=0, atol=1e-10)
    for control in (hessian_of(share, not squares), hessian_of(clipped_weights(2.0, 0.8, 0.9), squares)):
        assert (found - control).abs().max() > 1e-3


@pytest.mark.claim("v-trace")
@pytest.mark.parametrize("name", ["ad", "lvc", "loaded_dice"])
def test_v_trace_has_the_gradient_of_its_clipped_policy_in_the_states_of_the_behaviour(name):
    for ratio_clip, trace_clip, decay in ((float("inf"), float("inf"), 1.0), (1.0, 0.8, 0.9), (1.2, 1.2, 1.0)):
        settings = {"ratio_clip": ratio_clip, "trace_clip": trace_clip, "decay": decay}
        truth = of_the_clipped_policy(**settings)
        assert_close(off_policy_mean(vtrace(load(name), **settings)), truth, rtol=0, atol=1e-10)
        wrong = off_policy_mean(vtrace(load(name), **(settings | {"ratio_clip": 0.8})))
        assert (wrong - truth).abs().max() > 1e-3  # the control


@pytest.mark.claim("v-trace")
@pytest.mark.parametrize(
    ("name", "bound"),
    [("vtrace", 1.0), ("lvc+vtrace", 1.0), ("loaded_dice+vtrace@1.2", 1.2), ("ad+vtrace@0.8", 0.8)],
)
def test_a_name_with_v_trace_has_it_off_policy(name, bound):
    truth = of_the_clipped_policy(bound, bound)
    assert_close(off_policy_mean(off_policy(load(name))), truth, rtol=0, atol=1e-10)
    assert load(name, suffixes=False) == load(name)
    for control in (load("lvc"), load(f"lvc+vtrace@{bound + 0.1}")):  # cumulative ratios, another bound
        assert (off_policy_mean(off_policy(control)) - truth).abs().max() > 1e-3


def test_v_trace_on_policy_is_the_estimator_itself():
    log_prob = EVERY.log_probs(THETA)
    off = OffPolicyTrajectories(**vars(read(log_prob, EVERY)), behaviour_log_prob=log_prob)
    direction = torch.randn(log_prob.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    for name in ("ad", "lvc", "loaded_dice"):
        on = load(name).derivatives(read(log_prob, EVERY))
        for found in (vtrace(load(name)).derivatives(off), load(f"{name}+vtrace").derivatives(read(log_prob, EVERY))):
            assert_close(found.first, on.first, rtol=0, atol=1e-12)
            for one, other in ((found.diagonal, on.diagonal), (found.product, on.product)):
                assert (one is None) == (other is None)
            if on.product is not None:
                assert_close(found.product(direction), on.product(direction), rtol=0, atol=1e-12)
    assert families([load("ad"), load("vtrace")]) == [[load("ad"), load("vtrace")]]  # one inner path for both
    with pytest.raises(ValueError, match=r"ratio_clip, trace_clip: expected positive numbers, got 0\.0 and 1\.0"):
        vtrace(load("ad"), ratio_clip=0.0)
    with pytest.raises(TypeError, match="expected OffPolicyTrajectories, got Trajectories"):
        vtrace(load("ad")).derivatives(read(log_prob, EVERY))
    for controls in ({"clip": 2.0}, {"self_normalise": True}):
        with pytest.raises(EstimatorError, match="V-trace has bounds of its own, expected neither clip nor self_norm"):
            vtrace(load("ad")).derivatives(replace(off, **controls))
    for name in ("dice", "tmaml"):
        with pytest.raises(EstimatorError, match=f"estimator {name}: V-trace weighs advantages, expected an estimator"):
            vtrace(load(name))


@pytest.mark.claim("sampling-correction")
@pytest.mark.parametrize("size", [1, 2])
def test_the_sampling_correction_gives_the_gradient_of_adapting_with_n_trajectories(size):
    """E of the estimate over every batch against ∇ Σ_batch p(batch; θ) J(θ + α ĝ(batch; θ))."""
    lr, batch = 0.8, tuples(size)
    many, no_critic = len(batch), torch.zeros(2, dtype=F64)

    def surrogate(name: str, log_prob: Tensor) -> Tensor:
        judged = read(EVERY.log_probs(THETA), EVERY, no_critic)
        parts = {part: getattr(judged, part)[batch] for part in ("reward", "value", "advantage")}
        return mean_surrogate(load(name).surrogate, replace(judged, log_prob=log_prob, **parts))

    def log_probs(theta: Tensor) -> Tensor:
        rows = torch.arange(many)[:, None, None]
        return theta.log_softmax(-1)[rows, EVERY.states[:, :-1][batch], EVERY.actions[batch]]

    def adapted(theta: Tensor) -> Tensor:
        """J after adapting with n trajectories, on average: θ decides what is drawn and where the step starts."""
        each = theta.expand(many, 2, 2)
        step = torch.autograd.grad(surrogate("ad", log_probs(each)).sum(), each, create_graph=True)[0]
        return EVERY.probability(theta)[batch].prod(-1) @ value(MDP, each + lr * step, HORIZON)

    theta = THETA.clone().requires_grad_()
    truth = torch.autograd.grad(adapted(theta), theta)[0]

    def mean(name: str, coefficient: float) -> Tensor:
        def outer(phi: Tensor, ahead: Tensor) -> Tensor:
            gain = value(MDP, ahead, HORIZON)
            return gain + sampling_correction(log_probs(phi), gain, coefficient=coefficient, baseline=0.3)

        found = meta_gradient(
            THETA.expand(many, 2, 2),
            inner=lambda phi, at, step: surrogate(name, log_probs(at)),
            outer=outer,
            inner_steps=1,
            inner_lr=lr,
        )
        return torch.einsum("n,nsa->sa", EVERY.probability(THETA)[batch].prod(-1), found)

    assert_close(mean("ad", 1.0), truth, rtol=0, atol=1e-10)
    for wrong in (("ad", 0.0), ("ad", 0.5), ("dice", 1.0)):  # no correction, half of it, DiCE's Hessian as well
        assert (mean(*wrong) - truth).abs().max() > 2e-3


@pytest.mark.parametrize(
    "name",
    ["loaded_dice@1.5", "loaded_dice@", "loaded_dice@x", "loaded_dice@1,2", "loaded_dice@1,", "loaded_dice@1,1,1"],
)
def test_a_lambda_out_of_range_is_refused(name):
    with pytest.raises(
        ValueError, match=rf"expected loaded_dice@λ or loaded_dice@λ,τ, both between 0 and 1, got '{name}'"
    ):
        load(name)
