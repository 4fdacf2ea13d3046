"""Every estimator of a game's derivatives against gm-exact, by enumeration of all joint histories."""

import itertools
from dataclasses import dataclass, replace

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

with jaxtyping.install_import_hook(["gm_envs_ipd", "gm_estimators", "gm_exact"], "shapes.checked"):
    from gm_envs_ipd import GAMES, STRATEGIES, log_policy, log_probs, other_view, strategy_logits, strategy_values
    from gm_estimators import Trajectories
    from gm_estimators.estimator import CATALOGUE
    from gm_estimators.off_policy import OffPolicyTrajectories, cumulative_ratio, off_policy, off_policy_dice
    from gm_estimators.returns import discounts, gae
    from gm_estimators.surrogates import dice
    from gm_exact import evaluate_game, game_value
    from gm_exact import games as exact_games

F64 = torch.float64
GAMMA = 0.8
UNBIASED = ["dice", "loaded_dice"]  # to second order


@dataclass(frozen=True)
class Histories:
    """All 4ᵀ joint histories of the prisoner's dilemma, with a critic of player 1's payoffs or without."""

    horizon: int
    critic: Tensor
    params: Tensor
    behaviour: Tensor

    @property
    def outcome(self) -> Tensor:
        return torch.tensor(list(itertools.product(range(4), repeat=self.horizon)), dtype=torch.uint8)

    def log_prob(self, params: Tensor) -> Tensor:
        return log_probs(log_policy(params), self.outcome).sum(-2)

    def read(self, params: Tensor, player: int) -> Trajectories:
        reward = GAMES["ipd"].tensor().flatten(-2)[player][self.outcome.long()]
        state = torch.cat((torch.zeros(len(self.outcome), 1, dtype=torch.long), 1 + self.outcome[:, :-1].long()), -1)
        value = torch.nn.functional.pad(self.critic[state], (0, 1))  # nothing to come after the last round
        discount = discounts(GAMMA, self.horizon + 1)
        return Trajectories(self.log_prob(params), reward, value, gae(reward, value, GAMMA), discount)

    def read_off(self, params: Tensor, player: int, **controls: object) -> OffPolicyTrajectories:
        return OffPolicyTrajectories(
            **vars(self.read(params, player)), behaviour_log_prob=self.log_prob(self.behaviour), **controls
        )

    def expected(self, surrogate, player: int, **controls: object) -> tuple[Tensor, Tensor, Tensor]:
        """Value, gradient and Hessian of a surrogate on average; with controls, over the behaviour's histories."""
        off = bool(controls)
        weight = self.log_prob(self.behaviour if off else self.params).sum(-1).exp()

        def mean(params: Tensor) -> Tensor:
            read = self.read_off(params, player, **controls) if off else self.read(params, player)
            return (weight * surrogate(read)).sum()

        jacobian, hessian = torch.autograd.functional.jacobian, torch.autograd.functional.hessian
        return mean(self.params), jacobian(mean, self.params), hessian(mean, self.params)

    def exact(self, player: int) -> tuple[Tensor, Tensor, Tensor]:
        found = evaluate_game(GAMES["ipd"].tensor(), self.params, discount=GAMMA, horizon=self.horizon)
        return found.value[player], found.gradient[player], found.hessian[player]


NO_CONTROL = {"clip": float("inf")}


@pytest.fixture(params=[(2, True), (2, False), (3, True), (3, False)], ids=lambda p: f"T={p[0]}-critic={p[1]}")
def histories(request) -> Histories:
    horizon, has_critic = request.param
    draw = torch.Generator().manual_seed(horizon)
    params, behaviour = torch.randn(2, 2, 5, generator=draw, dtype=F64)
    return Histories(horizon, 2 * torch.randn(5, generator=draw, dtype=F64) * has_critic, params, behaviour)


