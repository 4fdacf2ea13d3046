"""`python -m gm_experiments.lpg` is apps/lpg_tabular.py."""

import sys

import gm_lab
from gm_experiments.lpg import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
