import inspect
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gm_envs_ipd import GAMES, STRATEGIES, MatrixGame, game, game_from_payoffs, strategy_logits, strategy_values
from gm_envs_ipd.strategies import path

IPD = GAMES["ipd"]


def test_the_prisoners_dilemma_has_the_papers_payoffs_and_action_1_cooperates():
    r1, r2 = IPD.tensor()
    assert_close(r1, torch.tensor([[-2.0, 0], [-3, -1]], dtype=torch.float64))
    assert_close(r2, torch.tensor([[-2.0, -3], [0, -1]], dtype=torch.float64))
    assert r1[IPD.cooperative, IPD.cooperative] > r1[1 - IPD.cooperative, 1 - IPD.cooperative]


@pytest.mark.parametrize("name", ["ipd", "stag-hunt", "chicken"])
def test_symmetric_games_look_the_same_to_both(name):
    r1, r2 = GAMES[name].tensor()
    assert torch.equal(r1, r2.T)


def test_each_game_is_what_its_name_says():
    def table(name: str) -> list[list[float]]:  # player 1's payoffs, own action first, cooperation first
        g = GAMES[name]
        c, d = g.cooperative, 1 - g.cooperative
        return [[g.payoffs[0][own][other] for other in (c, d)] for own in (c, d)]

    (reward, sucker), (temptation, punishment) = table("ipd")
    assert temptation > reward > punishment > sucker
    assert 2 * reward > temptation + sucker
    (reward, sucker), (temptation, punishment) = table("stag-hunt")
    assert reward > temptation >= punishment > sucker
    (reward, sucker), (temptation, punishment) = table("chicken")
    assert temptation > reward > sucker > punishment
    r1, r2 = GAMES["matching-pennies"].tensor()
    assert torch.equal(r1, -r2)
    r1, r2 = GAMES["battle-of-the-sexes"].tensor()
    assert r1[0, 0] > r1[1, 1] > r1[0, 1] == r1[1, 0]
    assert torch.equal(r2, r1.flip(0, 1))


@pytest.mark.parametrize(
    ("first", "second", "before", "cycle"),
    [
        ("ALLC", "ALLD", [], [2]),  # player 1 cooperates (1), player 2 doesn't (0)
        ("ALLD", "ALLC", [], [1]),
        ("TFT", "ALLD", [2], [0]),
        ("TFT", "TFT", [], [3]),
        ("WSLS", "ALLD", [], [2, 0]),  # lose, shift, lose, shift …
        ("ALLD", "WSLS", [], [1, 0]),
        ("WSLS", "WSLS", [], [3]),
    ],
)
def test_paths_in_the_prisoners_dilemma(first, second, before, cycle):
    assert path(IPD, first, second) == (before, cycle)


def test_values_by_hand():
    assert strategy_values(IPD, "ALLC", "ALLC", discount=0.5) == (-2, -2)
    assert strategy_values(IPD, "ALLD", "ALLD", discount=0.5, horizon=2) == (-3, -3)
    # −3, then −2 for ever; 0, then −2 for ever
    assert strategy_values(IPD, "TFT", "ALLD", discount=0.5) == (-5, -2)
    # −3, −2, −3, …: (−3 − 2γ) / (1 − γ²); 0, −2, 0, …
    first, second = strategy_values(IPD, "WSLS", "ALLD", discount=0.5)
    assert (first, second) == (pytest.approx(-4 / 0.75), pytest.approx(-1 / 0.75))
    assert strategy_values(IPD, "WSLS", "ALLD", discount=1.0, horizon=3) == (-8, -2)
    assert strategy_values(IPD, "TFT", "ALLD", discount=0.0) == (-3, 0)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.96, 1.0])
