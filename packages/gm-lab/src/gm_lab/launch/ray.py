"""The Ray launcher: cells as tasks on a cluster that shares nothing with the driver but installed packages."""

import contextlib
import functools
import logging
import math
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gm_lab.launch.outcome import QUICK_SECONDS, Failure, Outcome, attempt, checked
from gm_lab.launch.supply import Supply
from gm_lab.run.cells import Row, checked_rows, describe_cell, shorten
from gm_lab.run.context import Context
from gm_lab.run.errors import BadInput, CellFailed
from gm_lab.run.interruption import Interruption
from gm_lab.run.machine import kind_of_machine
from gm_lab.run.provenance import imported_from
from gm_lab.run.settings import RunSettings, usable_cores

RETRIES = 3  # of a cell whose node or worker is lost
PROBE_SECONDS = 3.0
POLL_SECONDS = 0.2  # between looks at the signals
HEAD_SECONDS = 10.0  # between looks at the cluster's first machine
TRIAL = "import logging, sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)"
TRIAL_SECONDS = 60.0
# by itself Ray tries for more than a minute
IMPATIENT = {
    "RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_gcs_rpc_server_connect_timeout_s": "2", "RAY_py_gcs_connect_timeout_s": "5",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What a worker needs to compute any cell of the run."""

    run_cell: Callable[[Any, Context], list[Row]]
    columns: tuple[str, ...]
    setup: Callable[[], Context]


def needed(settings: RunSettings) -> tuple[float, float]:
    """How many CPUs and GPUs a cell needs."""
    gpus = float(settings.device.startswith("cuda")) if settings.gpus_per_cell is None else settings.gpus_per_cell
    return settings.cpus_per_cell, gpus


@contextlib.contextmanager
def launched(
    job: Job, save: Callable[[Any, list[Row], str], None], cells: Supply, settings: RunSettings,
    interruption: Interruption, warn: Callable[[str], None],
) -> Iterator[Iterator[tuple[int, float]]]:  # fmt: skip
    """Connects to the cluster, or starts one; it yields an iterator over cells, once saved here: position and seconds.

    Raises BadInput if Ray is not installed, or the cluster can't be reached or has no node for such cells. The iterator
    raises `BadInput` if a cell does, and `CellFailed` if a cell raises anything else or loses its worker too often.
    """
    ray = connected(settings)
    flying: dict[Any, int] = {}
    try:
        interruption.check()
        cpus, gpus = needed(settings)
        if not room(ray, cpus, gpus):
            need = f"{cpus:g} CPUs and {gpus:g} GPUs"
            if settings.ray_address is None:
                raise BadInput(f"--gpus-per-cell: expected what this machine has, got cells that need {need}")
            warn(f"no node of the cluster has room for a cell, which needs {need}; waiting for one")
        # Ray's own retries would be silent
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(compute)
        shipped = ray.put(packed(ray, job))

        def submit(index: int) -> None:
            flying[task.remote(shipped, index, ray.cloudpickle.dumps(cells[index]))] = index

        def at_once() -> int:
            return settings.workers or max(1, room(ray, cpus, gpus))

        def saved() -> Iterator[Outcome]:
            for outcome in _outcomes(ray, submit, at_once, cells, flying, interruption, warn):
                if outcome.rows is not None:
                    save(cells[outcome.index], outcome.rows, outcome.computed_on)
                yield outcome

        with _watched(ray.get_runtime_context().gcs_address, warn):
            yield checked(cells, saved())
    finally:
        _stop(ray, list(flying), interruption.grace_seconds)
        ray.shutdown()


def check(settings: RunSettings) -> None:
    """Finds out at once whether there is a cluster to use; raises BadInput if not."""
    if find_spec("ray") is None:
        raise BadInput("--launcher: ray is not installed; expected the extra: pip install 'gm-lab[ray]'")
    if settings.ray_address is not None:
        let_in(settings.ray_address)


def connected(settings: RunSettings) -> Any:
    """Returns Ray, connected to the cluster; raises BadInput if it can't be used."""
    address = None if settings.ray_address is None else let_in(settings.ray_address)
    let_in.cache_clear()  # it was true just now
    # no statistics to anyone, and no hint at what a later Ray will do
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    ray = import_module("ray")
    # neither the driver's nor the cluster's news of nodes and retries: what matters is said by us
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if address is None:
            # on the loopback device: nothing waits for a network
            cpus, gpus = needed(settings)
            slots = settings.workers or max(1, int(usable_cores() // cpus))
            size = {"num_cpus": math.ceil(slots * cpus), **({} if gpus else {"num_gpus": 0})}
            ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **size, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        which = "start Ray here" if address is None else f"use the cluster at {address}"
        raise BadInput(f"--ray-address: cannot {which}: {shorten(str(error), 200)}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return ray


@functools.cache
def let_in(address: str) -> str:
    """Returns the address, once Ray has connected to it in a process of its own with little time, or raises BadInput.

    A token is shown only to a cluster that asks for one: else Ray takes it for guarded, too, and its news of lost
    workers doesn't arrive.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address == "auto":
        return address
    expected = f"--ray-address: expected a running Ray cluster at {address}"
    try:
        socket.create_connection(_parts(address), PROBE_SECONDS).close()
    except (OSError, ValueError) as error:  # the latter of a name that can't be one
        raise BadInput(f"{expected}, got: {getattr(error, 'strerror', None) or error}") from None
    said = _trial(address)
    if "Unauthenticated" in said and "RAY_AUTH_MODE" not in os.environ:
        said = _trial(address, RAY_AUTH_MODE="token")
        if not said:
            os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported
    missing = "no authentication token was found" in said
    if missing or "Unauthenticated" in said:
        raise BadInput(
            f"--ray-address: the cluster at {address} asks for its token{'' if missing else ', not the one found'}; "
            "expected a copy of its first machine's ~/.ray/auth_token here, in the same place"
        )
    if said:
        raise BadInput(f"{expected}, got: {shorten(said.splitlines()[-1], 200)}")
    return address


def _trial(address: str, **variables: str) -> str:
    """What Ray says when it can't connect; empty if it can."""
    call = [sys.executable, "-c", TRIAL, address]
    how: dict[str, Any] = {"env": os.environ | IMPATIENT | variables, "timeout": TRIAL_SECONDS}
    try:
        done = subprocess.run(call, check=False, capture_output=True, text=True, **how)
    except subprocess.TimeoutExpired:
        return "no answer"
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise BadInput(f"--ray-address: expected host:port or auto, got '{address}'")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _watched(address: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Says it when the cluster's first machine stops answering: calls of Ray block then until it ends the driver."""
    over = threading.Event()

    def watch() -> None:
        answers = True
        while not over.wait(HEAD_SECONDS):
            try:
                socket.create_connection(_parts(address), PROBE_SECONDS).close()
                answers = True
            except OSError as error:
                if answers:
                    warn(
                        f"the cluster's first machine, {address}, does not answer ({error.strerror or error}). Unless "
                        "it does soon, Ray ends this program; every finished cell is kept, the same --run-dir goes on"
                    )
                answers = False

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def room(ray: Any, cpus: float, gpus: float) -> int:
    """How many cells the cluster's living nodes can compute at once."""
    living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = [(node.get("CPU", 0.0) / cpus, node.get("GPU", 0.0) / gpus if gpus else math.inf) for node in living]
    return sum(int(min(fit) + 1e-9) for fit in fits)


def _outcomes(
    ray: Any, submit: Callable[[int], None], at_once: Callable[[], int], cells: Supply, flying: dict[Any, int],
    interruption: Interruption, warn: Callable[[str], None],
) -> Iterator[Outcome]:  # fmt: skip
    """Keeps as many tasks on the cluster as it has room for; those whose node or worker is lost are tried again."""
    waiting = deque(range(len(cells)))
    lost: Counter[int] = Counter()
    ahead = 1
    done: list[tuple[Any, int]] = []
    while True:
        if not interruption.draining:
            for _ in range(min(ahead * at_once() - len(flying), len(waiting))):
                submit(waiting.popleft())
        # only now that the next cells are on their way: saving takes a while
        for task, index in done:
            try:
                outcome = _fetched(ray, task, index)
            except ray.exceptions.RayError as error:
                lost[index] += 1
                cell, how = describe_cell(cells[index]), type(error).__name__
                if lost[index] > RETRIES:
                    times = f"its worker was lost {lost[index]} times ({how})"
                    advice = "if memory ran out, more --cpus-per-cell help"
                    raise CellFailed(f"cell {cell} failed: {times}; {advice}", str(error)) from None
                warn(f"cell {cell}: its worker was lost ({how}); trying again, {lost[index]} of {RETRIES}")
                waiting.appendleft(index)
                continue
            ahead = 2 if outcome.seconds < QUICK_SECONDS else 1
            yield outcome
        if not flying and (interruption.draining or not waiting):
            if interruption.draining or not (further := cells.grown()):
                return
            waiting.extend(further)
            done = []
            continue
        ready, _ = ray.wait(list(flying), num_returns=1, timeout=POLL_SECONDS) if flying else ([], [])
        interruption.check()
        done = [(task, flying.pop(task)) for task in ready]


def _fetched(ray: Any, task: Any, index: int) -> Outcome:
    try:
        outcome: Outcome = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return Outcome(index, 0.0, Failure(False, shorten(str(error.cause or error), 200), str(error)))
    return outcome


def _stop(ray: Any, flying: list[Any], seconds: float) -> None:
    """Interrupts the cells in flight, which may write their checkpoints, and ends those that take too long."""
    if not flying:
        return
    with contextlib.suppress(ray.exceptions.RayError):
        for task in flying:
            ray.cancel(task)
        _, left = ray.wait(flying, num_returns=len(flying), timeout=seconds)
        for task in left:
            ray.cancel(task, force=True)


def compute(job: bytes, index: int, cell: bytes) -> Outcome:
    """The task: one cell, in a worker process of the cluster."""
    # where Ray was started in the background of a script, its workers ignore what `ray.cancel` interrupts them with
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def work(content: bytes, _context: Context) -> list[Row]:
        prepared, context = _prepared(job)
        return checked_rows(prepared.run_cell(pickle.loads(content), context), prepared.columns)

    outcome = attempt(work, index, cell, Context())
    computed_on = "" if outcome.failure else kind_of_machine(_prepared(job)[1].device)
    return replace(outcome, computed_on=computed_on)


@functools.cache
def _prepared(content: bytes) -> tuple[Job, Context]:
    modules, job = pickle.loads(content)
    sys.modules.update(modules)
    return job, job.setup()


def packed(ray: Any, job: Job) -> bytes:
    """Packs a job with the modules beside the running script and in the current folder; raises BadInput if it can't."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    own = imported_from([*([Path(script).resolve().parent] if script else []), Path.cwd()])
    own.pop("__main__", None)
    # packages without a file of their own are above some
    names = {name.rsplit(".", depth)[0] for name in own for depth in range(name.count(".") + 1)}
    modules = {name: sys.modules[name] for name in sorted(names)}
    for module in modules.values():
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        content: bytes = ray.cloudpickle.dumps((modules, job))
    except (TypeError, ValueError, pickle.PicklingError) as error:
        sent = ", ".join(modules) or "the experiment"
        raise BadInput(f"--launcher ray: cannot send {sent} to the workers: {shorten(str(error), 200)}") from error
    return content