@pytest.mark.parametrize("player", [0, 1])
def test_dice_is_exact_to_second_order(histories, player):
    for found, exact in zip(histories.expected(dice, player), histories.exact(player), strict=True):
        assert_close(found, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("player", [0, 1])
def test_off_policy_dice_is_exact_to_second_order_from_any_behaviour(histories, player):
    found = histories.expected(off_policy_dice, player, **NO_CONTROL)
    for expected, exact in zip(found, histories.exact(player), strict=True):
        assert_close(expected, exact, rtol=0, atol=1e-10)
    assert exact.abs().max() > 0.01


@pytest.mark.parametrize("name", CATALOGUE)
def test_off_policy_forms_have_the_means_of_the_on_policy_ones(histories, name):
    _, gradient, hessian = histories.expected(off_policy(CATALOGUE[name]).surrogate, 0, **NO_CONTROL)
    _, on_gradient, on_hessian = histories.expected(CATALOGUE[name].surrogate, 0)
    assert_close(gradient, histories.exact(0)[1], rtol=0, atol=1e-10)
    assert_close(gradient, on_gradient, rtol=0, atol=1e-10)
    assert_close(hessian, on_hessian, rtol=0, atol=1e-10)
    mixed_bias = (hessian - histories.exact(0)[2])[0, :, 1].abs().max()
    assert (mixed_bias < 1e-10) == (name in UNBIASED)


def test_a_ratio_to_one_player_only_is_seen(histories):
    """The control: the ratio has to be the joint one."""

    def of_player_1_only(read: OffPolicyTrajectories) -> Tensor:
        alone = log_probs(log_policy(histories.behaviour), histories.outcome)
        other = log_probs(log_policy(histories.params), histories.outcome)
        return off_policy_dice(replace(read, behaviour_log_prob=alone[..., 0, :] + other[..., 1, :]))

    found = histories.expected(of_player_1_only, 0, **NO_CONTROL)
    assert (found[1] - histories.exact(0)[1]).abs().max() > 1e-3


def test_clipping_is_biased_by_the_weight_that_it_cuts_off(histories):
    clip = 0.7
    weight = histories.log_prob(histories.behaviour).sum(-1).exp()
    read = histories.read_off(histories.params, 0)
    excess = (cumulative_ratio(read) - clip).clamp(min=0)
    cut = (weight.unsqueeze(-1) * read.discount[:-1] * excess * read.reward).sum()
    value, *_ = histories.expected(off_policy_dice, 0, clip=clip)
    assert_close(value, histories.exact(0)[0] - cut, rtol=0, atol=1e-10)
    assert value > histories.exact(0)[0] + 0.01  # the payoffs are negative: less weight, more value

    highest = float(cumulative_ratio(read).max())
    for found, exact in zip(histories.expected(off_policy_dice, 0, clip=highest), histories.exact(0), strict=True):
        assert_close(found, exact, rtol=0, atol=1e-10)


def two_rounds(*, seed: int, near: float = 1.0) -> Histories:
    """Histories of two rounds without a critic; the behaviour is that far from the policies."""
    draw = torch.Generator().manual_seed(seed)
    params, change = torch.randn(2, 2, 5, generator=draw, dtype=F64)
    return Histories(2, torch.zeros(5, dtype=F64), params, params + near * change)


def test_clipping_biases_the_derivatives_by_the_weight_that_it_cuts_off():
    """It cuts off E_μ Σ_t γᵗ max(0, ρ_t − clip) r_t times S_t, the score so far, or S_t S_tᵀ of the two players."""
    every, clip = two_rounds(seed=2), 0.7
    weight = every.log_prob(every.behaviour).sum(-1).exp()
    read = every.read_off(every.params, 0)
    excess = (cumulative_ratio(read) - clip).clamp(min=0)
    cut = weight.unsqueeze(-1) * read.discount[:-1] * excess * read.reward
    score = torch.autograd.functional.jacobian(lambda params: every.log_prob(params).cumsum(-1), every.params)
    gradient_bias = -torch.einsum("nt,ntjs->js", cut, score)
    mixed_bias = -torch.einsum("nt,nts,ntx->sx", cut, score[:, :, 0], score[:, :, 1])

    _, gradient, hessian = every.expected(off_policy_dice, 0, clip=clip)
    _, exact_gradient, exact_hessian = every.exact(0)
    assert_close(gradient - exact_gradient, gradient_bias, rtol=0, atol=1e-10)
    assert_close((hessian - exact_hessian)[0, :, 1], mixed_bias, rtol=0, atol=1e-10)
    assert gradient_bias.norm() > 0.1
    assert mixed_bias.norm() > 0.05

    def size(clip: float) -> float:  # the lower the bound, the more
        return float((every.expected(off_policy_dice, 0, clip=clip)[1] - exact_gradient).norm())

    assert size(0.3) > size(0.7) > size(1.5) > size(float(cumulative_ratio(read).max())) - 1e-10


def test_self_normalisation_biases_the_derivatives_less_with_more_trajectories():
    """One trajectory has the derivatives of the unweighted DiCE of the behaviour's; the bias falls with n."""
    every = two_rounds(seed=7, near=0.3)
    weight = every.log_prob(every.behaviour).sum(-1).exp()
    _, exact_gradient, exact_hessian = every.exact(0)

    def expected(size: int) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian, over all tuples of trajectories."""
        tuples = torch.cartesian_prod(*[torch.arange(len(weight))] * size).reshape(-1, size)

        def mean(params: Tensor) -> Tensor:
            read = every.read_off(params, 0, self_normalise=True)
            parts = {name: getattr(read, name)[tuples] for name in ("log_prob", "reward", "value", "advantage")}
            sample = replace(read, **parts, behaviour_log_prob=read.behaviour_log_prob[tuples])
            return (weight[tuples].prod(-1) * off_policy_dice(sample).mean(-1)).sum()

        functional = torch.autograd.functional
        return functional.jacobian(mean, every.params), functional.hessian(mean, every.params)

    def unweighted(params: Tensor) -> Tensor:
        return (weight * dice(every.read(params, 0))).sum()

    one = expected(1)
    assert_close(one[0], torch.autograd.functional.jacobian(unweighted, every.params), rtol=0, atol=1e-10)
    assert_close(one[1], torch.autograd.functional.hessian(unweighted, every.params), rtol=0, atol=1e-10)
    found = [one, expected(2), expected(3)]
    gradient = [float((by - exact_gradient).norm()) for by, _ in found]
    mixed = [float((by - exact_hessian)[0, :, 1].norm()) for _, by in found]
    for bias in (gradient, mixed):
        assert bias[0] > bias[1] > bias[2] > 1e-3


def test_self_normalisation_trusts_a_single_trajectory_and_improves_with_more():
    horizon = 2
    draw = torch.Generator().manual_seed(7)
    params, change = torch.randn(2, 2, 5, generator=draw, dtype=F64)
    behaviour = params + 0.3 * change
    every = Histories(horizon, torch.zeros(5, dtype=F64), params, behaviour)
    read = every.read_off(params, 0, self_normalise=True)
    weight = every.log_prob(behaviour).sum(-1).exp()

    def mean_of(size: int) -> Tensor:
        """Its expectation over all tuples of trajectories."""
        tuples = torch.cartesian_prod(*[torch.arange(len(weight))] * size).reshape(-1, size)
        parts = {name: getattr(read, name)[tuples] for name in ("log_prob", "reward", "value", "advantage")}
        sample = replace(read, **parts, behaviour_log_prob=read.behaviour_log_prob[tuples])
        return (weight[tuples].prod(-1) * off_policy_dice(sample).mean(-1)).sum()

    payoffs = GAMES["ipd"].tensor()
    assert_close(mean_of(1), game_value(payoffs, behaviour, discount=GAMMA, horizon=horizon)[0])
    exact = game_value(payoffs, params, discount=GAMMA, horizon=horizon)[0]
    bias = [(mean_of(size) - exact).abs() for size in (1, 2, 3, 4)]
    assert bias[0] > bias[1] > bias[2] > bias[3] > 1e-3


@pytest.mark.parametrize("horizon", [None, 1, 2, 3, 10])
@pytest.mark.parametrize("name", GAMES)
def test_known_strategies_have_their_closed_form_values(name, horizon):
    game = GAMES[name]
    for first, second in itertools.product(STRATEGIES, repeat=2):
        params = torch.stack((strategy_logits(first, game), strategy_logits(second, game)))
        found = game_value(game.tensor(), params, discount=0.9, horizon=horizon)
        closed = strategy_values(game, first, second, discount=0.9, horizon=horizon)
        assert_close(found, torch.tensor(closed, dtype=F64), rtol=0, atol=1e-12)


def test_both_packages_swap_views_alike():
    table = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert torch.equal(other_view(table), exact_games.other_view(table))
    assert not torch.equal(other_view(table), table)
