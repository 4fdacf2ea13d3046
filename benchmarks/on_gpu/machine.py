"""The device that is measured, beside the CPU."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

Rows = Iterator[tuple[str, Any]]
"""What a step finds: a label and a number, or several by name, as soon as each is known."""
CPU = torch.device("cpu")


class Over(BaseException):
    """A step's time is over; no `except Exception`, of a compiler for example, keeps it from ending."""


class Machine:
    """The device that is measured, how long a measurement takes, and how large it is."""

    def __init__(self, device: str, seconds: float, small: bool) -> None:
        self.device, self.seconds, self.small = torch.device(device), seconds, small
        self.end = float("inf")
        """When the step in work should be over, by `time.perf_counter`."""

    @property
    def left(self) -> float:
        """Seconds that the step has."""
        return self.end - time.perf_counter()

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

    def beside_the_cpu(self, work: Callable[[torch.device], object], times: int = 1) -> dict[str, float]:
        """How often work on a device is done in a second, on the CPU's cores and on the device."""
        cpu, device = (times * self.per_second(partial(work, on)) for on in (CPU, self.device))
        return {"cpu": cpu, "device": device, "factor": device / cpu}


def machine(at: Machine) -> Rows:
    """What is measured here."""
    yield "gpu", torch.cuda.get_device_name(at.device) if at.device.type == "cuda" else "none"
    yield "cores", os.cpu_count()
    yield "torch", torch.__version__
    yield "python", sys.version.split()[0]
