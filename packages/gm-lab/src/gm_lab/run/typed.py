"""What to type here to run this program again."""

import contextlib
import sys
from pathlib import Path

from gm_lab.run.output import quoted


def near(path: Path) -> Path:
    """The path as it is from the current folder, if it is below it."""
    with contextlib.suppress(ValueError, OSError):
        return path.relative_to(Path.cwd())
    return path


def program() -> str:
    """Returns what to type here to run this program without arguments."""
    itself = near(Path(sys.argv[0]).resolve())
    return " ".join(map(quoted, ["uv", "run", str(itself)] if itself.suffix == ".py" else [str(itself)]))
