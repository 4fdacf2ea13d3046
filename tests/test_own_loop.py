"""benchmarks/own_loop.py: what it compares is the same meta-gradient."""

import own_loop
import pytest


@pytest.fixture(scope="module")
def given():
    return own_loop.given(2, 3)


@pytest.fixture(scope="module")
def expected(given):
    return own_loop.plain_autograd(*given)


@pytest.mark.parametrize("name", own_loop.WAYS)
def test_every_way_gives_the_same_meta_gradient(name, given, expected):
    found = own_loop.WAYS[name](*given)
    assert own_loop.apart(found, expected) < 1e-12


def test_another_learning_rate_is_seen(given, expected, monkeypatch):
    monkeypatch.setattr(own_loop, "RATE", 1.001 * own_loop.RATE)
    assert own_loop.apart(own_loop.gm_estimators(*given), expected) > 1e-7


def test_lines_are_those_to_be_written():
    assert own_loop.lines(own_loop.vmapped) == 2
