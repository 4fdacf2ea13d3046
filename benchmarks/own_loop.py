"""One meta-gradient of MAML in several ways: lines of code, time, peak memory, and whether they agree.

2D navigation, 5 tasks, a network of 356 parameters, one inner step by LVC, float64, one thread. Environment and
surrogate are shared; a way is what is left to write. Times are medians of rounds in which all ways take turns. Memory
is that of a process of its own, above what it had before, with more trajectories (Linux).

    uv run benchmarks/own_loop.py
"""

import argparse
import ast
import inspect
import os
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from gm_estimators import Trajectories, meta_gradient
from gm_estimators.returns import discounts, gae
from gm_estimators.surrogates import lvc, mean_surrogate

HORIZON, DISCOUNT, RATE = 20, 0.99, 5e-4
GOALS = torch.tensor([[0.5, 0.0], [0.0, 0.5], [-0.5, 0.0], [0.0, -0.5], [0.4, 0.4]], dtype=torch.float64)
TASKS = len(GOALS)
Tensors = dict[str, Tensor]
Policy = Callable[[Tensor], tuple[Tensor, Tensor]]
Noise = tuple[Tensor, Tensor]


class Network(torch.nn.Module):
    """Mean and log standard deviation of a step."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (2, 16), (16, 16), (16, 2)
        layers = [x for size in sizes for x in (torch.nn.Linear(*size), torch.nn.Tanh())]
        self.mean = torch.nn.Sequential(*layers[:-1])
        self.log_std = torch.nn.Parameter(torch.full((2,), -1.5))

    def forward(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Both, of the shape of the position."""
        mean = self.mean(position)
        return mean, self.log_std.expand_as(mean)


Layers = Callable[[Network, Tensors], Policy]


def objective(policy: Policy, goal: Tensor, noise: Tensor) -> Tensor:
    """The mean surrogate of trajectories that the policy makes of the noise `[time, *task, n, 2]`."""
    position, seen = torch.zeros_like(noise[0]), []
    with torch.no_grad():
        for shock in noise:
            mean, log_std = policy(position)
            action = mean + log_std.exp() * shock
            after = position + action.clamp(-0.1, 0.1)
            seen.append((position, action, -(after - goal.unsqueeze(-2)).norm(dim=-1)))
            position = after
    positions, actions, rewards = (torch.stack(x, noise.ndim - 2) for x in zip(*seen, strict=True))
    mean, log_std = policy(positions)
    log_prob = torch.distributions.Normal(mean, log_std.exp(), validate_args=False).log_prob(actions).sum(-1)
    value = torch.zeros_like(torch.cat([rewards, rewards[..., :1]], -1))
    advantage = gae(rewards, value, DISCOUNT)
    return mean_surrogate(lvc, Trajectories(log_prob, rewards, value, advantage, discounts(DISCOUNT, HORIZON + 1)))


def vmapped(network: Network, theta: Tensors) -> Policy:
    """One policy for each task, by PyTorch."""
    each = vmap(lambda params, x: functional_call(network, params, (x,)))
    return lambda x: each(theta, x)


