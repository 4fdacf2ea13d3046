"""One way to estimate to its rows of results.csv."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

import gm_lab
from gm_estimators import EstimatorError
from gm_experiments.common.checks import require_cpu, require_finite
from gm_experiments.lola.learner import Learner
from gm_experiments.lola.measurements import measurements_of
from gm_experiments.lola.settings import KEY, MEASURED, POLICY, SOURCES, Cell, Game

DIGITS = 8
"""Significant digits of results.csv."""
FINITE = ("score", "score_1", "score_2", "error_sq", "truth_sq", *POLICY, *SOURCES)
"""Measurements that there always are; others are NaN where there is nothing to measure by."""
SMALLER = ("--payoffs", "--inner-lr", "--outer-lr")


def prepare(settings: gm_lab.RunSettings) -> gm_lab.Context:
    """Leaves one thread to each worker, since the workers fill the cores, and refuses another device than the CPU."""
    torch.set_num_threads(1)
    require_cpu(settings)
    return gm_lab.Context(settings.run_dir)


def run_cell(cell: Cell, _context: gm_lab.Context) -> list[gm_lab.Row]:
    """Returns one cell's rows of results.csv; `BadInput` if a user's estimator fails or a number is not finite."""
    block = cell.block()
    # a seed's stream is the same for every curve: what two have in common, they draw alike
    streams = [np.random.Generator(np.random.SFC64(gm_lab.seed_of(cell.seed, "lola", seed))) for seed in block]
    with finite_or_refused(cell.names[0][1]):
        measured = measurements_of(cell.game, Learner(cell.game, cell.curve, len(block), streams).updates())
    of_policies = cooperates(cell.game, measured["action_0"])
    more = [measured[name].unsqueeze(-1) for name in cell.columns[len((*KEY, *MEASURED, *POLICY)) :]]
    table = torch.cat((torch.stack([measured[name] for name in MEASURED], -1), of_policies, *more), -1)
    wanted = [block.index(seed) for seed in cell.seeds]
    rounded = significant(table)[:, wanted].tolist()
    rows: list[gm_lab.Row] = [
        dict(zip(cell.columns, (figure, name, seed, update, *values), strict=True))
        for figure, name in cell.names
        for update, by_seed in enumerate(rounded, start=1)
        for seed, values in zip(cell.seeds, by_seed, strict=True)
    ]
    require_finite(rows[: len(rows) // len(cell.names)], FINITE, *SMALLER)
    return rows


@contextlib.contextmanager
def finite_or_refused(what: str) -> Iterator[None]:
    """Turns numbers that grow too large, and the fault of a user's estimator, into `BadInput`."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused
            yield
    except EstimatorError as error:
        raise gm_lab.BadInput(str(error)) from error
    except ValueError as error:
        advice = "smaller payoffs or learning rates, or a --clip, keep numbers finite"
        raise gm_lab.BadInput(f"{what}: {error} ({advice})") from error


def cooperates(game: Game, action_0: Tensor) -> Tensor:
    """Returns the players' P(cooperation) by state, in the columns' order, of P(action 0) `[*batch, player, state]`."""
    c = game.matrix_game().cooperative
    d = 1 - c
    order = [0, *(1 + 2 * own + other for own, other in ((c, c), (c, d), (d, c), (d, d)))]
    in_order = action_0[..., order].flatten(-2)
    return 1 - in_order if c == 1 else in_order


def significant(values: Tensor, digits: int = DIGITS) -> Tensor:
    """Rounds numbers to that many significant digits, so that small ones keep theirs, and leaves the rest as it is."""
    places = digits - 1 - values.abs().log10().floor()
    power = torch.tensor([10.0**n for n in range(301)], dtype=values.dtype)  # whole powers are exact up to 10²²
    up, down = (power[n.nan_to_num().clamp(0, 300).long()] for n in (places, -places))
    return ((values * up / down).round() * down / up).where(places.abs() <= 300, values)
