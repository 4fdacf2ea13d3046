"""Draws the diagnosis of docs/diagnose.md, of the page's own loop with a larger budget, and prints it.

uv run docs/diagnosis_picture.py docs/images/diagnosis.png
uv run docs/diagnosis_picture.py another.png first_order ad lvc    # other estimators
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gm_estimators import Sizes
from gm_estimators.diagnose import Report, diagnose
from gm_lab.analysis import diagnosis_figure, save

PAGE = Path(__file__).with_name("diagnose.md")
BUDGET = 6_000_000
ESTIMATORS = ("ad", "lvc", "loaded_dice")
CAPTION = "MAML on 2D navigation: 5 tasks, 356 parameters, K = 1, 10 trajectories for each task, λ = 0.9."


def diagnosed(estimators: Sequence[str] = ESTIMATORS, budget: int = BUDGET) -> Report:
    """The diagnosis of the page's loop, by so many environment steps."""
    (code,) = re.findall(r'^```python title="navigation.py"\n(.*?)^```', PAGE.read_text(), re.DOTALL | re.MULTILINE)
    loop: dict[str, Any] = {}
    exec(compile(code, "navigation.py", "exec"), loop)
    parts = {"draw": loop["draw"], "see": loop["see"], "params": loop["policy"]}
    sizes = Sizes(10, 10, 20, shared=True)
    settings: dict[str, Any] = {"tasks": 5, "sizes": sizes, "inner_lr": 2e-4, "gae_lambda": 0.9}
    return diagnose(**parts, **settings, surrogate=estimators, budget=budget)


def main(arguments: Sequence[str]) -> int:
    """Writes the picture."""
    torch.set_num_threads(1)
    picture, *estimators = arguments
    report = diagnosed(estimators or ESTIMATORS)
    save(diagnosis_figure(report.rows(), CAPTION), Path(picture).with_suffix(""))
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
