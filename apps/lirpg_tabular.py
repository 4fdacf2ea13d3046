"""Bias and variance of the LIRPG meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1cd and 7).

The meta-parameters are an intrinsic reward that only the inner loop sees. fig1 shows the accuracy of AD and LVC over
inner steps and sample sizes, fig7 their variance; inner and outer gradient are exact, Jacobian and Hessian sampled.
entropy shows what infinitely many samples would leave of LVC's bias, and how deterministic the exact path is there.

    uv run apps/lirpg_tabular.py
    uv run apps/lirpg_tabular.py --figure fig1 --permutations SSS
    uv run apps/lirpg_tabular.py --figure entropy --mdps 200
"""

import sys

import gm_lab
from gm_experiments.lirpg import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
