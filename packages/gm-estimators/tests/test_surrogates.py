import pytest
import torch
from torch.testing import assert_close

from gm_estimators import Trajectories
from gm_estimators.surrogates import ad, dice, loaded_dice, lvc, mean_surrogate, reward_to_go

F64 = torch.float64
P = torch.tensor([0.5, 0.25], dtype=F64)  # one logit-free parameter for each step: ℓ_t = log p_t
HAND = Trajectories(
    log_prob=P.log().reshape(1, 2),
    reward=torch.tensor([[3.0, 8.0]], dtype=F64),
    value=torch.tensor([[1.0, 2.0, 4.0]], dtype=F64),
    advantage=torch.tensor([[6.0, 10.0]], dtype=F64),
    discount=torch.tensor([1.0, 0.5, 0.25], dtype=F64),
)


def by_log_prob(surrogate) -> tuple[float, list[float], list[list[float]]]:
    """Value, ∂/∂ℓ and ∂²/∂ℓ² of the one trajectory."""

    def value(log_prob):
        return surrogate(Trajectories(log_prob, HAND.reward, HAND.value, HAND.advantage, HAND.discount)).sum()

    slope = torch.autograd.functional.jacobian(value, HAND.log_prob)
    curvature = torch.autograd.functional.hessian(value, HAND.log_prob)
    return value(HAND.log_prob).item(), slope[0].tolist(), curvature[0, :, 0].tolist()


def test_ad_by_hand():
    # d A = [6, 5];  f = 6 log ½ + 5 log ¼ = −16 log 2
    value, slope, curvature = by_log_prob(ad)
    assert value == pytest.approx(-16 * 0.6931471805599453)
    assert slope == [6, 5]
    assert curvature == [[0, 0], [0, 0]]


def test_lvc_by_hand():
    # f = 6 □_0 + 5 □_1, each box of its own step
    assert by_log_prob(lvc) == (11, [6, 5], [[6, 0], [0, 5]])


def test_loaded_dice_by_hand():
    # f = 6 (□_0 − 1) + 5 (□_01 − □_0):  ∂ = [6 + 5 − 5, 5],  ∂² = [[6 + 5 − 5, 5], [5, 5]]
    assert by_log_prob(loaded_dice) == (0, [6, 5], [[6, 5], [5, 5]])


def test_dice_by_hand():
    # d r = [3, 4], d_T V_T = 1, d V = [1, 1]:  f = 3 □_0 + (4 + 1) □_01 + (1 − □_0) + (1 − □_1)
    # value 8, the bootstrapped return;  ∂ = [3 + 5 − 1, 5 − 1],  ∂² = [[7, 5], [5, 4]]
    assert by_log_prob(dice) == (8, [7, 4], [[7, 5], [5, 4]])


def test_reward_to_go_by_hand():
    assert reward_to_go(HAND).tolist() == [[8, 5]]


@pytest.mark.parametrize("surrogate", [lvc, loaded_dice])
def test_three_surrogates_have_one_gradient(surrogate, make_trajectories):
    read = make_trajectories(2, 3, 5)
    expected, found = (torch.autograd.grad(f(read).sum(), read.log_prob)[0] for f in (ad, surrogate))
    assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_mean_is_over_trajectories(make_trajectories):
    read = make_trajectories(2, 3, 5)
    found = mean_surrogate(ad, read)
    assert found.shape == (2,)
    assert_close(found, ad(read).mean(-1))


def test_what_is_not_one_number_per_trajectory_is_refused(make_trajectories):
    read = make_trajectories(2, 3, 5)
    expected = r"surrogate: expected one number per trajectory, shape \(2, 3\), got "
    with pytest.raises(ValueError, match=expected + r"shape \(2, 3, 5\)"):
        mean_surrogate(lambda trajectories: trajectories.log_prob, read)
    with pytest.raises(ValueError, match=expected + r"shape \(\)"):
        mean_surrogate(lambda trajectories: trajectories.log_prob.sum(), read)
    with pytest.raises(ValueError, match=expected + "a float"):
        mean_surrogate(lambda trajectories: 1.0, read)
