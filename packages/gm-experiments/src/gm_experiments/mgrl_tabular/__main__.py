"""`python -m gm_experiments.mgrl_tabular` is apps/mgrl_tabular.py."""

import sys

import gm_lab
from gm_experiments.mgrl_tabular import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
