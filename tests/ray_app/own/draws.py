"""What a cell imports."""

import numpy as np

import gm_lab


def normal(cell):
    return np.random.default_rng(gm_lab.seed_of(cell.seed, "number", cell.number)).normal()
