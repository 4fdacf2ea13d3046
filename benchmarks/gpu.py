"""What a GPU does for this project, in at most eight minutes: `uv run benchmarks/gpu.py --device cuda --out gpu`.

In this order: does it compute what the CPU computes; how much faster are exact solutions and the apps; what could the
learner of MGRL gain from CUDA graphs, bfloat16 and compilation; emulator, learner and whole on Atari; then, with what
time is left, training. After each step `figures.json` and `page.md` hold all that is known, so that a machine that is
taken away loses nothing. A step that fails says why and the next one begins.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

import gm_envs_ipd
import gm_envs_tabular
import gm_estimators as estimators
import gm_exact
import gm_mgrl_atari as mgrl
from gm_estimators.parameters import gradient
from gm_estimators.surrogates import Trajectories, mean_surrogate
from gm_mgrl_atari import AtariGames, Collector, Learner, Network, Point, Trainer, Training
from gm_mgrl_atari.throughput import Still, emulator_rate, learner_rate

Figures = dict[str, Any]
Step = Callable[["Machine"], Figures]
STATES, ACTIONS = 20, 5


class Machine:
    """The device that is measured, how long a measurement takes, and how large it is."""

    def __init__(self, device: str, seconds: float, small: bool) -> None:
        self.device, self.seconds, self.small = torch.device(device), seconds, small

    def wait(self) -> None:
        """Until the device has done all that it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def per_second(self, work: Callable[[], object]) -> float:
        """How often `work` is done in a second, after some times that do not count."""
        for _ in range(1 if self.small else 3):
            work()
        self.wait()
        done, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < self.seconds or not done:
            work()
            done += 1
            if self.small or done % 5 == 0:
                self.wait()
        self.wait()
        return done / (time.perf_counter() - begin)


def machine(at: Machine) -> Figures:
    """What is measured here."""
    gpu = torch.cuda.get_device_name(at.device) if at.device.type == "cuda" else "none"
    return {"gpu": gpu, "cores": os.cpu_count(), "torch": torch.__version__, "python": sys.version.split()[0]}


def agreement(at: Machine) -> Figures:
    """Largest difference from the CPU, relative to the largest number, in float64 where no other format is named.

    Adam's first steps divide by the gradient's size, so that MGRL's first window answers to the last digits. The last
    row has how far it moves on the CPU alone when θ is rounded to TF32, torch's default in convolutions on a GPU.
    """
    cpu = torch.device("cpu")
    functions: dict[str, Callable[[torch.device], torch.Tensor]] = {
        "exact policy gradient": lambda on: gm_exact.gradient(tabular(10, on), theta(10, on)),
        "exact Hessian": lambda on: gm_exact.hessian(tabular(3, on), theta(3, on)),
        "exact meta-gradient of MAML": lambda on: maml(10, on),
        "exact meta-gradient of LOLA": lambda on: lola(10, on),
        "rollouts of the prisoner's dilemma": lambda on: played(100, on).double(),
        "rollouts of random MDPs": lambda on: travelled(100, on).double(),
        "meta-gradient of MGRL": lambda on: window(on, dtype=torch.float64, hidden=64)(),
        "meta-gradient of MGRL, float32": lambda on: with_tf32(False, window(on, hidden=64)).double(),
        "meta-gradient of MGRL, TF32": lambda on: with_tf32(True, window(on, hidden=64)).double(),
    }
    functions |= {f"gradient of {name}": surrogate_gradient(name) for name in ("ad", "dice", "loaded_dice", "lvc")}

    def difference(function: Callable[[torch.device], torch.Tensor]) -> float:
        ours, theirs = function(cpu), function(at.device).cpu()
        return float((ours - theirs).abs().max() / ours.abs().max())

    rows: Figures = {name: difference(function) for name, function in functions.items()}
    exactly, roughly = window(cpu, hidden=64)(), window(cpu, hidden=64, rounded=True)()
    return rows | {
        "meta-gradient of MGRL, CPU, θ as TF32": float((exactly - roughly).abs().max() / exactly.abs().max())
    }


def exact(at: Machine) -> Figures:
    """Exact solutions a second, on the CPU's cores and on the device, by the number that is solved at once."""
    rows: Figures = {}
    sizes = (1, 10) if at.small else (10, 1_000, 5_000)
    for name, function in {"MAML meta-gradient, K = 3": maml, "LOLA meta-gradient, K = 3": lola}.items():
        for size in sizes:
            rates = [size * at.per_second(partial(function, size, on)) for on in (torch.device("cpu"), at.device)]
            rows[f"{name}, {size} at once"] = {"cpu": rates[0], "device": rates[1], "factor": rates[1] / rates[0]}
    return rows


