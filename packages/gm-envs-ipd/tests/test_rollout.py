import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_envs_ipd import (
    GAMES,
    STRATEGIES,
    Draws,
    actions,
    draws,
    joint_view,
    log_policy,
    log_probs,
    other_view,
    rollout,
    states,
    strategy_logits,
)
from gm_envs_ipd.strategies import path

F64 = torch.float64


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def one_by_one(params: torch.Tensor, key: torch.Tensor, remainder: torch.Tensor) -> list[int]:
    """A single trajectory, played by two people who look at (own, other)."""
    mine = theirs = 0
    outcomes = []
    for k, v in zip(key.tolist(), remainder.tolist(), strict=True):
        u_1, u_2 = ((k_i + v_i) / 2**15 for k_i, v_i in zip(k, v, strict=True))
        a_1 = int(u_1 >= params[0, mine].sigmoid())
        a_2 = int(u_2 >= params[1, theirs].sigmoid())
        outcomes.append(2 * a_1 + a_2)
        mine, theirs = 1 + 2 * a_1 + a_2, 1 + 2 * a_2 + a_1
    return outcomes


def test_rollouts_are_those_of_a_plain_loop(device):
    params, numbers = normal(3, 4, 2, 5), draws(rng(), (3, 4), 6, 9, device)
    found = rollout(params.to(device), numbers).cpu()
    assert found.shape == (3, 4, 6, 9)
    for i, j, n in [(0, 0, 0), (2, 3, 5), (1, 2, 3)]:
        expected = one_by_one(params[i, j], numbers.key[:, :, i, j, n].cpu(), numbers.remainder[:, :, i, j].cpu())
        assert found[i, j, n].tolist() == expected


@pytest.mark.parametrize("name", GAMES)
def test_known_strategies_play_their_path(name):
    game, horizon = GAMES[name], 6
    for first in STRATEGIES:
        for second in STRATEGIES:
            params = torch.stack((strategy_logits(first, game), strategy_logits(second, game)))
            before, cycle = path(game, first, second)
            found = rollout(params, draws(rng(), (), 3, horizon))
            assert found.tolist() == [(before + cycle * horizon)[:horizon]] * 3


def test_frequencies_are_the_probabilities():
    params = normal(2, 5, seed=3)
    outcome = rollout(params, draws(rng(1), (), 40_000, 3))
    p = params.sigmoid()
    # the first round: four outcomes at the start
    start = torch.outer(torch.stack((p[0, 0], 1 - p[0, 0])), torch.stack((p[1, 0], 1 - p[1, 0]))).flatten()

    # and one after each outcome, each player looking from its own side
    def after(*pairs: tuple[int, int]) -> torch.Tensor:
        return torch.stack(
            [
                torch.outer(torch.stack((p[0, s], 1 - p[0, s])), torch.stack((p[1, r], 1 - p[1, r]))).flatten()
                for s, r in pairs
            ]
        )

    chain, unswapped = after((1, 1), (2, 3), (3, 2), (4, 4)), after((1, 1), (2, 2), (3, 3), (4, 4))
    laws = (start, start @ chain, start @ chain @ chain)
    wrongs = (start.flip(-1), start @ unswapped, start @ unswapped @ unswapped)
    for t, (law, wrong) in enumerate(zip(laws, wrongs, strict=True)):
        counts = torch.bincount(outcome[:, t].long(), minlength=4) / len(outcome)
        error = (law * (1 - law) / len(outcome)).sqrt()
        assert ((counts - law).abs() < 4.5 * error).all()
        assert ((counts - wrong).abs() > 4.5 * error).any()


def test_probabilities_below_the_leading_bits_are_exact():
    # p = 2⁻¹⁷: an action that 15 bits alone could not draw at its probability; the remainder decides
    p, size, horizon = 2.0**-17, 8, 100_000
    logit = torch.tensor(p / (1 - p), dtype=F64).log()
    params = torch.stack((torch.full((5,), logit), torch.full((5,), -torch.inf))).to(F64)
    outcome = rollout(params, draws(rng(5), (), size, horizon))
    expected = size * horizon * p  # 6.1
    assert 1 <= int((outcome == 1).sum()) <= 15
    numbers = Draws(torch.zeros(2, 2, 1, dtype=torch.int16), torch.tensor([[p, p], [0.3, 0.3]], dtype=F64))
    assert rollout(params, numbers).tolist() == [[1, 3]]  # u = p·2⁻¹⁵ < p, then u = 0.3·2⁻¹⁵ ≥ p
    assert expected == pytest.approx(6.1, abs=0.1)


@pytest.mark.parametrize("logit", [27.7, 800.0, torch.inf])
def test_saturated_policies_do_what_they_must(logit):
    params = torch.stack((torch.full((5,), logit), torch.full((5,), -logit))).to(F64)
    assert (rollout(params, draws(rng(), (), 100, 50)) == 1).all()


