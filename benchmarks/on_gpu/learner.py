"""The learner of A2C and MGRL alone: as it is, compiled, as a CUDA graph and in bfloat16."""

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

import gm_estimators as estimators
import gm_mgrl_atari as mgrl
from gm_estimators.optimisers import AdamState
from gm_estimators.parameters import Params as AnyParams
from gm_estimators.parameters import as_dict, gradient
from gm_mgrl_atari import Collector, Learner, Network, Point, Training
from gm_mgrl_atari.network import Params
from gm_mgrl_atari.throughput import Still
from on_gpu.machine import CPU, Machine, Rows

Work = Callable[[], torch.Tensor]


def learner(at: Machine) -> Rows:
    """Acting, A2C gradients and MGRL windows a second, as they are and as they could be, on experience held fixed.

    Captured ones leave out the check for NaN, which waits for a number. A CUDA graph repeats what was recorded.
    """
    for envs in (2,) if at.small else (64, 256):
        for name, function in {"acting": acting, "A2C gradient": a2c, "MGRL window": window}.items():
            for kind, wrapped in KINDS.items():
                if kind != "eager" and at.device.type != "cuda":
                    continue
                dtype = torch.bfloat16 if "bfloat16" in kind else torch.float32
                label = f"{name}, {envs} environments, {kind}"
                try:
                    with mock.patch("gm_mgrl_atari.learner.require_finite"):
                        yield label, at.per_second(wrapped(function(at.device, envs, dtype)))
                except (RuntimeError, TypeError, ValueError) as error:
                    yield label, f"failed: {_first_line(error)}"


def compiled(at: Machine) -> Rows:
    """Acting and A2C gradients a second with `torch.compile`, and the seconds that compiling takes.

    A compiled function has no second derivatives, which a window of MGRL needs.
    """
    for name, function in {"acting": acting, "A2C gradient": a2c}.items():
        begin = time.perf_counter()
        try:
            # in small, only what torch.compile makes of the code is tried, without a compiler
            backend = "eager" if at.small else "inductor"
            work = torch.compile(function(at.device, 2 if at.small else 64, torch.float32), backend=backend)
            work()
            at.wait()
            yield name, {"seconds to compile": time.perf_counter() - begin, "a second": at.per_second(work)}
        except Exception as error:  # whatever a compiler raises is its answer
            yield name, f"failed: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["it says nothing"])[0][:120]


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


def acting(on: torch.device, envs: int = 2, dtype: torch.dtype = torch.float32) -> Work:
    """The policy of every environment."""
    _, point, batches, _ = experience(on, envs, dtype)
    network = Network(6)
    frames = batches[0].observation[:, 0].contiguous(memory_format=torch.channels_last)

    def work() -> torch.Tensor:
        with torch.no_grad():
            return network.policy(point.params, frames)

    return work


def a2c(on: torch.device, envs: int = 2, dtype: torch.dtype = torch.float32) -> Work:
    """The gradient of A2C's objective."""
    ours, point, batches, logits = experience(on, envs, dtype)
    fixed = mgrl.coefficients(logits)

    def work() -> torch.Tensor:
        leaves = {name: value.detach().requires_grad_() for name, value in point.params.items()}
        parts = mgrl.terms(ours.network, leaves, batches[0], fixed, ours.estimator)
        return gradient(mgrl.combined(parts, fixed), leaves)["conv0.weight"]

    return work


def window(
    on: torch.device, envs: int = 2, dtype: torch.dtype = torch.float32, hidden: int = 512, rounded: bool = False,
    updates: int = 0,
) -> Work:  # fmt: skip
    """The meta-gradient through three updates, after some of A2C that are made in float64 on the CPU."""
    ours, point, batches, logits = experience(on, envs, dtype, hidden)
    point = _after(updates, envs, hidden, point)
    if rounded:
        point = Point({name: as_tf32(value) for name, value in point.params.items()}, point.optimiser)
    return lambda: ours.window(point, logits, lambda _params, step: batches[step], 3).meta_gradient


def _after(updates: int, envs: int, hidden: int, like: Point) -> Point:
    """Where A2C is after some updates, with the numbers of `like`'s kind and place."""
    if updates == 0:
        return like
    ours, point, batches, logits = experience(CPU, envs, torch.float64, hidden)
    for update in range(updates):
        point, _ = ours.update(point, batches[update % len(batches)], mgrl.coefficients(logits))

    def put(params: AnyParams) -> Params:
        return {name: value.to(like.params[name]) for name, value in as_dict(params).items()}

    state = point.optimiser
    assert isinstance(state, AdamState)
    return Point(put(point.params), AdamState(state.step, put(state.first), put(state.second)))


def as_tf32(value: torch.Tensor) -> torch.Tensor:
    """float32 numbers with the ten bits after the point that TensorFloat-32 keeps."""
    mantissa, exponent = torch.frexp(value)
    return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)


def plain(work: Work) -> Callable[[], object]:
    """As it is."""
    return work


def captured(work: Work) -> Callable[[], object]:
    """Recorded once as a CUDA graph, then replayed."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
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
