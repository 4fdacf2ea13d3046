"""Intervals of `gm_estimators.diagnose` hold the truth as often as they say, where enumeration knows the truth."""

from functools import cache
from statistics import median

import jaxtyping
import pytest
import torch
from diagnosis_coverage import CONTROL, coverage
from known_loops import PROBLEMS, Enumerated, part

from gm_estimators import Sizes, load
from gm_estimators.diagnose.measured import repeats_to_tell, verdict
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


def test_the_repeats_that_would_tell_are_in_the_range_that_is_said():
    """What 32 repeats foretell of the intervals of 128: in 15 of 20 at least, where about 18 are expected."""
    report = PROBLEMS["maml"]().diagnosis(1, 1024, surrogate="lvc")
    loop, lvc = report.plan.loop, load("lvc")

    def parts(repeats, count):
        return [part(report.sampled, slice(i * repeats, (i + 1) * repeats)) for i in range(count)]

    found = [verdict(each, loop, lvc).bias_sq for each in parts(128, 8)]
    half = median((high - low) / 2 for _, low, high in found)
    foretold = [repeats_to_tell(each, loop, lvc, half) for each in parts(32, 20)]
    assert sum(least <= 128 <= most for _, least, most in foretold) >= 15
    assert median(most / least for _, least, most in foretold) < 16  # not any range
    assert sum(64 <= about <= 256 for about, _, _ in foretold) >= 10
