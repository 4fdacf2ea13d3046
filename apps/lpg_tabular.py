"""Learning an update rule: LPG on random MDPs and grid worlds, and its meta-gradient (paper, Table 1, A.4).

Two rules are meta-trained; agents live by them in larger tasks than they were trained in, beside agents that follow
policy gradients and actor-critics, all tuned on the training tasks (figures learning and meta). Bias, variance and
accuracy of LPG's meta-gradient are measured in tiny MDPs, where every trajectory gives the exact one (figure gradient).

    uv run apps/lpg_tabular.py
    uv run apps/lpg_tabular.py --figure gradient --inner-steps 1 2 --estimators ad lvc
"""

import sys

import gm_lab
from gm_experiments.lpg import EXPERIMENT

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