def test_finite_values_are_sums_along_the_path(discount):
    for g in GAMES.values():
        for first in STRATEGIES:
            for second in STRATEGIES:
                before, cycle = path(g, first, second)
                for horizon in (1, 2, 3, 4, 7):
                    outcomes = (before + cycle * horizon)[:horizon]
                    expected = [
                        sum(discount**t * table[o // 2][o % 2] for t, o in enumerate(outcomes)) for table in g.payoffs
                    ]
                    found = strategy_values(g, first, second, discount=discount, horizon=horizon)
                    assert found == pytest.approx(tuple(expected))


def test_strategies_are_logits_in_the_players_own_states():
    inf = math.inf  # action 0 defects in the prisoner's dilemma and cooperates in the stag hunt
    tit_for_tat = torch.tensor([-inf, inf, -inf, inf, -inf], dtype=torch.float64)
    assert torch.equal(strategy_logits("TFT", IPD), tit_for_tat)
    assert torch.equal(strategy_logits("WSLS", IPD, 3.0), torch.tensor([-3.0, -3, 3, 3, -3], dtype=torch.float64))
    stag = strategy_logits("TFT", GAMES["stag-hunt"], 1.0)
    assert torch.equal(stag, torch.tensor([1.0, 1, -1, 1, -1], dtype=torch.float64))


def test_a_game_from_a_list_of_payoffs():
    payoffs = [entry for table in IPD.payoffs for row in table for entry in row]
    assert game_from_payoffs(payoffs, "mine") == MatrixGame("mine", IPD.payoffs)
    with pytest.raises(ValueError, match=r"payoffs: expected 8 numbers, R¹ and R² row by row, got 3"):
        game_from_payoffs([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "bad", [(), (((1.0,),),), (((1.0, 2.0), (3.0, 4.0)),), (((1.0, 2.0), (3.0,)),) * 2, (((1.0, 2.0),) * 3,) * 2]
)
def test_payoffs_of_another_shape_are_refused(bad):
    with pytest.raises(ValueError, match="payoffs: expected two tables of 2×2 numbers"):
        MatrixGame("bad", bad)


@pytest.mark.parametrize(
    "payoffs",
    [
        np.array(IPD.payoffs),
        np.array(IPD.payoffs, dtype=np.float32),
        np.array(IPD.payoffs, dtype=np.int64),
        IPD.tensor(),
        [[[-2, 0], [-3, -1]], [[-2, -3], [0, -1]]],
        tuple(tuple(tuple(np.float32(entry) for entry in row) for row in table) for table in IPD.payoffs),
        tuple(np.array(IPD.payoffs)),
    ],
    ids=["float64", "float32", "int64", "tensor", "lists", "scalars", "tables"],
)
def test_payoffs_may_be_arrays_tensors_and_lists(payoffs):
    found, expected = MatrixGame("mine", payoffs), MatrixGame("mine", IPD.payoffs)
    assert found == expected
    assert hash(found) == hash(expected)
    assert torch.equal(found.tensor(), IPD.tensor())


@pytest.mark.parametrize("horizon", [0, -1, -3, 1.5, True])
def test_values_to_a_horizon_that_is_none_are_refused(horizon):
    unchecked = inspect.unwrap(strategy_values)  # beartype has its own words for 1.5
    with pytest.raises(ValueError, match=f"horizon: expected an integer of at least 1, got {horizon}"):
        unchecked(IPD, "TFT", "ALLD", discount=0.9, horizon=horizon)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"payoffs: expected finite numbers, got .*nan"):
        MatrixGame("bad", (((math.nan, 0.0), (0.0, 0.0)),) * 2)
    with pytest.raises(ValueError, match="payoffs: expected finite numbers, got"):
        MatrixGame("bad", (((10**400, 0.0), (0.0, 0.0)),) * 2)
    for cooperative in (2, True):
        with pytest.raises(ValueError, match=f"cooperative: expected an integer from 0 to 1, got {cooperative}"):
            MatrixGame("bad", IPD.payoffs, cooperative=cooperative)
    for sharpness in (-1.0, math.nan):
        with pytest.raises(ValueError, match=f"sharpness: expected a number of at least 0, got {sharpness}"):
            strategy_logits("TFT", IPD, sharpness)
    with pytest.raises(ValueError, match=re.escape("game: expected one of ipd, stag-hunt")):
        game("poker")
    with pytest.raises(ValueError, match="expected 0 ≤ γ ≤ 1, and γ < 1 for the infinite horizon, got 1"):
        strategy_values(IPD, "TFT", "TFT", discount=1.0)


def test_numbers_that_become_infinite_are_refused():
    large, huge = (MatrixGame("large", (((size, size), (size, size)),) * 2) for size in (1e39, 1e308))
    assert large.tensor().max() == 1e39
    with pytest.raises(ValueError, match=r"payoffs: expected numbers that are finite in torch.float32, got .*1e\+39"):
        large.tensor(torch.float32)
    with pytest.raises(ValueError, match=r"payoffs: expected numbers whose values are finite, got .*1e\+308"):
        strategy_values(huge, "ALLC", "ALLC", discount=0.9)


@pytest.mark.parametrize("short", [1e-3, 1e-9, 1e-12, 1e-15])
@pytest.mark.parametrize("horizon", [1, 7, 40])
def test_values_near_discount_1_are_those_of_rational_numbers(short, horizon):
    """TFT and WSLS against ALLD: a path of one round and a cycle of one, or of two."""
    discount = 1 - short
    for first in ("TFT", "WSLS"):
        outcomes, cycle = path(IPD, first, "ALLD")
        while len(outcomes) < horizon:
            outcomes = outcomes + cycle
        rewards = [IPD.payoffs[0][outcome // 2][outcome % 2] for outcome in outcomes[:horizon]]
        exact = sum(Fraction(discount) ** t * Fraction(reward) for t, reward in enumerate(rewards))
        found, _ = strategy_values(IPD, first, "ALLD", discount=discount, horizon=np.int64(horizon))
        assert found == pytest.approx(float(exact), rel=1e-13)
