"""Runs the experiment: `python -m gm_experiments.lola`."""

import sys

import gm_lab
from gm_experiments.lola import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
