"""The Ray launcher: cells as tasks on a cluster that shares nothing with the driver but installed packages."""

import contextlib
import functools
import importlib
import importlib.abc
import importlib.util
import logging
import math
import os
import pickle
import signal
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType
from typing import Any

from gm_lab.cells import Row, checked_rows, describe_cell, shorten
from gm_lab.context import Context
from gm_lab.errors import BadInput, CellFailed
from gm_lab.interruption import Interruption
from gm_lab.launch import QUICK_SECONDS, Failure, Outcome, attempt, checked
from gm_lab.modules import imported_from
from gm_lab.settings import RunSettings, usable_cores

RETRIES = 3  # of a cell whose node or worker is lost
PROBE_SECONDS = 3.0
POLL_SECONDS = 0.2  # between looks at the signals
HEAD_SECONDS = 10.0  # between looks at the cluster's first machine
# HTTP/2: kinds of frames and their flags
DATA, HEADERS, SETTINGS, END_STREAM, END_HEADERS = 0, 1, 4, 1, 4
ASK_FOR_ID = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/ray.rpc.NodeInfoGcsService/GetClusterId",
    ":authority": "ray",
    "te": "trailers",
    "content-type": "application/grpc",
}
UNAUTHENTICATED = b"grpc-status\x0216"


@dataclass(frozen=True)
class Job:
    """What a worker needs to compute any cell of the run."""

    run_cell: Callable[[Any, Context], list[Row]]
    columns: tuple[str, ...]
    setup: Callable[[], Context]


@dataclass(frozen=True)
class Place:
    """Which cluster, how much of it a cell needs, and how many cells at once (None: as many as there is room for)."""

    address: str | None
    cpus: float
    gpus: float
    workers: int | None


def place(settings: RunSettings) -> Place:
    """What the flags say about the cluster."""
    gpus = float(settings.device.startswith("cuda")) if settings.gpus_per_cell is None else settings.gpus_per_cell
    return Place(settings.ray_address, settings.cpus_per_cell, gpus, settings.workers)


@contextlib.contextmanager
def launched(
    job: Job,
    save: Callable[[Any, list[Row]], None],
    cells: Sequence[Any],
    where: Place,
    interruption: Interruption,
    warn: Callable[[str], None],
) -> Iterator[Iterator[float]]:
    """Connects to the cluster, or starts one; what it yields iterates over the cells as they are finished and saved.

    Args:
        job: What the workers need.
        save: Writes the rows of a finished cell, in this process.
        cells: The cells to compute.
        where: The cluster.
        interruption: Says when the cells in flight are the last ones.
        warn: Shows a line.

    Yields:
        An iterator over the seconds each cell took. It raises `BadInput` if a cell does, and `CellFailed` if a cell
        raises anything else or loses its worker too often.

    Raises:
        BadInput: Ray is not installed, the cluster can't be reached, or has no node for such cells.
    """
    ray = connected(where, installed())
    flying: dict[Any, int] = {}
    try:
        interruption.check()
        if not room(ray, where):
            need = f"{where.cpus:g} CPUs and {where.gpus:g} GPUs"
            if where.address is None:
                raise BadInput(f"--gpus-per-cell: expected what this machine has, got cells that need {need}")
            warn(f"no node of the cluster has room for a cell, which needs {need}; waiting for one")
        # Ray's own retries would be silent
        task = ray.remote(num_cpus=where.cpus, num_gpus=where.gpus, max_retries=0)(compute)
        shipped = ray.put(pickle.dumps((sources(), ray.cloudpickle.dumps(job))))

        def submit(index: int) -> Any:
            return task.remote(shipped, index, ray.cloudpickle.dumps(cells[index]))

        def saved() -> Iterator[Outcome]:
            for outcome in _outcomes(ray, submit, cells, where, flying, interruption, warn):
                if outcome.rows is not None:
                    save(cells[outcome.index], outcome.rows)
                yield outcome

        with _watched(ray.get_runtime_context().gcs_address, warn):
            yield checked(cells, saved())
    finally:
        _stop(ray, list(flying), interruption.grace_seconds)
        ray.shutdown()


def check(settings: RunSettings) -> None:
    """Finds out at once whether there is a cluster to use.

    Raises:
        BadInput: Ray is not installed, nothing like it answers at the address, or what does asks for another token.
    """
    installed()
    if settings.ray_address is not None:
        answering(settings.ray_address)


