"""Where the time goes."""

import time

PARTS = (
    "emulation",
    "policy inference",
    "inner losses and gradients",
    "outer loss and meta-gradient",
    "optimisers",
    "log and checkpoints",
)


class Laps:
    """A stopwatch whose laps have names; those of one name add up.

    On a GPU, which computes while Python goes on, a lap has the time of the wait for a result, not of the computation.

    Attributes:
        seconds: wall time by name.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._last = time.perf_counter()

    def start(self) -> None:
        """What has passed since the last lap counts for nothing."""
        self._last = time.perf_counter()

    def __call__(self, part: str) -> None:
        """What has passed since the last lap was this part."""
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now
