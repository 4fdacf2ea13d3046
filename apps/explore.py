"""One page to explore the MAML-RL meta-gradient by hand: sliders for α, K and trajectories, switches for what is exact.

The page, explorer.html in the run directory, needs no network and no Python. Its second half enumerates every
trajectory of a tiny MDP in the browser, so that bias is seen without noise.

    uv run apps/explore.py
    uv run apps/explore.py --inner-lrs 1 10 --mdps 20
"""

import sys

import gm_lab
from gm_experiments.explore import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
