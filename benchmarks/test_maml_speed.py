"""Speed of the batched MAML path: against the plain loop at equal work, and how its cost grows. `nox -s bench`."""

import time
from collections.abc import Callable

import numpy as np
import torch
from threads import one_thread  # noqa: F401

import gm_envs_tabular
import gm_estimators
from gm_experiments.common import mdps as tabular
from gm_experiments.common.settings import Cell, Grid, Tabular
from reading import maml
from reading.mdp import MDP


def best_of(runs: int, work: Callable[[], object]) -> float:
    """The shortest of several wall times, in seconds: what the machine does when left alone."""
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def batched(*, size: int = 256, steps: int = 1, mdps: int = 10, **flags: int) -> Callable[[], object]:
    """One estimate SSS by LVC in every repeat of every MDP, random numbers and exact critics included."""
    grid = Grid(("lvc",), ("SSS",), (size,), (steps,))
    cell = Cell(0, tuple(range(mdps)), steps, 10.0, (("bench", grid),), Tabular(**flags))

    def work() -> object:
        drawn, lvc = tabular.RandomMDPs(cell, "cpu"), gm_estimators.load("lvc")
        problem = tabular.maml(drawn, drawn.zeros())
        return gm_estimators.decompose(problem, [lvc], permutations=["SSS"], sizes=[size], **cell.terms)

    return work


def plain(size: int = 256) -> Callable[[], object]:
    """One estimate SSS by LVC in one MDP, step by step; drawing its random numbers is not counted."""
    generator = torch.Generator().manual_seed(0)
    transition, reward = gm_envs_tabular.random_mdp(np.random.default_rng(0))
    problem = MDP(transition, reward, 0.8)
    randomness = [
        maml.Randomness(
            torch.rand(size, 20, dtype=torch.float64, generator=generator).tolist(),
            torch.randn(20, dtype=torch.float64, generator=generator),
        )
        for _ in range(3)
    ]

    def work() -> object:
        draws = iter(randomness)
        return maml.meta_gradient(
            problem,
            torch.zeros(20, 5, dtype=torch.float64),
            lambda _role, _step: next(draws),
            estimator="lvc",
            permutation="SSS",
            inner_steps=1,
            inner_lr=10.0,
        )

    return work


def test_the_batched_path_is_3000_times_faster_than_the_plain_loop():
    """At equal work and on one core each."""
    problems = 200
    batched()()
    fast = best_of(15, batched())
    slow = best_of(4, plain())
    ratio = slow * problems / fast
    steps = 3 * 256 * 20
    print(f"\nSSS, LVC, 256 trajectories, K = 1, 20 states, one core; {problems} problems (10 MDPs × 20 repeats)")
    print(f"  plain loop    {slow * problems:9.2f} s   {slow / steps * 1e9:9.0f} ns per trajectory step")
    print(f"  batched       {fast:9.4f} s   {fast / problems / steps * 1e9:9.1f} ns per trajectory step")
    print(f"  ratio         {ratio:9.0f}")
    assert ratio >= 3000


def test_how_the_cost_grows():
    """With states, trajectories, inner steps and repeats."""
    axes: dict[str, list[tuple[str, Callable[[], object], int]]] = {
        "states": [(str(n), batched(states=n), 256 * 3) for n in (10, 20, 40, 80)],
        "trajectories": [(str(n), batched(size=n), n * 3) for n in (16, 64, 256, 1024)],
        "inner steps K": [(str(k), batched(steps=k, size=64), 64 * (2 * k + 1)) for k in (1, 2, 4, 8)],
        "repeats": [(str(n), batched(repeats=n), 256 * 3) for n in (5, 20, 80)],
    }
    print("\none core, SSS, LVC; other sizes as in the paper (20 states, 256 trajectories, 10 × 20 problems)")
    print(f"  {'axis':<16}{'value':>8}{'seconds':>12}{'ns per trajectory step':>26}")
    for axis, points in axes.items():
        seconds = []
        for value, work, trajectories in points:
            work()
            seconds.append(best_of(3, work))
            problems = 10 * (int(value) if axis == "repeats" else 20)
            nanoseconds = seconds[-1] / (problems * trajectories * 20) * 1e9
            print(f"  {axis:<16}{value:>8}{seconds[-1]:>12.4f}{nanoseconds:>26.1f}")
        # no worse than proportional to the work, beside what a call costs
        assert seconds[-1] < 2 * float(points[-1][0]) / float(points[0][0]) * seconds[0] or axis == "states"