def apps(at: Machine) -> Figures:
    """Seconds of whole processes with one worker, on the CPU's cores and on the device, and how far results differ."""
    rows: Figures = {}
    mdps = (2,) if at.small else (10, 200)
    for count in mdps:
        flags = ["--figure", "fig4", "--mdps", str(count), "--wandb", "disabled", "--workers", "1"]
        with tempfile.TemporaryDirectory() as folder:
            seconds, results = [], []
            for device in ("cpu", str(at.device)):
                run = Path(folder) / f"{len(results)}"
                begin = time.perf_counter()
                app("maml_tabular", *flags, "--device", device, "--run-dir", str(run))
                seconds.append(time.perf_counter() - begin)
                results.append(pd.read_csv(run / "results.csv").select_dtypes("number"))
        apart = ((results[0] - results[1]).abs().max() / results[0].abs().max()).max()
        factor = seconds[0] / seconds[1]
        rows[f"MAML Figure 4, {count} MDPs"] = {"cpu": seconds[0], "device": seconds[1], "factor": factor,
                                                "difference": float(apart)}  # fmt: skip
    return rows


def app(name: str, *flags: str) -> None:
    """An app as its users run it; raises `RuntimeError` with its last line unless it ends well."""
    path = Path(__file__).parents[1] / "apps" / f"{name}.py"
    ended = subprocess.run([sys.executable, str(path), *flags], capture_output=True, text=True, check=False, timeout=90)
    if ended.returncode:
        raise RuntimeError(f"{name} ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-1]}")


def learner(at: Machine) -> Figures:
    """Acting, A2C gradients and MGRL windows a second, as they are and as they could be, on experience held fixed.

    Captured ones leave out the check for NaN, which waits for a number. A CUDA graph repeats what was recorded.
    """
    rows: Figures = {}
    for envs in (2,) if at.small else (64, 256):
        for name, function in {"acting": acting, "A2C gradient": a2c, "MGRL window": window}.items():
            for kind, wrapped in KINDS.items():
                if kind != "eager" and at.device.type != "cuda":
                    continue
                dtype = torch.bfloat16 if "bfloat16" in kind else torch.float32
                label = f"{name}, {envs} environments, {kind}"
                try:
                    with mock.patch("gm_mgrl_atari.learner.require_finite"):
                        rows[label] = at.per_second(wrapped(function(at.device, envs, dtype)))
                except (RuntimeError, TypeError, ValueError) as error:
                    rows[label] = f"failed: {str(error).strip().splitlines()[0][:120]}"
    return rows


def compiled(at: Machine) -> Figures:
    """Acting and A2C gradients a second with `torch.compile`, and the seconds that compiling takes."""
    rows: Figures = {}
    for name, function in {"acting": acting, "A2C gradient": a2c}.items():
        begin = time.perf_counter()
        try:
            work = torch.compile(function(at.device, 2 if at.small else 64, torch.float32))
            work()
            at.wait()
            rows[name] = {"seconds to compile": time.perf_counter() - begin, "a second": at.per_second(work)}
        except Exception as error:  # whatever a compiler raises is its answer
            rows[name] = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
    return rows


