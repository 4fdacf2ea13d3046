import pytest
import torch
from torch.testing import assert_close

from gm_estimators.returns import discounts, gae, gae_adjoint, lambda_returns, returns_to_go, reverse_cumsum

F64 = torch.float64
REWARD = torch.tensor([1.0, 2.0, 4.0], dtype=F64)
VALUE = torch.tensor([10.0, 20.0, 30.0, 40.0], dtype=F64)


def test_discounts_by_hand():
    assert_close(discounts(0.5, 4), torch.tensor([1.0, 0.5, 0.25, 0.125], dtype=F64))
    assert discounts(0.0, 2).tolist() == [1.0, 0.0]
    gammas = discounts(torch.tensor([0.5, 0.1], dtype=torch.float32), 3)
    assert_close(gammas, torch.tensor([[1.0, 0.5, 0.25], [1.0, 0.1, 0.01]]))


def test_reverse_cumsum_by_hand():
    assert reverse_cumsum(REWARD).tolist() == [7.0, 6.0, 4.0]


def test_returns_by_hand():
    # 4;  2 + ½·4 = 4;  1 + ½·4 = 3
    assert returns_to_go(REWARD, 0.5).tolist() == [3.0, 4.0, 4.0]
    # 4 + ½·8 = 8;  2 + ½·8 = 6;  1 + ½·6 = 4
    assert returns_to_go(REWARD, 0.5, torch.tensor(8.0, dtype=F64)).tolist() == [4.0, 6.0, 8.0]


def test_advantages_by_hand():
    # δ = [1 + ½·20 − 10, 2 + ½·30 − 20, 4 + ½·40 − 30] = [1, −3, −6]
    # λ = ½, so γλ = ¼:  −6;  −3 − 1.5 = −4.5;  1 − 1.125 = −0.125
    assert gae(REWARD, VALUE, 0.5, 0.5).tolist() == [-0.125, -4.5, -6.0]
    assert gae(REWARD, VALUE, 0.5, 0.0).tolist() == [1.0, -3.0, -6.0]
    assert lambda_returns(REWARD, VALUE, 0.5, 0.5).tolist() == [9.875, 15.5, 24.0]


def test_at_lambda_one_it_is_the_bootstrapped_return_minus_the_value():
    expected = returns_to_go(REWARD, 0.9, VALUE[-1])
    assert_close(lambda_returns(REWARD, VALUE, 0.9), expected)
    assert_close(gae(REWARD, VALUE, 0.9), expected - VALUE[:-1])


def test_a_zero_in_the_discount_ends_an_episode():
    gamma = torch.tensor([0.5, 0.0, 0.5], dtype=F64)  # s_2 begins another episode
    # 4 + ½·40 = 24;  2;  1 + ½·2 = 2
    assert returns_to_go(REWARD, gamma, VALUE[-1]).tolist() == [2.0, 2.0, 24.0]
    # δ = [1, 2 − 20, −6]
    assert gae(REWARD, VALUE, gamma, 0.5).tolist() == [1 - 0.25 * 18, -18.0, -6.0]


def test_discounts_may_differ_between_trajectories():
    gamma = torch.tensor([[0.5], [0.9]], dtype=F64)
    found = returns_to_go(REWARD.expand(2, 3), gamma)
    assert_close(found, torch.stack([returns_to_go(REWARD, 0.5), returns_to_go(REWARD, 0.9)]))


@pytest.mark.parametrize("shape", [(), (2,), (3, 1, 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_axes_and_dtype_are_kept(shape, dtype):
    reward, value = REWARD.to(dtype).expand(*shape, 3), VALUE.to(dtype).expand(*shape, 4)
    found = gae(reward, value, 0.5, 0.5)
    assert found.shape == (*shape, 3)
    assert found.dtype == dtype
    assert_close(found, gae(REWARD, VALUE, 0.5, 0.5).to(dtype).expand(*shape, 3))


def test_time_first_memory_stays_time_first():
    reward = torch.randn(5, 3, 2, dtype=F64).movedim((0, 1), (-1, -2))
    value = torch.randn(6, 3, 2, dtype=F64).movedim((0, 1), (-1, -2))
    assert reward.shape == (2, 3, 5)
    for found in (returns_to_go(reward, 0.9), gae(reward, value, 0.9)):
        assert found.movedim((-1, -2), (0, 1)).is_contiguous()


def test_gradients_in_everything():
    gamma, lam = (torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.7, 0.6))
    gammas = torch.tensor([0.7, 0.0, 0.9], dtype=F64, requires_grad=True)
    reward, value = REWARD.clone().requires_grad_(), VALUE.clone().requires_grad_()
    assert torch.autograd.gradcheck(gae, (reward, value, gamma, lam))
    assert torch.autograd.gradgradcheck(gae, (reward, value, gamma, lam))
    assert torch.autograd.gradcheck(lambda_returns, (reward, value, gammas, lam))
    assert torch.autograd.gradcheck(returns_to_go, (reward, gammas, value[0]))
    assert torch.autograd.gradcheck(lambda g: discounts(g, 4), (gamma,))


def test_a_value_too_few_is_refused():
    with pytest.raises(ValueError, match="value: expected 4 time steps, one more than reward, got 3"):
        gae(REWARD, VALUE[:3], 0.9)


@pytest.mark.parametrize("shape", [(1,), (3, 4), (2, 3, 5)])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
def test_the_adjoint_of_gae(shape, gae_lambda):
    draw = torch.Generator().manual_seed(0)
    reward, cotangent = (torch.randn(shape, generator=draw, dtype=F64) for _ in range(2))
    value = torch.randn(*shape[:-1], shape[-1] + 1, generator=draw, dtype=F64)
    leaves = reward.requires_grad_(), value.requires_grad_()
    expected = torch.autograd.grad((cotangent * gae(*leaves, 0.8, gae_lambda)).sum(), leaves)
    for adjoint, wanted in zip(gae_adjoint(cotangent, 0.8, gae_lambda), expected, strict=True):
        assert_close(adjoint, wanted, rtol=1e-13, atol=1e-13)
