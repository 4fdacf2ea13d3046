"""`python -m gm_experiments.mgrl_chain` is apps/mgrl_chain.py."""

import sys

import gm_lab
from gm_experiments.mgrl_chain import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
