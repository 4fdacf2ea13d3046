"""What a cell's computation is given beside the cell: where and with what it computes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """With what a cell is computed, without bearing on its rows; outside a run there is no `run_dir`."""

    run_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1
