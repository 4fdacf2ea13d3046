"""Shares as means over orders, and those of a whole problem from what `decompose` gives."""

import importlib.util
import sys
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import Sizes, decompose, exact_meta_gradient, load, metrics
from gm_estimators.attribution import AdamDistortion, attribution, permutation_of, permutations_of, shapley, subsets

F64 = torch.float64
PATH = Path(__file__).with_name("toy_problem.py")
SPEC = importlib.util.spec_from_file_location("gm_estimators_toy_problem", PATH)
toy = sys.modules.get(SPEC.name) or importlib.util.module_from_spec(SPEC)
if SPEC.name not in sys.modules:
    sys.modules[SPEC.name] = toy
    SPEC.loader.exec_module(toy)


def by_orders(value, sources):
    """The mean over all orders of what each source adds to those before it."""
    orders = list(permutations(sources))
    found = dict.fromkeys(sources, 0)
    for order in orders:
        for i, source in enumerate(order):
            before = frozenset(order[:i])
            found[source] = found[source] + (value[before | {source}] - value[before]) / len(orders)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_share_is_the_mean_over_all_orders(count):
    sources, draw = [f"s{i}" for i in range(count)], torch.Generator().manual_seed(count)
    value = {some: torch.randn(2, generator=draw, dtype=F64) for some in subsets(sources)}
    shares, expected = shapley(value, sources), by_orders(value, sources)
    for source in sources:
        assert_close(shares[source], expected[source], rtol=1e-12, atol=1e-12)
    assert_close(sum(shares.values()), value[frozenset(sources)] - value[frozenset()])


def test_permutations_of_sources():
    assert permutation_of({"composition", "outer", "critic"}) == "SES"
    assert permutation_of(set()) == "EEE"
    assert permutations_of(("hessian",)) == ["ESE"]
    assert set(permutations_of(("composition", "hessian"))) == {"SEE", "ESE", "SSE"}


def test_the_shares_of_a_problem_are_those_of_its_estimates():
    terms = {"inner_steps": 2, "inner_lr": 0.2}

    def problem(practice):
        assert practice <= {"critic"}
        return toy.Toy("phi", batch=(2, 4), critic_error=0.7 * ("critic" in practice))

    sources = ("composition", "hessian", "critic", "shared_batch")
    found = attribution(
        problem, load("lvc"), estimated=sources[:2], extras=sources[2:], sample_size=3, **terms
    )  # fmt: skip
    truth = exact_meta_gradient(problem(frozenset()), **terms)[:, 0]
    bias, spread = {}, {}
    for some in subsets(sources):
        estimates = truth.unsqueeze(1).expand(2, 4, 3)
        if letters := permutation_of(some).replace("EEE", ""):
            size = Sizes.each(3, shared="shared_batch" in some)
            given = problem(some & {"critic"})
            estimates = decompose(given, [load("lvc")], permutations=[letters], sizes=[size], **terms)[
                "lvc", letters, size
            ]
        bias[some], spread[some] = metrics.bias_sq(estimates, truth), metrics.variance(estimates)
    for measure, value in {"bias_sq": bias, "variance": spread}.items():
        for source, share in by_orders(value, sources).items():
            assert_close(found[measure][source], share, rtol=1e-10, atol=1e-12)
        assert all(share.abs().max() > 1e-6 for share in found[measure].values())


def test_adam_after_some_gradients_has_their_moments():
    ys = [torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([0.5, 4.0], dtype=F64)]
    state = AdamDistortion.after(ys, torch.tensor([1.0, 1.0], dtype=F64))
    assert_close(state.first, 0.9 * 0.1 * ys[0] + 0.1 * ys[1])
    assert_close(state.second, 0.999 * 0.001 * ys[0] ** 2 + 0.001 * ys[1] ** 2)
    assert state.count == 3
