"""Learning from what acting computed is learning from what it would compute itself, as long as θ is the same."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from gm_estimators.optimisers import adam, adam_state, constant
from gm_mgrl_atari.convolution import convolution, dense
from gm_mgrl_atari.learner import Learner, Point
from gm_mgrl_atari.network import Activations, Network
from gm_mgrl_atari.objectives import INITIAL_LOGITS, fixed_coefficients, policy_estimator, terms
from gm_mgrl_atari.rollouts import Collector

F64 = torch.float64
NETWORK = Network(actions=3, layers=((4, 8, 8), (4, 4, 2)), hidden=8, embedding=2)
MEMORY = (torch.channels_last, torch.contiguous_format)


@pytest.fixture(params=MEMORY)
def collected(which_side, request):
    """A collector that keeps activations or not, and θ."""
    params = NETWORK.init(torch.Generator().manual_seed(0), dtype=F64, memory_format=request.param)

    def of(keep):
        groups = [which_side(2), which_side(3, seed=1)]
        generator = torch.Generator().manual_seed(1)
        return Collector(groups, NETWORK, 3, generator, memory_format=request.param, keep_activations=keep), params

    return of


def spoilt(batch):
    """With other numbers where acting left its own."""
    kept = batch.activations
    return replace(batch, activations=Activations(kept.params, tuple(layer + 0.1 for layer in kept.layers)))


def learner(name):
    return Learner(NETWORK, policy_estimator(name), adam(constant(0.01)))


@pytest.mark.parametrize("estimator", ["lvc", "ad"])
def test_the_meta_gradient_and_the_path_are_the_same(collected, estimator):
    logits = torch.tensor(INITIAL_LOGITS, dtype=F64)

    def window(keep, change=lambda batch: batch):
        collector, params = collected(keep)

        def batch_at(theta, _step):
            batch = collector.collect(theta)
            assert (batch.activations is not None) is keep
            return change(batch)

        return learner(estimator).window(Point(params, adam_state(params)), logits, batch_at, 3)

    kept, again, wrong = window(True), window(False), window(True, spoilt)
    assert_close(kept.meta_gradient, again.meta_gradient, rtol=1e-10, atol=1e-14)
    for ours, theirs in zip(kept.path, again.path, strict=True):
        assert_close(ours.params, theirs.params, rtol=0, atol=1e-12)
    assert (wrong.meta_gradient - again.meta_gradient).norm() > 1e-4 * again.meta_gradient.norm()


def test_an_update_is_the_same(collected):
    fixed = fixed_coefficients(value_coef=0.5, entropy_coef=0.01)
    (kept, _), (again, _), (wrong, _) = (
        learner("ad").update(Point(params, adam_state(params)), change(collector.collect(params)), fixed)
        for change, (collector, params) in (
            (lambda batch: batch, collected(True)),
            (lambda batch: batch, collected(False)),
            (spoilt, collected(True)),
        )
    )
    assert_close(kept.params, again.params, rtol=0, atol=1e-12)
    assert any((wrong.params[name] - value).abs().max() > 1e-6 for name, value in again.params.items())


@pytest.mark.parametrize("how", ["others", "written to"])
def test_at_another_point_they_are_left_alone(collected, how):
    collector, params = collected(True)
    batch, fixed, estimator = collector.collect(params), fixed_coefficients(), policy_estimator("ad")
    moved = {name: value + 0.1 for name, value in params.items()} if how == "others" else params
    if how == "written to":
        params["conv0.weight"].mul_(1.5)
    plain = replace(batch, activations=None)
    assert torch.equal(*(terms(NETWORK, moved, b, fixed, estimator).policy for b in (batch, plain)))
    assert torch.equal(*(terms(NETWORK, moved, b, fixed, estimator).policy for b in (spoilt(batch), plain))) is (
        how == "others"
    )


def test_derivatives_do_not_know_that_the_value_was_given():
    draw = torch.Generator().manual_seed(0)

    def leaves(*shapes):
        return [torch.randn(shape, generator=draw, dtype=F64).requires_grad_() for shape in shapes]

    for function, inputs in (
        (lambda *x, known=None: convolution(*x, 2, known=known), leaves((2, 2, 5, 5), (2, 2, 2, 2), (2,))),
        (dense, leaves((3, 4), (2, 4), (2,))),
    ):
        known = function(*inputs).detach()

        def derivatives(value, function=function, inputs=inputs):
            first = torch.autograd.grad(function(*inputs, known=value).pow(3).sum(), inputs, create_graph=True)
            return first, torch.autograd.grad(sum(g.pow(2).sum() for g in first), inputs)

        assert torch.equal(function(*inputs, known=known + 1), known + 1)
        assert_close(derivatives(known), derivatives(None), rtol=1e-12, atol=1e-12)
