"""What SIGINT, SIGTERM and SIGHUP mean to a run."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from gm_lab.run.errors import Interrupted
from gm_lab.run.quitting import exit_now

# how long workers may take to write their checkpoints; schedulers kill about 30 s after SIGTERM
GRACE_SECONDS = 20.0
HURRIED_GRACE_SECONDS = 1.0
EXPIRED = 124  # as the status of timeout(1)
HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@contextlib.contextmanager
def receiving(receive: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Has SIGINT, SIGTERM and SIGHUP call a function, also where a script's background would have SIGINT ignored.

    Under nohup, which has SIGHUP ignored, that stays so.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Has signals wait until the end of the block, in this thread and in processes that are started in it.

    A process that was forked just now still has its parent's handlers. What these raise is lost where Python's own
    hooks run after a fork, and so would be the signal. `become_worker` lets it through.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def become_worker(driver: int) -> None:
    """Makes this process a worker: Ctrl-C and SIGHUP are the matter of its driver, which started and ends it.

    It receives what was `held_back` while it was started.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        import ctypes

        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
        if os.getppid() != driver:  # it ended before we asked
            os._exit(1)
    else:
        from multiprocessing import connection, parent_process

        def watch() -> None:
            if (parent := parent_process()) is not None:
                connection.wait([parent.sentinel])
                os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


class Interruption:
    """The signals a run has received.

    The first SIGINT lets the cells in flight finish, if cells are being computed and it `waits`. The second one, any
    SIGTERM or SIGHUP, and a signal at another moment raise `Interrupted`, which a cell may catch to write a checkpoint.
    One more ends the process on the spot.
    """

    def __init__(self, name: str, waits: bool = True) -> None:
        self.status: int | None = None
        """The exit status that the signals ask for."""
        self.draining = False
        """Whether the cells in flight are the last ones."""
        self._name, self._waits = name, waits
        self._computing = False
        self._raised = False
        self._hurried = False
        self._deferred = False
        self._waiting: Interrupted | None = None
        self.expired = False
        """Whether its time is over, rather than that somebody sent a signal."""

    @property
    def grace_seconds(self) -> float:
        """How long to wait for workers that were told to stop."""
        return HURRIED_GRACE_SECONDS if self._hurried else GRACE_SECONDS

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Marks where SIGINT may wait for the cells in flight; raises `Interrupted` at the end if it did."""
        self._computing = True
        try:
            yield
            if self.draining:
                raise Interrupted(signal.SIGINT)
        finally:
            self._computing = False

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Raises `Interrupted` only where `check` is called: for libraries that no exception may cross."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raises what was deferred, or what was raised where Python drops exceptions, such as in a `__del__`."""
        if self._waiting is not None:
            error, self._waiting = self._waiting, None
            raise error

    @contextlib.contextmanager
    def handled(self, stop_after: float | None = None) -> Iterator[None]:
        """Receives the signals, in the main thread only; its time over, a run stops as after SIGTERM, but `EXPIRED`."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with receiving(self._receive):
            previous = signal.signal(signal.SIGALRM, self._expire)
            signal.setitimer(signal.ITIMER_REAL, stop_after or 0)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, previous)

    def _expire(self, _number: int, frame: FrameType | None) -> None:
        if not self._raised:
            self.expired = True
            self._receive(signal.SIGTERM, frame)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._raised:
            if not self.expired:
                exit_now(128 + number)
            # somebody's first one, while checkpoints are written because the time is over
            self.expired, self.status = False, 128 + number
            return
        self.status = EXPIRED if self.expired else 128 + number
        first = number == signal.SIGINT and self._computing and not self.draining
        # before a word of it: who reads that may press again at once, and this is called anew in the middle of it
        if first and self._waits:
            self.draining = True
            self._say("finishing the cells in flight; Ctrl-C again stops now")
            return
        self._raised = True
        self._hurried = number == signal.SIGINT and self._waits
        if first:
            self._say("stopping, what is in flight is kept as checkpoints; Ctrl-C again stops without them")
        self._waiting = Interrupted(number)
        if not self._deferred:
            raise self._waiting

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, f"{self._name}: {text}\n".encode())  # not print: this may interrupt another one
