"""MGRL on MinAtar, with and without the LVC correction (paper, Section 5.3, at a laptop's scale).

A2C, 3-step MGRL and 3-step MGRL with LVC are trained on five small games, and verdicts are given on the paper's two
claims about returns and meta-parameters. Without a flag it is one game in about two minutes, in which learning is seen.

    uv run apps/mgrl_minatar.py
    uv run apps/mgrl_minatar.py --games all --env-steps 1_000_000 --seeds 5
"""

import sys

import gm_lab
from gm_experiments.mgrl_minatar import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
