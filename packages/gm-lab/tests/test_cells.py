"""Cells, their seeds, their rows, and how a row is stored."""

import fcntl
import hashlib
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from gm_lab import Context, cell_id, seed_of
from gm_lab.run.cells import checked_rows, describe_cell, sort_key
from gm_lab.run.store import RunDirectory, compute_cell


@dataclass(frozen=True)
class Cell:
    name: str
    sizes: tuple[int, ...] = (1, 2)


def test_identity_is_that_of_the_fields():
    digest = hashlib.sha256(b'{"name": "a", "sizes": [1, 2]}').hexdigest()
    assert cell_id(Cell("a")) == cell_id(Cell("a")) == digest[:16]
    assert len({cell_id(cell) for cell in (Cell("a"), Cell("b"), Cell("a", (1,)), Cell("a", (12,)))}) == 4
    assert describe_cell(Cell("a")) == "name=a sizes=(1, 2)"


def test_seeds_depend_on_the_root_and_the_labels_alone():
    # the values themselves are part of the promise: results must not change with the version
    assert seed_of(0, "mdp", 3) == seed_of(0, "mdp", 3) == 11431922362654378263
    seeds = {seed_of(root, label, index) for root in range(20) for label in ("a", "b") for index in range(20)}
    assert len(seeds) == 800
    assert len({seed_of(0, "a", 1), seed_of(0, "a1"), seed_of(0, "a", "1")}) == 3


def test_rows_become_plain_values():
    (row,) = checked_rows([{"b": np.float32(0.5), "a": np.int64(3)}], ("a", "b"))
    assert list(row.items()) == [("a", 3), ("b", 0.5)]
    assert [type(value) for value in row.values()] == [int, float]


def test_rows_with_other_columns_are_refused():
    with pytest.raises(ValueError, match="columns") as error:
        checked_rows([{"a": 1, "c": 2}], ("a", "b"))
    assert str(error.value) == "expected a row with the columns a, b; missing: b; unknown: c"


@pytest.mark.parametrize(("value", "shown"), [(True, "bool True"), (None, "NoneType None"), ([1], "list [1]")])
def test_values_of_other_types_are_refused(value, shown):
    with pytest.raises(TypeError, match="column a") as error:
        checked_rows([{"a": value}], ("a",))
    assert str(error.value) == f"column a: expected text or a number, got {shown}"


def test_numbers_sort_before_nan_before_text():
    rows = [{"a": value} for value in ("x", float("nan"), 10, 9.5, "all")]
    assert [str(row["a"]) for row in sorted(rows, key=lambda row: sort_key(row, ("a",)))] == [
        "9.5",
        "10",
        "nan",
        "all",
        "x",
    ]


@pytest.fixture
def store(tmp_path):
    (tmp_path / "cells").mkdir()
    return RunDirectory(tmp_path, ("a",), ("a",))


@pytest.mark.parametrize(
    "value", [0.1 + 0.2, 1e-320, 1e300, -0.0, float("nan"), float("inf"), 2**60, 'a "b", c\nd', "nan", "NA", "ü"]
)
def test_values_survive_the_cell_file(store, value):
    store.save(Cell("x"), [{"a": value}])
    ((kept,),) = [row.values() for row in store.load(Cell("x"))]
    assert repr(kept) == repr(value)


def test_a_cell_that_another_process_has_claimed_is_not_computed_twice(store):
    cell, computed = Cell("x"), []
    path = store.cell_path(cell).with_suffix(".claim")

    def run_cell(cell, context):
        computed.append(cell)
        return [{"a": 2}]

    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=compute_cell, args=(store, run_cell, cell, Context()))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        store.save(cell, [{"a": 1}])
    thread.join(5)
    assert not thread.is_alive()
    assert computed == []
    assert store.load(cell) == [{"a": 1}]
    assert not path.exists()
