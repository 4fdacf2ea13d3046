"""Intervals of `gm_estimators.diagnose` hold the truth as often as they say, where enumeration knows the truth."""

from functools import cache

import jaxtyping
import pytest
import torch
from diagnosis_coverage import CONTROL, coverage
from known_loops import PROBLEMS, Enumerated

from gm_estimators import Sizes, load
from gm_estimators.diagnose.sources import config_of

DIAGNOSES, REPEATS = 100, 32


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Checking shapes would take most of the time."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(("name", "steps"), [("maml", 1), ("lirpg", 3), ("lola", 3)])
def test_the_truth_is_gm_exacts(name, steps):
    known = PROBLEMS[name]()
    loop = known.diagnosis(1, 8).plan.loop
    n = known.inner[steps]
    found, _ = Enumerated(known, Sizes(n, n, 4)).moments(config_of(loop, load("loaded_dice"), ()), steps)
    assert torch.allclose(found, known.exact(steps), rtol=1e-9)


@cache
def covered():
    return coverage(PROBLEMS["maml"](), 1, DIAGNOSES, REPEATS, 0)


def test_intervals_cover():
    """Of 100 intervals of each number at least 88 hold it, where 95 are expected: three standard errors below."""
    for found in covered().values():
        assert min(part for number, part in found.items() if number != CONTROL) >= 0.88, found


def test_intervals_that_take_the_reference_for_exact_do_not_cover():
    assert covered()["lvc"][CONTROL] < 0.88
