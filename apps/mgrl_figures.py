"""The figures of runs of apps/mgrl_atari.py at any time (paper, Figures 3, 9, 10), and the verdicts on the claims.

One or more run directories, or folders of such, are drawn and judged together, finished or not.

    uv run apps/mgrl_figures.py runs/mgrl_atari
"""

import sys

from gm_experiments.mgrl.unfinished import main

if __name__ == "__main__":
    sys.exit(main())
