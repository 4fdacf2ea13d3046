import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gm_estimators.optimisers import adam_state
from gm_mgrl_atari import AtariGames, Collector, Point, Training, study, throughput


@pytest.fixture
def measured(network, params, logits, random_batch):
    """Quality on windows of random batches, of the tiny network in float64."""

    class Drawn:
        def __init__(self):
            self.seed, self.precision = 0, set()

        def collect(self, theta):
            self.seed += 1
            self.precision.add((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
            return random_batch(self.seed)

    def measure(count=5):
        training = Training(inner_lr=0.02, max_grad_norm=0.05)
        point = Point(params, adam_state(params))
        collector = object.__new__(Collector)
        drawn = Drawn()
        collector.collect = drawn.collect
        measure.precision = drawn.precision
        return study.measure(training, network, point, logits, collector, count=count)

    return measure


def test_a_study_computes_with_all_of_float32(measured, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    measured(count=2)
    assert measured.precision == {(False, "highest")}


def test_variants_differ_where_they_should(measured):
    found = measured()
    assert list(found) == [variant.name for variant in study.VARIANTS]
    assert found["loaded_dice"].bias_sq == (0, 0, 0)
    assert found["lvc"].change == (0, 0, 0)
    assert found["ad"].distance == found["ad, K=1"].distance == 0
    assert found["lvc, K=1"].distance < 1e-12
    assert found["lvc"].distance > 1e-4
    assert found["ad, K=1"].mean == pytest.approx(found["lvc, K=1"].mean, rel=1e-9)
    means = {name: quality.mean for name, quality in found.items() if name != "ad, K=1"}
    assert len({tuple(np.round(mean, 12)) for mean in means.values()}) == len(means)
    assert all(
        -1 <= quality.accuracy.low <= quality.accuracy.value <= quality.accuracy.high <= 1 for quality in found.values()
    )
    assert all(quality.variance.value > 0 for quality in found.values())
    for name in ("lvc, clipping differentiated", "lvc, one batch for all", "lvc, plain ascent"):
        assert found[name].change.high > 0
        assert found[name].change.low <= found[name].change.value <= found[name].change.high


def test_what_is_measured_is_what_the_formulas_say(network, params, logits, random_batch):
    """Two variants by hand: bias of the difference on the same windows without its variance, leave-one-out cosine."""
    training, point = Training(inner_lr=0.02, max_grad_norm=0.05), Point(params, adam_state(params))
    drawn = [[random_batch(10 * w + i) for i in range(4)] for w in range(5)]
    variants = study.VARIANTS[:3:2]
    reference, ad = (study.windows(v, training, network, point, logits, drawn).numpy() for v in variants)
    flat = iter([batch for batches in drawn for batch in batches])
    collector = object.__new__(Collector)
    collector.collect = lambda theta: next(flat)
    found = study.measure(training, network, point, logits, collector, count=5, variants=variants)["ad"]
    difference = ad - reference
    spread = difference.var(0, ddof=1).sum()
    assert found.bias_sq.value == pytest.approx((difference.mean(0) ** 2).sum() - spread / 5)
    assert found.variance.value == pytest.approx(ad.var(0, ddof=1).sum())
    without = [np.delete(ad, w, axis=0).var(0, ddof=1).sum() for w in range(5)]
    half = 2.7764 * np.sqrt(4 / 5 * ((without - np.mean(without)) ** 2).sum())  # Student's t, 4 degrees of freedom
    assert (found.variance.low, found.variance.high) == pytest.approx(
        (found.variance.value - half, found.variance.value + half), rel=1e-4
    )
    assert math.isnan(found.change.value)
    cosines = []
    for w in range(5):
        others = np.delete(reference, w, axis=0).mean(0)
        cosines.append(ad[w] @ others / np.linalg.norm(ad[w]) / np.linalg.norm(others))
    assert found.accuracy.value == pytest.approx(np.mean(cosines))


def test_beside_lvc_a_variant_is_compared_window_by_window(network, params, logits, random_batch):
    """Cosines with LVC's of the same windows, and deviations beside its; plain ascent has windows of its own."""
    training, point = Training(inner_lr=0.02, max_grad_norm=0.05), Point(params, adam_state(params))
    drawn = [[random_batch(10 * w + i) for i in range(4)] for w in range(5)]
    lvc, ad = (study.windows(v, training, network, point, logits, drawn).numpy() for v in study.VARIANTS[1:3])
    flat = iter([batch for batches in [*drawn, *drawn] for batch in batches])
    collector = object.__new__(Collector)
    collector.collect = lambda theta: next(flat)
    parts = []
    variants = (*study.VARIANTS[1:3], study.VARIANTS[-1])
    found = study.measure(
        training, network, point, logits, collector, count=5, variants=variants, on_part=parts.append
    )  # fmt: skip
    cosines = (ad * lvc).sum(1) / np.linalg.norm(ad, axis=1) / np.linalg.norm(lvc, axis=1)
    half = 2.7764 * cosines.std(ddof=1) / np.sqrt(5)
    assert found["ad"].same == pytest.approx((cosines.mean(), cosines.mean() - half, min(1, cosines.mean() + half)))
    deviations = [np.sqrt(x.var(0, ddof=1).sum()) for x in (ad, lvc)]
    assert found["ad"].spread.value == pytest.approx(deviations[0] / deviations[1])
    assert found["ad"].spread.low < found["ad"].spread.value < found["ad"].spread.high
    assert found["lvc"].same == pytest.approx((1, 1, 1))
    assert found["lvc"].spread == (1, 1, 1)
    assert math.isnan(found["lvc, plain ascent"].same.value)
    assert found["lvc, plain ascent"].spread.high < 1
    assert parts == [1 / 3, 2 / 3, 1]


def test_change_is_relative_to_the_reference(network, params, logits, random_batch):
    """By hand for AD against LVC: the square of the mean difference without its variance, over that of the mean."""
    training, point = Training(inner_lr=0.02, max_grad_norm=0.05), Point(params, adam_state(params))
    drawn = [[random_batch(10 * w + i) for i in range(4)] for w in range(6)]
    reference, lvc, ad = (study.windows(v, training, network, point, logits, drawn).numpy() for v in study.VARIANTS[:3])
    flat = iter([batch for batches in drawn for batch in batches])
    collector = object.__new__(Collector)
    collector.collect = lambda theta: next(flat)
    found = study.measure(training, network, point, logits, collector, count=6, variants=study.VARIANTS[:3])

    def square(x):
        return (x.mean(0) ** 2).sum() - x.var(0, ddof=1).sum() / len(x)

    expected = square(ad - lvc) / (reference.mean(0) ** 2).sum()
    assert expected > 0
    assert found["ad"].change.value == pytest.approx(math.sqrt(expected))


def test_windows_that_reach_the_end_of_training_are_refused(network, params, logits):
    """Where the last step's learning rate is 0, Adam's meta-gradients are 0 or without the last step."""
    training = Training(updates=80)
    assert study.last_point(training) == 77
    state = replace(adam_state(params), step=78)
    collector = object.__new__(Collector)
    with pytest.raises(ValueError, match=r"point: expected at most 77 of 80 updates, .*, got 78"):
        study.measure(training, network, Point(params, state), logits, collector, count=2)


def test_one_window_has_no_variance(measured):
    with pytest.raises(ValueError, match="count: expected at least 2 windows, got 1"):
        measured(count=1)


def test_rates_of_the_emulator_and_of_the_learner():
    emulator = throughput.emulator_rate([AtariGames("Alien", 2, 0, threads=1)], seconds=0.2)
    training = Training(algorithm="a2c", envs=2, steps=2)
    learner = throughput.learner_rate(training, 6, seconds=0.2)
    assert 10 < emulator < 1e6
    assert 1 < learner < 1e6
    # the probe goes on after the run's last update
    online = Training(schedule="online", envs=1, steps=1, inner_steps=2, updates=2)
    assert throughput.learner_rate(online, 3, seconds=0.2) > 0
    assert math.isnan(throughput.learner_rate(Training(envs=1, steps=1, inner_lr=1e30), 3, seconds=0.2))
    still = throughput.Still(2, 6)
    assert np.array_equal(still.reset(), still.receive().observation)
    assert not math.isnan(still.receive().reward.sum())
