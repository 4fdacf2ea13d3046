"""`python -m gm_experiments.explore` runs the experiment."""

import sys

import gm_lab
from gm_experiments.explore import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
