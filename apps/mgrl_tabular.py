"""MGRL in random MDPs, where its meta-gradient is exact: bias and variance of every estimator, and what they are from.

An actor-critic learns by K updates; γ, λ, the weights of its critic's and entropy's terms and its step size are the
meta-parameters. Bias and variance by K and by meta-parameter (figure steps), what the bias is from (figure sources),
and training by each estimator, by both schedules (figure schedules).

    uv run apps/mgrl_tabular.py
    uv run apps/mgrl_tabular.py --figure sources --mdps 100
"""

import sys

import gm_lab
from gm_experiments.mgrl_tabular import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
