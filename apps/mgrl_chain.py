"""MGRL where its meta-parameter matters: the discount of bsuite's discounting chain (Bonnet et al. 2022).

γ is learnt by meta-gradients of AD and LVC and from a bootstrapped target, each with the inner critic in the outer
objective, which biases it, and with a critic of its own; beside agents whose discount is fixed.

    uv run apps/mgrl_chain.py
    uv run apps/mgrl_chain.py --methods meta-gradient --estimators ad
"""

import sys

import gm_lab
from gm_experiments.mgrl_chain import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
