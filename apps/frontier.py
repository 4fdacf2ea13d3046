"""What to do with a budget of trajectories: the frontier of bias and variance of a MAML-RL meta-gradient.

Every choice of estimator, λ, split between inner gradient, Hessian and outer gradient, and jackknife is measured at
equal budget (frontier), over budgets and inner learning rates (budgets), and by what it is worth in training
(training). It goes beyond the paper's figures.

    uv run apps/frontier.py
    uv run apps/frontier.py --figure training --updates 50
"""

import sys

import gm_lab
from gm_experiments.frontier import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
