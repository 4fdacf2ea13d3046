"""Seeds of the LOLA experiment nest: a run with more of them extends one with fewer."""

from dataclasses import replace

import pandas as pd
import pytest

from gm_experiments.lola import EXPERIMENT, Settings, run
from gm_experiments.lola.learner import Learner
from gm_experiments.lola.settings import BLOCK, Cell, cells, further_cells

TINY = ["--updates", "6", "--horizon", "9", "--evaluation-size", "4", "--replay-capacity", "1024"]
ONE = ("--figure", "fig2a", "--curves", "inner=128 outer=128")


def of_the_first(seeds: int, frame: pd.DataFrame) -> str:
    """The rows of the first seeds as results.csv has them."""
    order = ["figure", "curve", "seed", "update"]
    return frame[frame["seed"] < seeds].sort_values(order).to_csv(index=False)


@pytest.mark.parametrize("more", [(), ("--figure", "debias"), (*ONE, "--estimator", "loaded_dice+selfnorm")], ids=str)
def test_more_seeds_leave_the_rows_of_the_first_as_they_are(rows_of, more):
    few, many = (rows_of(EXPERIMENT, *TINY, *more, "--seeds", seeds) for seeds in (BLOCK, 2 * BLOCK))
    assert set(many["seed"]) == set(range(2 * BLOCK))
    assert of_the_first(BLOCK, few) == of_the_first(BLOCK, many)
    assert many["score"].nunique() > BLOCK


@pytest.mark.parametrize("seeds", [1, 3, BLOCK + 1])
def test_the_seeds_of_an_unfinished_block_are_those_of_a_whole_one(rows_of, monkeypatch, seeds):
    monkeypatch.setattr(run, "significant", lambda table: table)  # training would make of the last digit all of them
    few, many = (rows_of(EXPERIMENT, *TINY, *ONE, "--seeds", count) for count in (seeds, 2 * BLOCK))
    assert set(few["seed"]) == set(range(seeds))
    assert of_the_first(seeds, few) == of_the_first(seeds, many)


def test_each_seed_has_random_numbers_of_its_own(rows_of):
    frame = rows_of(EXPERIMENT, *TINY, *ONE, "--seeds", 2 * BLOCK)
    assert frame[frame["update"] == 1]["error_sq"].nunique() == 2 * BLOCK
    other = rows_of(EXPERIMENT, *TINY, *ONE, "--seeds", 2 * BLOCK, "--seed", 1)
    assert not set(frame["error_sq"]) & set(other["error_sq"])


def test_one_stream_for_all_seeds_would_be_seen(rows_of, monkeypatch):
    def from_one_stream(game, curve, seeds, rng):
        return Learner(game, curve, seeds, rng[0])

    monkeypatch.setattr(run, "Learner", from_one_stream)
    monkeypatch.setattr(Cell, "block", lambda cell: range(cell.seeds[0], cell.seeds[-1] + 1))
    few, many = (rows_of(EXPERIMENT, *TINY, *ONE, "--seeds", seeds) for seeds in (3, BLOCK))
    assert of_the_first(3, few) != of_the_first(3, many)


@pytest.mark.parametrize("seeds", [1, BLOCK, 2 * BLOCK + 3])
def test_whole_blocks_are_the_same_cells_whatever_the_number_of_seeds(seeds):
    few, many = cells(Settings(seeds=seeds)), cells(Settings(seeds=4 * BLOCK))
    assert {cell for cell in few if len(cell.seeds) == BLOCK} <= set(many)
    for arm in {cell.curve for cell in few}:
        of_arm = [cell.seeds for cell in few if cell.curve == arm]
        assert [seed for block in of_arm for seed in block] == list(range(seeds))
        assert max(map(len, of_arm)) <= BLOCK
    need = EXPERIMENT.need(Settings(seeds=seeds))
    assert need.cells == len(few)
    assert need.rows == sum(len(cell.names) * len(cell.seeds) for cell in few) * Settings().updates


def test_further_seeds_are_computed_for_the_curves_that_are_needed():
    needs = frozenset({"comp=128 hessian=128", "inner=1024 outer=128"})
    few, many = cells(Settings(seeds=BLOCK + 3)), cells(Settings(seeds=2 * BLOCK))
    further = further_cells(Settings(seeds=BLOCK + 3), range(BLOCK + 3, 2 * BLOCK), needs)
    assert {cell.seeds for cell in further} == {tuple(range(BLOCK + 3, 2 * BLOCK))}
    assert [curve in needs for cell in further for _, curve in cell.names].count(True) == 3
    assert {cell.curve for cell in further} <= {cell.curve for cell in few}
    assert len(further) == len(needs)
    whole = further_cells(Settings(), range(BLOCK, 2 * BLOCK), needs)
    assert set(whole) < set(many)


def test_a_run_goes_on_with_more_seeds_until_its_claims_are_decided(run_app):
    tiny = ("--horizon", 5, "--evaluation-size", 4, "--updates", 50, "--figure", "fig2a", "--run-dir", "run")
    few = ("--curves", "inner=128 outer=128", "inner=exact outer=exact", "--wandb", "disabled")
    quick = replace(EXPERIMENT, figures=lambda *_: {})
    status, error = run_app(quick, *tiny, *few, "--until-decided", "--most-seeds", 2 * BLOCK)
    assert status == 0
    assert "20 seeds: " in error
    frame = pd.read_csv("run/results.csv")
    assert set(frame[frame["curve"] == few[1]]["seed"]) == set(range(2 * BLOCK))
    assert run_app(quick, *tiny, *few, "--run-dir", "plain", "--seeds", 2 * BLOCK)[0] == 0
    plain = pd.read_csv("plain/results.csv")
    pd.testing.assert_frame_equal(*(of[of["curve"] == few[1]].reset_index(drop=True) for of in (frame, plain)))
