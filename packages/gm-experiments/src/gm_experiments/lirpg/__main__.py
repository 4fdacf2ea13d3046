"""`python -m gm_experiments.lirpg` runs the experiment."""

import sys

import gm_lab
from gm_experiments.lirpg import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
