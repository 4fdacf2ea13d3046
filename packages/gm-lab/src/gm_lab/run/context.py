"""What a cell's computation is given beside the cell: where and with what it computes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """Where and with what a cell is computed; it has no bearing on the rows.

    Args:
        run_dir: The run directory, for checkpoints and live rows; None outside a run.
        device: Where tensors go, such as cpu or cuda:0.
        threads: How many threads the cell may use.
    """

    run_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1