def by_hand(_: Network, theta: Tensors) -> Policy:
    """One policy for each task, its layers written anew for a batch of them."""

    def act(x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in (0, 2, 4):
            weight, bias = theta[f"mean.{layer}.weight"], theta[f"mean.{layer}.bias"]
            shape = (TASKS, *[1] * (x.ndim - 2), -1)
            x = torch.einsum("t...i,toi->t...o", x, weight) + bias.reshape(shape)
            x = x.tanh() if layer < 4 else x
        return x, theta["log_std"].reshape(shape).expand_as(x)

    return act


def gm_estimators(network: Network, noise: Noise, policy: Layers = vmapped) -> Tensors:
    """`meta_gradient`, all tasks at once."""
    found = meta_gradient(
        network,
        inner=lambda _phi, theta, _step: objective(policy(network, theta), GOALS, noise[0]),
        outer=lambda _phi, theta: objective(policy(network, theta), GOALS, noise[1]),
        inner_steps=1,
        inner_lr=RATE,
        tasks=TASKS,
    )
    return dict(found)


def gm_estimators_one_by_one(network: Network, noise: Noise) -> Tensors:
    """`meta_gradient`, task by task."""

    def of_task(theta: Tensors, task: int, numbers: Tensor) -> Tensor:
        return objective(lambda x: functional_call(network, theta, (x,)), GOALS[task], numbers[:, task])

    found = meta_gradient(
        network,
        inner=lambda _phi, theta, _step, task: of_task(theta, task, noise[0]),
        outer=lambda _phi, theta, task: of_task(theta, task, noise[1]),
        inner_steps=1,
        inner_lr=RATE,
        tasks=range(TASKS),
    )
    return dict(found)


def plain_autograd(network: Network, noise: Noise, policy: Layers = vmapped) -> Tensors:
    """`torch.autograd.grad`, all tasks at once."""
    phi = dict(network.named_parameters())
    theta = {name: x.expand(TASKS, *x.shape) for name, x in phi.items()}
    inner = objective(policy(network, theta), GOALS, noise[0]).sum()
    slopes = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
    moved = {name: x + RATE * slope for (name, x), slope in zip(theta.items(), slopes, strict=True)}
    outer = objective(policy(network, moved), GOALS, noise[1]).mean()
    return dict(zip(phi, torch.autograd.grad(outer, list(phi.values())), strict=True))


def torch_func(network: Network, noise: Noise) -> Tensors:
    """`grad` of `vmap` of `grad`."""

    def value(theta: Tensors, goal: Tensor, numbers: Tensor) -> Tensor:
        return objective(lambda x: functional_call(network, theta, (x,)), goal, numbers)

    def adapted(phi: Tensors, goal: Tensor, first: Tensor, second: Tensor) -> Tensor:
        slopes = grad(value)(phi, goal, first)
        return value({name: x + RATE * slopes[name] for name, x in phi.items()}, goal, second)

    def over_tasks(phi: Tensors) -> Tensor:
        return vmap(adapted, (None, 0, 1, 1))(phi, GOALS, *noise).mean()

    found: Tensors = grad(over_tasks)({name: x.detach() for name, x in network.named_parameters()})
    return found


def torchopt(network: Network, noise: Noise) -> Tensors:
    """`MetaSGD`, task by task."""
    from torchopt import MetaSGD, extract_state_dict, recover_state_dict

    phi = dict(network.named_parameters())
    optimizer = MetaSGD(network, lr=RATE, maximize=True)
    start, values = extract_state_dict(network, by="reference"), []
    for task in range(TASKS):
        optimizer.step(objective(network, GOALS[task], noise[0][:, task]))
        values.append(objective(network, GOALS[task], noise[1][:, task]))
        recover_state_dict(network, start)
    grads = torch.autograd.grad(torch.stack(values).mean(), list(phi.values()))
    return dict(zip(phi, grads, strict=True))


Way = Callable[[Network, Noise], Tensors]
WAYS: dict[str, Way] = {
    "gm-estimators": gm_estimators,
    "gm-estimators, task by task": gm_estimators_one_by_one,
    "plain autograd": plain_autograd,
    "torch.func": torch_func,
    "TorchOpt, task by task": torchopt,
    "gm-estimators, layers by hand": partial(gm_estimators, policy=by_hand),
    "plain autograd, layers by hand": partial(plain_autograd, policy=by_hand),
}


def given(inner: int, outer: int) -> tuple[Network, Noise]:
    """A network and what is random, the same every time."""
    torch.manual_seed(0)
    network = Network().double()
    inner_noise, outer_noise = (torch.randn(HORIZON, TASKS, n, 2, dtype=torch.float64) for n in (inner, outer))
    return network, (inner_noise, outer_noise)


def apart(found: Tensors, expected: Tensors) -> float:
    """The largest difference, in units of the largest entry."""
    largest = max(float(x.abs().max()) for x in expected.values())
    return max(float((found[name] - x).abs().max()) for name, x in expected.items()) / largest


def lines(way: Way) -> int:
    """Lines of a function but its first one, its docstring and empty ones."""
    function = way.func if isinstance(way, partial) else way
    text = textwrap.dedent(inspect.getsource(function))
    (tree,) = ast.parse(text).body
    assert isinstance(tree, ast.FunctionDef)
    last = tree.body[0].end_lineno or 0
    return sum(bool(line.strip()) for line in text.splitlines()[last:])


def seconds(rounds: int, sizes: tuple[int, int]) -> dict[str, float]:
    """Medians of processor time, each way once in every round."""
    network, noise = given(*sizes)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds + 1):
        for name, way in WAYS.items():
            begin = time.process_time()
            way(network, noise)
            taken[name].append(time.process_time() - begin)
    return {name: statistics.median(all_of[1:]) for name, all_of in taken.items()}


def memory(name: str, sizes: tuple[int, int]) -> float:
    """MiB above what a process had before, in a process of its own."""
    # so that what is freed goes back to the system, and what is measured is what is needed
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--measure", name, "--sizes", *map(str, sizes)]
    return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


def measured(name: str, sizes: tuple[int, int]) -> float:
    """What `memory` asks for, of this process."""
    WAYS[name](*given(2, 2))  # what is loaded late
    network, noise = given(*sizes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    WAYS[name](network, noise)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """KiB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0])


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs=2, default=(10, 20), help="trajectories, inner and outer")
    parser.add_argument("--memory-sizes", type=int, nargs=2, default=(200, 400))
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        print(measured(options.measure, tuple(options.sizes)))
        return
    network, noise = given(*options.sizes)
    expected = plain_autograd(network, noise)
    taken = seconds(options.rounds, tuple(options.sizes))
    plain = taken["plain autograd"]
    print(f"PyTorch {torch.__version__}; {sum(x.numel() for x in expected.values())} parameters, {TASKS} tasks")
    print(f"time with {options.sizes}, memory with {options.memory_sizes} trajectories of a task")
    print(f"{'':34}{'lines':>6}{'ms':>8}{'to plain':>10}{'MiB':>8}{'apart':>10}")
    for name, way in WAYS.items():
        mib = memory(name, tuple(options.memory_sizes))
        told = f"{1e3 * taken[name]:8.1f}{taken[name] / plain:10.2f}{mib:8.0f}"
        print(f"{name:34}{lines(way):6}{told}{apart(way(network, noise), expected):10.0e}")


if __name__ == "__main__":
    main()
