"""The kind of machine that computes: results are the same bytes on machines of one kind, and to rounding on others."""

import contextlib
import functools
import platform
import sys
from pathlib import Path

from gm_lab.run.errors import BadInput


def kind_of_machine(device: str = "cpu") -> str:
    """Names what decides last digits: architecture, maker and vector instructions, and the GPU if one is used.

    The instructions are those that torch uses here, once it is loaded, as ATEN_CPU_CAPABILITY and the processor say.
    """
    maker, instructions = _processor()
    torch = sys.modules.get("torch")
    with contextlib.suppress(AttributeError, RuntimeError):
        instructions = torch.backends.cpu.get_cpu_capability()  # type: ignore[union-attr]
    kind = " ".join(filter(None, (platform.machine(), maker, instructions)))
    if device.startswith("cuda"):
        with contextlib.suppress(AttributeError, RuntimeError, AssertionError, ValueError):
            kind += f" {torch.cuda.get_device_name(device)}"  # type: ignore[union-attr]
    return kind


@functools.cache
def _processor() -> tuple[str, str]:
    about: dict[str, str] = {}
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if not line.strip():  # the other cores are alike
                break
            about[name.strip()] = value.strip()
    flags = about.get("flags", "").split()
    instructions = "AVX512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""
    return about.get("vendor_id", about.get("CPU implementer", "")), instructions


def working_directory() -> Path:
    """The current folder; raises BadInput if it was deleted."""
    try:
        return Path.cwd()
    except OSError as error:
        raise BadInput(f"expected a working directory that exists: {error.strerror}") from None
