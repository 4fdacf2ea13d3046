"""What only the driver has."""

import numpy as np

import gm_lab


def rows(cell):
    draw = np.random.default_rng(gm_lab.seed_of(cell.seed, "number", cell.number))
    return [{"number": cell.number, "value": draw.normal()}]
