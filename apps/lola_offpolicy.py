"""Why LOLA-DiCE fails to cooperate in the iterated prisoner's dilemma, and what replay with off-policy DiCE does.

Two players learn by meta-gradients of a look-ahead whose inner gradient, Jacobian and outer gradient are each
estimated from few or many trajectories, replayed ones, or exact: Figure 2 (a-d) of the paper is the reward per round
along training, Figure 8 the accuracy of the gradients. `debias` compares look-aheads without most of their bias.

    uv run apps/lola_offpolicy.py
    uv run apps/lola_offpolicy.py --figure fig2a --curves "inner=128 outer=128" --game stag-hunt
    uv run apps/lola_offpolicy.py --figure debias --seeds 40
"""

import sys

import gm_lab
from gm_experiments.lola import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
