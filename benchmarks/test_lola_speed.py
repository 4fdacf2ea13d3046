"""Speed of the batched LOLA path: against the plain loop at equal work, and how its cost grows. `nox -s bench`."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from threads import one_thread  # noqa: F401

import gm_envs_ipd
from gm_experiments.lola import Arm, Game, Learner, measurements_of
from reading import lola

ARM = Arm("inner=128 outer=128", shared=True)


def seconds_per_update(
    seeds: int = 10, size: int = 128, updates: int = 10, *, streams: bool = True, **game: int
) -> float:
    """Processor time of an update: rollouts, both meta-gradients, Adam, critics, the exact metric, the score."""
    arm = replace(ARM, inner=size, hessian=size, outer=size)
    settings = Game(updates=updates, evaluation_size=size, **game)
    of_seeds = [np.random.Generator(np.random.SFC64(seed)) for seed in range(seeds)]
    begin = time.process_time()
    learner = Learner(settings, arm, seeds, of_seeds if streams else of_seeds[0])
    assert len(measurements_of(settings, learner.updates())["score"]) == updates
    return (time.process_time() - begin) / updates


def plain_seconds(size: int, horizon: int = 100) -> float:
    """Processor time of both players' meta-gradients of one seed, step by step."""
    rng = np.random.default_rng(0)
    game = lola.Game(gm_envs_ipd.GAMES["ipd"].payoffs, 0.96)
    policies = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)

    def sample(_role: str, _step: int, at: lola.Policies) -> list[lola.Played]:
        return [lola.Played(lola.play(at, rng.random((horizon, 2)).tolist())) for _ in range(size)]

    begin = time.process_time()
    for learner in (0, 1):
        lola.meta_gradient(game, policies, [[0.0] * 5] * 2, learner, sample, inner_steps=1, inner_lr=0.3, shared=True)
    return time.process_time() - begin


def test_the_batched_path_is_100_times_faster_than_the_plain_loop():
    """An update of ten seeds at equal work, one core each; metric, critic and score only on the batched side."""
    seconds_per_update(updates=3)
    fast = min(seconds_per_update() for _ in range(3))
    few = 8
    slow = min(plain_seconds(few) for _ in range(2)) * 128 / few * 10
    print("\nLOLA-DiCE, inner 128 / outer 128, T = 100, one update of 10 seeds, one core")
    print(f"  plain loop    {slow:9.2f} s")
    print(f"  batched       {fast:9.4f} s")
    print(f"  ratio         {slow / fast:9.0f}")
    assert slow / fast >= 100


def test_a_stream_for_each_seed_costs_a_tenth_of_an_update_at_most():
    """Ten seeds, each with a generator of its own, beside one generator for all."""
    seconds_per_update(updates=3)
    pairs = [(seconds_per_update(streams=True), seconds_per_update(streams=False)) for _ in range(15)]
    each, one = (min(column) for column in zip(*pairs, strict=True))
    print(f"\na generator for each seed {each * 1e3:.2f} ms per update, one for all {one * 1e3:.2f} ms")
    assert each < 1.1 * one


def test_how_the_cost_grows():
    """With trajectories, horizon and seeds."""
    axes: dict[str, list[tuple[int, Callable[[], float]]]] = {
        "trajectories": [(n, lambda n=n: seconds_per_update(size=n)) for n in (32, 128, 512)],
        "horizon": [(n, lambda n=n: seconds_per_update(horizon=n)) for n in (25, 100, 400)],
        "seeds": [(n, lambda n=n: seconds_per_update(seeds=n)) for n in (1, 10, 40)],
    }
    print("\none core, one update; other sizes as in the paper (10 seeds, 128 trajectories, T = 100)")
    print(f"  {'axis':<16}{'value':>8}{'ms per update':>16}")
    for axis, points in axes.items():
        seconds = [work() for _, work in points]
        for (value, _), found in zip(points, seconds, strict=True):
            print(f"  {axis:<16}{value:>8}{found * 1e3:>16.1f}")
        # no worse than proportional to the work
        assert seconds[-1] < 1.5 * points[-1][0] / points[0][0] * seconds[0]