def atari(at: Machine) -> Figures:
    """Environment steps a second: the emulator alone, the learner alone, the whole, in one and in two groups."""
    cores = os.cpu_count() or 1
    rows: Figures = {}
    for envs in (4,) if at.small else (64, 256):
        for groups in (1,) if at.small else (1, 2):
            games = [AtariGames("Qbert", envs // groups, group, cores) for group in range(groups)]
            emulator = emulator_rate(games, at.seconds)
            for algorithm in ("mgrl-lvc",) if at.small else ("a2c", "mgrl-lvc"):
                training = Training(algorithm=algorithm, schedule="online", envs=envs, updates=10**9)
                alone = learner_rate(training, games[0].actions, at.seconds, device=at.device)
                trainer = Trainer(training, games, device=at.device)
                trainer.step()
                emulated, begin = trainer.progress.emulated, time.perf_counter()
                while time.perf_counter() - begin < 2 * at.seconds:
                    trainer.step()
                whole = (trainer.progress.emulated - emulated) / (time.perf_counter() - begin)
                rows[f"{algorithm}, {envs} environments, groups: {groups}"] = {
                    "emulator": emulator, "learner": alone, "whole": whole,
                }  # fmt: skip
    return rows


def training(at: Machine, env_steps: int = 3_000_000, seconds: float = 60.0) -> Figures:
    """Returns after as many environment steps as fit into the time, 64 environments, one seed: no verdict."""
    rows: Figures = {}
    for algorithm in ("a2c", "mgrl-lvc"):
        envs = 4 if at.small else 64
        settings = Training(algorithm=algorithm, schedule="online", envs=envs, updates=env_steps // (5 * envs))
        trainer = Trainer(settings, [AtariGames("Qbert", envs, 0, os.cpu_count() or 1)], device=at.device)
        begin = time.perf_counter()
        end = begin + (at.seconds if at.small else seconds)
        log: list[dict[str, int | float]] = []
        with contextlib.suppress(TimeoutError):
            trainer.run(log_every=1 if at.small else 500, on_row=partial(until, end, log))
        last = log[-1]
        rows[algorithm] = {"steps": last["emulated_steps"], "seconds": time.perf_counter() - begin,
                           "return": last["episode_return"], "episodes": last["episodes"]}  # fmt: skip
    return rows


def until(end: float, log: list[dict[str, int | float]], row: dict[str, int | float]) -> None:
    """Keeps a row of the log, and ends training once the time is up."""
    log.append(row)
    if time.perf_counter() > end:
        raise TimeoutError


def tabular(count: int, on: torch.device) -> gm_exact.TabularMDP:
    """Random MDPs."""
    draw = torch.Generator().manual_seed(0)
    transition = torch.rand(count, STATES, ACTIONS, STATES, generator=draw, dtype=torch.float64).pow(8)
    reward = torch.randn(count, STATES, ACTIONS, generator=draw, dtype=torch.float64)
    return gm_exact.TabularMDP.unchecked((transition / transition.sum(-1, keepdim=True)).to(on), reward.to(on), 0, 0.9)


def theta(count: int, on: torch.device) -> torch.Tensor:
    """Parameters of their policies."""
    return torch.randn(count, STATES, ACTIONS, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(on)


def maml(count: int, on: torch.device, kept: dict[Any, Any] = {}) -> torch.Tensor:  # noqa: B006 (drawn once)
    """Exact meta-gradients through three steps."""
    mdps, params = kept.setdefault((count, on), (tabular(count, on), theta(count, on)))
    return gm_exact.maml_meta_gradient(mdps, params, inner_lr=0.5, inner_steps=3)


def lola(count: int, on: torch.device) -> torch.Tensor:
    """Exact three-look-ahead meta-gradients of both players."""
    params = torch.randn(count, 2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(on)
    payoffs = gm_envs_ipd.GAMES["ipd"].tensor().to(on)
    found = gm_exact.lola_meta_gradient(payoffs, params, discount=0.96, inner_lr=0.3, inner_steps=3)
    return torch.cat([part.flatten() for part in found])


def played(count: int, on: torch.device) -> torch.Tensor:
    """Joint actions of two players."""
    numbers = gm_envs_ipd.draws(np.random.default_rng(0), (count,), 64, 50, on)
    params = torch.randn(count, 2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(on)
    return gm_envs_ipd.rollout(params, numbers)


def travelled(count: int, on: torch.device) -> torch.Tensor:
    """States that policies pass."""
    mdps = tabular(count, on)
    uniform = gm_envs_tabular.uniforms(np.random.default_rng(0), (count,), 64, 20, on)
    policy = theta(count, on).softmax(-1)
    return gm_envs_tabular.rollout(policy, gm_envs_tabular.successors(mdps.transition), uniform)[0]


def surrogate_gradient(name: str) -> Callable[[torch.device], torch.Tensor]:
    """The gradient of an estimator's mean surrogate in the log-probabilities."""

    def function(on: torch.device) -> torch.Tensor:
        draw = torch.Generator().manual_seed(4)
        log_prob, reward = (torch.randn(8, 64, 20, generator=draw, dtype=torch.float64).to(on) for _ in range(2))
        value = torch.randn(8, 64, 21, generator=draw, dtype=torch.float64).to(on)
        log_prob.requires_grad_()
        seen = Trajectories(
            log_prob=log_prob, reward=reward, discount=0.9 ** torch.arange(21, device=on).double(),
            value=value, advantage=reward,
        )  # fmt: skip
        return torch.autograd.grad(mean_surrogate(estimators.load(name).surrogate, seen).sum(), log_prob)[0]

    return function


def experience(
    on: torch.device, envs: int, dtype: torch.dtype, hidden: int = 512
) -> tuple[Learner, Point, list[Any], torch.Tensor]:
    """A learner, its θ, four batches drawn on the CPU and put where they are needed, and φ."""
    settings = Training(envs=envs)
    network = Network(6, hidden=hidden)
    params = network.init(torch.Generator().manual_seed(0))
    drawn = torch.Generator().manual_seed(1)
    collector = Collector([Still(envs, 6)], network, settings.steps, drawn, keep_activations=False)
    names = ("observation", "action", "reward", "terminated", "truncated", "valid")

    def moved() -> Any:
        batch = collector.collect(params)
        return type(batch)(**{name: getattr(batch, name).to(on) for name in names})

    there = {name: value.to(on, dtype) for name, value in params.items()}
    state = estimators.optimisers.adam_state(there)
    made = settings.learner(network)
    outer = type(mgrl.fixed_coefficients())(*(value.to(on, dtype) for value in mgrl.fixed_coefficients()))
    ours = Learner(network, made.estimator, made.rule, outer)
    return (
        ours,
        Point(there, state),
        [moved() for _ in range(4)],
        torch.tensor(mgrl.INITIAL_LOGITS, device=on, dtype=dtype),
    )


def acting(on: torch.device, envs: int = 2, dtype: torch.dtype = torch.float32) -> Callable[[], torch.Tensor]:
    """The policy of every environment."""
    ours, point, batches, _ = experience(on, envs, dtype)
    frames = batches[0].observation[:, 0].contiguous(memory_format=torch.channels_last)

    def work() -> torch.Tensor:
        with torch.no_grad():
            return ours.network.policy(point.params, frames)

    return work


def a2c(on: torch.device, envs: int = 2, dtype: torch.dtype = torch.float32) -> Callable[[], torch.Tensor]:
    """The gradient of A2C's objective."""
    ours, point, batches, logits = experience(on, envs, dtype)
    fixed = mgrl.coefficients(logits)

    def work() -> torch.Tensor:
        leaves = {name: value.detach().requires_grad_() for name, value in point.params.items()}
        parts = mgrl.terms(ours.network, leaves, batches[0], fixed, ours.estimator)
        return gradient(mgrl.combined(parts, fixed), leaves)["conv0.weight"]

    return work


def window(
    on: torch.device, envs: int = 2, dtype: torch.dtype = torch.float32, hidden: int = 512, rounded: bool = False
) -> Callable[[], torch.Tensor]:
    """The meta-gradient through three updates."""
    ours, point, batches, logits = experience(on, envs, dtype, hidden)
    if rounded:
        point = Point({name: as_tf32(value) for name, value in point.params.items()}, point.optimiser)
    return lambda: ours.window(point, logits, lambda _params, step: batches[step], 3).meta_gradient


def as_tf32(value: torch.Tensor) -> torch.Tensor:
    """float32 numbers with the ten bits after the point that TensorFloat-32 keeps."""
    mantissa, exponent = torch.frexp(value)
    return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)


def with_tf32(allowed: bool, work: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `work` gives with or without TensorFloat-32 in convolutions."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, allowed
    try:
        return work()
    finally:
        torch.backends.cudnn.allow_tf32 = before


def plain(work: Callable[[], torch.Tensor]) -> Callable[[], object]:
    """As it is."""
    return work


def captured(work: Callable[[], torch.Tensor]) -> Callable[[], object]:
    """Recorded once as a CUDA graph, then replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


KINDS = {"eager": plain, "bfloat16": plain, "CUDA graph": captured, "CUDA graph, bfloat16": captured}
STEPS: dict[str, Step] = {
    step.__name__: step for step in (machine, agreement, exact, apps, learner, atari, compiled, training)
}


def page(figures: Figures) -> str:
    """The figures as Markdown."""
    lines = ["# On a GPU", ""]
    for name, found in figures.items():
        lines += [f"## {name}", "", " ".join((STEPS[name].__doc__ or "").split("\n\n")[0].split()), ""]
        lines += [f"{found.pop('seconds'):.0f} s." if "seconds" in found else "", ""]
        columns = list(dict.fromkeys(key for row in found.values() if isinstance(row, dict) for key in row))
        lines += ["| | " + (" | ".join(columns) or "value") + " |", "|---|" + "---:|" * max(1, len(columns))]
        for label, row in found.items():
            cells = [row.get(key, "") for key in columns] if isinstance(row, dict) else [row]
            lines.append(f"| {label} | " + " | ".join(map(shown, cells)) + " |")
        lines.append("")
    return "\n".join(lines)


def shown(value: object) -> str:
    """Three digits of a number, anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """Says what begins and how long it took."""
    begin = time.perf_counter()
    print(f"{name} ...", file=sys.stderr, flush=True)
    yield
    print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Runs the steps until the time is up; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds after which no further step begins")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    given = parser.parse_args(argv)
    at, begin, figures, failed = Machine(given.device, given.seconds, given.small), time.perf_counter(), {}, False
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.steps:
        if time.perf_counter() - begin > given.limit:
            figures[name] = {"left out": "the time was up"}
            continue
        started = time.perf_counter()
        with told(name):
            try:
                figures[name] = STEPS[name](at)
            except Exception as error:  # the next step may still answer
                figures[name], failed = {"failed": f"{type(error).__name__}: {error}"}, True
        figures[name]["seconds"] = time.perf_counter() - started
        (given.out / "figures.json").write_text(json.dumps(figures, indent=1))
        (given.out / "page.md").write_text(page(json.loads(json.dumps(figures))))
    print(page(json.loads(json.dumps(figures))))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
