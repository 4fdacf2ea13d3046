"""MGRL on Atari, with and without the LVC correction (paper, Section 5.3, Figures 3, 9, 10).

A2C, 3-step MGRL and 3-step MGRL with LVC are trained (figure returns), and the meta-gradient's bias, variance and
direction are measured at points of a run (figure gradient). Without a flag it is a demonstration of some minutes.

    uv run apps/mgrl_atari.py
    uv run apps/mgrl_atari.py --games Qbert --env-steps 40_000_000 --seeds 5 --device cuda
"""

import sys

import gm_lab
from gm_experiments.mgrl import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
