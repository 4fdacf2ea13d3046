"""The flags, the grid and the cells of the attribution experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import gm_lab
from gm_experiments.attribution.sources import KEY as OF_SHARES
from gm_experiments.attribution.sources import METRICS, OF_PROBLEM, SOURCES, Source, check, curves
from gm_experiments.common import settings as common
from gm_experiments.common.settings import Grid

KEY = (*OF_SHARES, "mdp")
COLUMNS, CURVES = (*KEY, *METRICS), (curves("mdp"),)
GRID = Grid(estimators=("ad", "loaded_dice", "lvc"), permutations=("SSS",), sample_sizes=(64,), inner_steps=(2,))


@dataclass(frozen=True)
class Settings(common.TabularSettings):
    """How much of the meta-gradient's bias and variance has each of its sources, and how does it change with training?

    Without a flag: MAML on random MDPs with K = 2, 64 trajectories for each role and step, after 0 to 30 updates.
    """

    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--points 0 10 --sources composition hessian outer": "Three of the sources, early in training:",
    }

    points: tuple[int, ...] = (0, 3, 10, 30)
    """After how many exact meta-gradient steps to measure."""
    meta_lr: float = 1.0
    """Size of a meta-gradient step."""
    sources: tuple[Source, ...] = SOURCES
    """What is as in practice, sampled or noisy; all else is exact or left out."""
    clip_norm: float = 1.0
    """clipping: the longest that an estimate may be, in units of the exact meta-gradient's length."""


@dataclass(frozen=True)
class Cell(common.Cell):
    """Some MDPs at one K, α and point of training."""

    updates: int = 0
    meta_lr: float = 1.0
    sources: tuple[str, ...] = SOURCES
    clip_norm: float = 1.0


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about: every estimate once for each set of sources that says what is sampled."""
    once = common.need(settings, [GRID])
    exact = common.need(replace(settings, repeats=1, estimators=(), sample_sizes=(0,)), [GRID])
    moments, sets = len(settings.points), 2 ** len(OF_PROBLEM.intersection(settings.sources))
    seconds = moments * sets * once.seconds + sum(settings.points) * exact.seconds
    return gm_lab.Need(moments * once.cells, moments * (len(settings.sources) + 1) * once.rows, once.memory, seconds)


def cells(settings: Settings) -> list[Cell]:
    """One cell for each block of MDPs, K, α and point; raises `BadInput` if a flag is out of range."""
    independent = settings.samples == "independent"
    gm_lab.require(settings, "samples", "independent, since shared_batch is a source", independent)
    gm_lab.require(settings, "permutations", "SSS, since --sources says what is exact", settings.permutations is None)
    gm_lab.require(settings, "meta_lr", "a positive number", settings.meta_lr > 0)
    check(settings)
    chosen = {name: getattr(settings, name) for name in ("meta_lr", "sources", "clip_norm")}
    return [Cell(**vars(cell), updates=point, **chosen)
            for cell in common.cells(settings, {"attribution": GRID})
            for point in settings.points]  # fmt: skip
