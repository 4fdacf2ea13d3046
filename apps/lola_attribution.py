"""Where the error of a LOLA meta-gradient comes from, along training: each source's share of bias and variance.

Sources are the sampled inner gradient, Jacobian and outer gradient, a batch that the first two share, the learnt
critic, clipping and Adam; their shares are Shapley values. It goes beyond the paper's figures.

    uv run apps/lola_attribution.py
    uv run apps/lola_attribution.py --points 0 20 --path sampled
"""

import sys

import gm_lab
from gm_experiments.attribution.lola import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
