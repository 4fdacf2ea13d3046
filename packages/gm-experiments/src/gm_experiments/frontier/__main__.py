"""`python -m gm_experiments.frontier` runs the experiment."""

import sys

import gm_lab
from gm_experiments.frontier import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
