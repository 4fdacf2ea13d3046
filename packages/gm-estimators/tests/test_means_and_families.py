"""Means over repeats, and who shares sampled inner steps with whom."""

import torch
from torch.testing import assert_close

from gm_estimators import load
from gm_estimators.metrics import accuracy, correlation, summary

F64 = torch.float64


def test_the_accuracy_of_a_summary_is_the_mean_of_the_repeats_own():
    x, y = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=F64), torch.ones(2, 4, dtype=F64)
    y = y * torch.tensor([1.0, 2.0, -1.0, 0.5])
    found = summary(x, y)
    for i in range(2):
        for name, metric in {"accuracy": accuracy, "correlation": correlation}.items():
            assert_close(found[name][i], torch.stack([metric(each, y[i]) for each in x[i]]).mean())
    assert (found["accuracy"] - accuracy(x.mean(-2), y)).abs().max() > 1e-2


def test_estimators_with_other_first_derivatives_share_no_inner_steps():
    """A critic that is learnt, or advantages of a τ of their own, give another gradient on the same trajectories."""
    apart = ["lvc", "dice", "tmaml", "lvc+learnt", "dice+learnt", "loaded_dice@0.5,0.9", "loaded_dice@0.5,0.3"]
    assert len({load(name).gradient_family for name in apart}) == len(apart)
    same = ["lvc", "ad", "loaded_dice", "loaded_dice@0.5", "vtrace", "lvc+jackknife", "ad+correction"]
    assert len({load(name).gradient_family for name in same}) == 1
