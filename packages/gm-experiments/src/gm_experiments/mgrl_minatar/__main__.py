"""`python -m gm_experiments.mgrl_minatar` is apps/mgrl_minatar.py."""

import sys

import gm_lab
from gm_experiments.mgrl_minatar import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
