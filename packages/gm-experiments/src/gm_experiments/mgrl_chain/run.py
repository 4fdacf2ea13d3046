"""A cell learns one curve for a block of seeds, and returns its rows."""

from collections.abc import Callable

import numpy as np
import torch

import gm_lab
from gm_experiments.common.checks import estimators_are_input, require_cpu, require_finite
from gm_experiments.mgrl_chain.learner import Learner
from gm_experiments.mgrl_chain.settings import MEASURED, POINTS, ChainCell, Settings

SMALLER = ("--inner-lr", "--entropy")


def prepare(settings: Settings) -> gm_lab.Context:
    """Gives each worker one thread, since the workers fill the cores, and refuses another device than the CPU."""
    torch.set_num_threads(1)
    require_cpu(settings)
    return gm_lab.Context(settings.run_dir)


def run_cell(cell: ChainCell, _context: gm_lab.Context) -> list[gm_lab.Row]:
    """Computes one cell's rows of results.csv; raises `BadInput` if a user's estimator fails."""
    learner, rows = new_learner(cell), list[gm_lab.Row]()
    updates, window = cell.chain.updates, cell.chain.inner_steps
    every = window * max(1, updates // window // POINTS)
    rows += rows_of(cell, learner, 0)
    with estimators_are_input():
        for done in learner.windows():
            if done % every == 0 or done == updates:
                rows += rows_of(cell, learner, done)
                gm_lab.progressed(done, updates)
                require_finite(rows[-len(cell.seeds) :], MEASURED, *SMALLER)
    return rows


def new_learner(cell: ChainCell) -> Learner:
    """Returns the agents of a cell's block; a seed's numbers are the same whatever is learnt from them."""

    def streams(purpose: str) -> list[np.random.Generator]:
        seed: Callable[[int], int] = lambda number: gm_lab.seed_of(cell.seed, "chain", purpose, number)  # noqa: E731
        return [np.random.Generator(np.random.SFC64(seed(number))) for number in cell.block()]

    return Learner(cell.chain, cell.curve, streams("first"), streams("inner"), streams("outer"))


def rows_of(cell: ChainCell, learner: Learner, update: int) -> list[gm_lab.Row]:
    """Returns what the agents of the seeds that are asked for are worth after so many updates."""
    chosen = learner.chains.log_policy(learner.weights)[:, 0].exp()
    best = chosen[:, learner.chains.worth.argmax()]
    measured = torch.stack([learner.chains.score(learner.weights), learner.discount(learner.phi), best], -1).tolist()
    curve, block = cell.curve, cell.block()
    key: gm_lab.Row = {"figure": "chain", "curve": curve.name, "method": curve.method}
    estimator = "" if curve.discount is not None else curve.estimator
    key |= {"estimator": estimator, "critic": curve.critic}
    return [
        {**key, "seed": seed, "update": update, **dict(zip(MEASURED, measured[block.index(seed)], strict=True))}
        for seed in cell.seeds
    ]
