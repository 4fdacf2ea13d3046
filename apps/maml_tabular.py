"""Bias and variance of the MAML-RL meta-gradient on random tabular MDPs (paper, Section 5.1, Figures 1ab, 4, 5, 6).

The exact meta-gradient stands beside every estimate: which estimator is how biased with which part sampled, over the
sample size (fig1, fig4), the inner learning rate (fig5) and the inner steps (fig6); theory sets Lemma 4.4 and
Theorem 4.5 beside what they bound.

    uv run apps/maml_tabular.py
    uv run apps/maml_tabular.py --figure fig5 fig6 --mdps 20
"""

import sys

import gm_lab
from gm_experiments.maml import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