def test_batch_elements_share_no_numbers_and_results_depend_on_the_numbers_alone():
    numbers = draws(rng(), (2,), 50, 20)
    params = torch.zeros(2, 2, 5, dtype=F64)
    found = rollout(params, numbers)
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found, rollout(params, draws(rng(), (2,), 50, 20)))
    assert torch.equal(found, rollout(params.float(), numbers))


@pytest.mark.parametrize("batch", [(3,), (3, 2)])
def test_of_several_generators_each_has_an_element_whatever_the_others(batch):
    several = draws([rng(1), rng(2), rng(3)], batch, 5, 7)
    one_for_all = draws(rng(1), batch, 5, 7)
    for element, seed in enumerate((1, 2, 3)):
        alone = draws(rng(seed), batch[1:], 5, 7)
        for of_all, own in zip(several, alone, strict=True):
            assert torch.equal(of_all[:, :, element], own)
        assert not torch.equal(one_for_all.key[:, :, element], alone.key)  # the control
    assert several.key.is_contiguous()
    assert several.remainder.is_contiguous()
    with pytest.raises(ValueError, match=r"rng: expected a generator for each element of the batch \(3,.*\), got 2"):
        draws([rng(1), rng(2)], batch, 5, 7)


@pytest.mark.parametrize(("size", "horizon"), [(1, 1), (1, 7), (3, 1)])
def test_smallest_sizes(size, horizon):
    assert rollout(torch.zeros(2, 5), draws(rng(), (), size, horizon)).shape == (size, horizon)


def test_states_are_seen_from_both_sides():
    outcome = torch.tensor([[1, 2, 3, 0]], dtype=torch.uint8)  # (0,1), (1,0), (1,1), (0,0)
    assert states(outcome).tolist() == [[[0, 2, 3, 4], [0, 3, 2, 4]]]
    assert actions(outcome).tolist() == [[[0, 1, 1, 0], [1, 0, 1, 0]]]


def test_views_are_their_own_inverse():
    table = normal(2, 2, 5)
    assert torch.equal(other_view(other_view(table)), table)
    assert torch.equal(joint_view(joint_view(table)), table)
    assert torch.equal(joint_view(table)[..., 0, :], table[..., 0, :])
    assert other_view(torch.arange(5.0)).tolist() == [0, 1, 3, 2, 4]


def test_log_probabilities_are_of_what_was_played():
    params = normal(2, 5)
    found = log_probs(log_policy(params), torch.tensor([1, 2], dtype=torch.uint8))
    sigmoid = params.sigmoid()
    # round 0: (0, 1) at the start; round 1: (1, 0) after own 0, other 1 and own 1, other 0
    expected = torch.stack(
        (
            torch.stack((sigmoid[0, 0], 1 - sigmoid[0, 2])),
            torch.stack((1 - sigmoid[1, 0], sigmoid[1, 3])),
        )
    ).log()
    assert_close(found, expected)
    assert (log_policy(params * 1000) > -torch.inf).all()


def test_bad_input_is_refused():
    for size, horizon in ((0, 3), (3, 0), (True, 3)):
        with pytest.raises(ValueError, match=r"(size|horizon): expected an integer of at least 1, got "):
            draws(rng(), (), size, horizon)
    with pytest.raises(ValueError, match=r"draws: expected batch axes \(3,\) as the parameters have, got \(2,\)"):
        rollout(torch.zeros(3, 2, 5), draws(rng(), (2,), 4, 5))
    with pytest.raises(ValueError, match="params: expected log-odds, got NaN"):
        rollout(torch.full((2, 5), torch.nan), draws(rng(), (), 4, 5))
    with pytest.raises(ValueError, match=r"params: expected two players' five log-odds, got shape \(3, 5\)"):
        inspect.unwrap(rollout)(torch.zeros(3, 5), draws(rng(), (), 4, 5))


@given(number=st.sampled_from([torch.nan, -0.5, 1.0, torch.inf]), place=st.tuples(st.integers(0, 4), st.integers(0, 1)))
def test_numbers_that_are_not_uniform_are_refused(number, place):
    numbers = draws(rng(), (), 4, 5)
    numbers.remainder[place] = number
    with pytest.raises(ValueError, match=r"draws: expected leading bits of at least 0 and remainders in \[0, 1\), got"):
        rollout(torch.zeros(2, 5), numbers)
    with pytest.raises(ValueError, match="draws: expected leading bits"):
        rollout(torch.zeros(2, 5), Draws(-1 - draws(rng(), (), 4, 5).key, numbers.remainder * 0))


def test_parameters_that_require_a_gradient_and_sizes_of_numpy():
    numbers = draws(rng(), (), np.int64(4), np.int32(5))
    params = normal(2, 5)
    plain = rollout(params, numbers)
    assert torch.equal(plain, rollout(params.requires_grad_(), numbers))
