"""`python -m gm_experiments.mgrl` is apps/mgrl_atari.py."""

import sys

import gm_lab
from gm_experiments.mgrl import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
