"""Draws the picture of section 4 of the notebook as it is before a slider is moved.

uv run docs/notebook_picture.py docs/images/notebook.png
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from gm_lab.analysis import save

NOTEBOOK = Path(__file__).with_name("notebooks") / "bias_in_five_minutes.py"


def main(arguments: Sequence[str]) -> int:
    """Writes the picture."""
    _, found = runpy.run_path(str(NOTEBOOK))["app"].run()
    save(found["figure"], Path(arguments[0]).with_suffix(""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
