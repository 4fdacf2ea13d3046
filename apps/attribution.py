"""Where the error of a MAML-RL meta-gradient comes from, along training: each source's share of bias and variance.

Sources are the sampled inner gradient, Hessian and outer gradient, a batch that the first two share, the critic,
clipping and Adam; their shares are Shapley values. It goes beyond the paper's figures.

    uv run apps/attribution.py
    uv run apps/attribution.py --points 0 10 --sources composition hessian outer
"""

import sys

import gm_lab
from gm_experiments.attribution import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
