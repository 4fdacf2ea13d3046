"""Everything of the paper that this machine can do: each app in turn, one progress display, one report at the end.

Stop it at any time: the same command goes on where it was.

    uv run apps/reproduce.py
    uv run apps/reproduce.py --budget tabular,ipd --run-dir runs/paper
    uv run apps/reproduce.py --budget atari=12 --device cuda
"""

import sys

from gm_experiments.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