def installed() -> Any:
    """Ray.

    Raises:
        BadInput: It is not installed.
    """
    # no statistics to anyone, and no look-out for a new version
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise BadInput("--launcher: ray is not installed; expected the extra: pip install 'gm-lab[ray]'") from None


def connected(where: Place, ray: Any) -> Any:
    """Ray, connected to the cluster.

    Raises:
        BadInput: The cluster can't be reached.
    """
    address, guarded = (None, False) if where.address is None else answering(where.address)
    if guarded and "RAY_AUTH_MODE" not in os.environ:
        # Ray sends its token where it finds a cluster by itself, and not to an address that it is given
        os.environ["RAY_AUTH_MODE"] = "token"
        ray._raylet.Config.initialize("")  # it has read the environment before
    # neither the driver's nor the cluster's news of nodes and retries: what matters is said by us
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if where.address is None:
            # on the loopback device: nothing waits for a network
            slots = where.workers or max(1, int(usable_cores() // where.cpus))
            size = {"num_cpus": math.ceil(slots * where.cpus), **({} if where.gpus else {"num_gpus": 0})}
            ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **size, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        which = "start Ray here" if where.address is None else f"use the cluster at {where.address}"
        raise BadInput(f"--ray-address: cannot {which}: {shorten(str(error), 200)}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return ray


def token() -> str:
    """What this machine holds where Ray looks for its token; empty if nothing."""
    if found := os.environ.get("RAY_AUTH_TOKEN"):
        return found
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""


def answering(address: str) -> tuple[str, bool]:
    """The address, and whether it asks for a token, if something like a Ray cluster answers there.

    Ray itself would try for two minutes, and shows a token to all or to none. Those who don't ask for it must not get
    it: Ray then takes the driver for guarded, and its news of lost workers doesn't arrive.

    Raises:
        BadInput: Nothing does, or it asks for another token than what this machine holds.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address == "auto":
        return address, False
    where = _parts(address)
    try:
        if os.environ.get("RAY_USE_TLS") == "1":
            socket.create_connection(where, PROBE_SECONDS).close()
            return address, False
        guarded = _refuses(where, "")
        if guarded and ((held := token()) == "" or _refuses(where, held)):
            raise BadInput(
                f"--ray-address: the cluster at {address} asks for its token{', not the one found' if held else ''}; "
                "expected a copy of its first machine's ~/.ray/auth_token here, in the same place"
            )
    except OSError as error:
        found = error.strerror or error
        raise BadInput(f"--ray-address: expected a running Ray cluster at {address}, got: {found}") from None
    return address, guarded


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit() or int(port) > 65535:
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


def _refuses(where: tuple[str, int], token: str) -> bool:
    """Whether what answers refuses a token (none if empty); it is asked for the cluster's identity."""
    asked = ASK_FOR_ID | ({"authorization": f"Bearer {token}"} if token else {})
    names = b"".join(b"\0" + _text(name) + _text(value) for name, value in asked.items())
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS)
    # a message is a byte and its length in four; this one is empty
    hello += _frame(HEADERS, names, 1, END_HEADERS) + _frame(DATA, bytes(5), 1, END_STREAM)
    answer = b""
    with socket.create_connection(where, PROBE_SECONDS) as connection:
        connection.sendall(hello)
        while b"grpc-status" not in answer[:-2]:
            try:
                more = connection.recv(4096)
            except TimeoutError:
                if not answer:
                    raise
                more = b""
            answer += more
            if answer[3:4] != bytes([SETTINGS]):
                raise ConnectionError("what answers is no Ray cluster")
            if not more:
                break
    return UNAUTHENTICATED in answer


def _text(text: str) -> bytes:
    """As HTTP/2 has it in its headers: the length in seven bits, the rest of a longer one in more, then the bytes."""
    content = text.encode()
    length, rest = bytes([min(len(content), 127)]), len(content) - 127
    while rest >= 0:
        length += bytes([rest % 128 + 128 * (rest >= 128)])
        rest = rest // 128 if rest >= 128 else -1
    return length + content


def _frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def room(ray: Any, where: Place) -> int:
    """How many cells the cluster's living nodes can compute at once."""
    total = 0
    for node in ray.nodes():
        if node["Alive"]:
            found = node["Resources"]
            fits = [found.get("CPU", 0.0) / where.cpus]
            fits += [found.get("GPU", 0.0) / where.gpus] if where.gpus else []
            total += int(min(fits) + 1e-9)
    return total


def _outcomes(
    ray: Any,
    submit: Callable[[int], Any],
    cells: Sequence[Any],
    where: Place,
    flying: dict[Any, int],
    interruption: Interruption,
    warn: Callable[[str], None],
) -> Iterator[Outcome]:
    """Keeps as many tasks on the cluster as it has room for; those whose node or worker is lost are tried again."""
    waiting = deque(range(len(cells)))
    lost: Counter[int] = Counter()
    ahead = 1
    done: list[tuple[Any, int]] = []
    while True:
        if not interruption.draining:
            most = ahead * (where.workers or max(1, room(ray, where)))
            for _ in range(min(most - len(flying), len(waiting))):
                index = waiting.popleft()
                flying[submit(index)] = index
        # only now that the next cells are on their way: saving takes a while
        for task, index in done:
            try:
                outcome = _fetched(ray, task, index)
            except ray.exceptions.RayError as error:
                lost[index] += 1
                _give_up_or_warn(error, cells[index], lost[index], warn)
                waiting.appendleft(index)
                continue
            ahead = 2 if outcome.seconds < QUICK_SECONDS else 1
            yield outcome
        if not flying and (interruption.draining or not waiting):
            return
        ready, _ = ray.wait(list(flying), num_returns=1, timeout=POLL_SECONDS) if flying else ([], [])
        interruption.check()
        done = [(task, flying.pop(task)) for task in ready]


def _fetched(ray: Any, task: Any, index: int) -> Outcome:
    try:
        outcome: Outcome = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return Outcome(index, 0.0, Failure(False, shorten(str(error.cause or error), 200), str(error)))
    return outcome


def _give_up_or_warn(error: Exception, cell: Any, times: int, warn: Callable[[str], None]) -> None:
    """Says that a cell's worker was lost."""
    how = type(error).__name__
    if times > RETRIES:
        raise CellFailed(
            f"cell {describe_cell(cell)} failed: its worker was lost {times} times ({how}); "
            "if memory ran out, more --cpus-per-cell help",
            str(error),
        ) from None
    warn(f"cell {describe_cell(cell)}: its worker was lost ({how}); trying again, {times} of {RETRIES}")


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

    return replace(attempt(work, (cell,), 0, Context()), index=index)


@functools.cache
def _prepared(job: bytes) -> tuple[Job, Context]:
    """The job, unpacked and set up once in each worker process."""
    modules, content = pickle.loads(job)
    sys.meta_path.insert(0, Shipped(modules))
    found: Job = pickle.loads(content)
    return found, found.setup()


@dataclass(frozen=True)
class Source:
    """A module's text, and whether it is a package."""

    text: str
    package: bool = False


def sources() -> dict[str, Source]:
    """What only the driver has: the modules beside the running script, and what it imported from the current folder.

    Of a package there all of it, because a cell may import more.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    files = {file.stem: file for file in Path(script).resolve().parent.glob("*.py")} if script else {}
    here = Path.cwd()
    imported = imported_from([here])
    files |= imported
    for top in {here / name.partition(".")[0] for name in imported}:
        if (top / "__init__.py").is_file():
            files |= {_module_name(file.relative_to(here)): file for file in top.rglob("*.py")}
    found = {
        name: Source(importlib.util.decode_source(file.read_bytes()), file.name == "__init__.py")
        for name, file in sorted(files.items())
    }
    # packages without a file of their own
    parents = {name.rsplit(".", depth)[0] for name in found for depth in range(1, name.count(".") + 1)}
    return {name: Source("", package=True) for name in parents} | found


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Shipped(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the driver's modules from their text.

    Args:
        modules: What there is by name.
    """

    def __init__(self, modules: dict[str, Source]) -> None:
        self._modules = modules

    def find_spec(self, fullname: str, *_where: Any) -> ModuleSpec | None:
        """Finds the module by name alone."""
        return importlib.util.spec_from_loader(fullname, self) if fullname in self._modules else None

    def is_package(self, fullname: str) -> bool:
        """Whether it may have modules below it."""
        return self._modules[fullname].package

    def get_source(self, fullname: str) -> str:
        """The module's text."""
        return self._modules[fullname].text

    def get_code(self, fullname: str) -> CodeType:
        """The module's code."""
        return self.source_to_code(self._modules[fullname].text, f"<shipped {fullname}>")
