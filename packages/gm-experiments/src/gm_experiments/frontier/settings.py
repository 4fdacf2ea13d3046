"""The flags, the figures and the cells of the frontier experiment."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import ClassVar, Literal

import gm_lab
from gm_experiments.common import settings as common
from gm_experiments.common.checks import MOST_UPDATES, require_distinct, require_points
from gm_experiments.common.settings import Grid

Figure = Literal["frontier", "budgets", "training"]
METRICS = ("bias_sq", "variance", "mse", "accuracy", "truth_sq", "value")
KEY = (*common.KEY[:-1], "updates", "gae_lambda", "split", "debias", "mdp")
SIZES = ("inner_size", "hessian_size", "outer_size", "drawn")
COLUMNS = (*KEY, *SIZES, *METRICS)


@dataclass(frozen=True)
class Choices:
    """What there is to choose from beside the estimator."""

    gae_lambdas: tuple[float, ...] = (1.0, 0.9, 0.7)
    splits: tuple[str, ...] = ("1:1:1", "1:1:2", "2:1:1", "1:1", "1:3", "3:1")
    debias: tuple[str, ...] = ("none", "jackknife")


ALL = Grid(estimators=("ad", "loaded_dice", "lvc"), permutations=("SSS",), sample_sizes=(256,))
GRIDS: dict[Figure, Grid] = {
    "frontier": replace(ALL, inner_steps=(1, 3)),
    "budgets": replace(ALL, sample_sizes=(16, 64, 256, 1024), inner_lrs=(3.0, 10.0, 30.0)),
    "training": replace(ALL, estimators=("loaded_dice", "lvc")),
}
CHOICES: dict[Figure, Choices] = {
    "frontier": Choices(),
    "budgets": Choices(gae_lambdas=(1.0, 0.7), splits=("1:1:1", "1:1", "1:3")),
    "training": Choices(gae_lambdas=(1.0,), splits=("1:1",)),
}


@dataclass(frozen=True)
class Settings(common.TabularSettings):
    """I have 256 trajectories for a meta-gradient: which estimator, which λ, split how, with a jackknife or without?

    Without a flag: MAML on random MDPs with one and three inner steps, at the start of exact training and along it.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "updates"}
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--sample-sizes 64 --estimators lvc ad": "Another budget, two estimators:",
        "--figure budgets": "The best choice at every budget and step size:",
        "--figure training": "Whether a debiased estimate trains better:",
    }

    figure: tuple[Figure, ...] = ("frontier",)
    """frontier: bias and variance of every choice; budgets: the best choice for each budget and α; training: what a
    lower bias is worth in MAML training."""
    sample_sizes: tuple[int, ...] | None = None
    """Instead of the figure's: trajectories for one meta-gradient, those of all roles and steps together."""
    gae_lambdas: tuple[float, ...] | None = None
    """Instead of the figure's: λ of the advantages."""
    splits: tuple[str, ...] | None = None
    """Instead of the figure's: a:b:c for inner gradient, Hessian and outer gradient, a:b if the first two share."""
    debias: tuple[str, ...] | None = None
    """Instead of the figure's: none, jackknife, jackknifeB or jackknifeB.p for B blocks and order p."""
    points: tuple[int, ...] = (0, 10, 50)
    """frontier, budgets: after how many exact meta-gradient steps to measure."""
    meta_lr: float = 1.0
    """Size of a meta-gradient step."""
    updates: int = 50
    """training: how many meta-gradient steps."""


@dataclass(frozen=True)
class Cell(common.Cell):
    """Some MDPs at one K, α and budget: at one point, or all of the training for training."""

    choices: Choices = Choices()
    updates: int = 0
    meta_lr: float = 1.0


CURVES = tuple(
    gm_lab.Curves(tuple(column for column in KEY if column not in (x, "mdp")), x, y, over="mdp", figures=(figure,))
    for figure, x, y in (
        ("frontier", "updates", METRICS[:4]), ("budgets", "sample_size", METRICS[:4]),
        ("training", "updates", METRICS[-1:]))
)  # fmt: skip


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    return sum((_need_of(settings, figure) for figure in set(settings.figure)), gm_lab.Need())


def _need_of(settings: Settings, figure: Figure) -> gm_lab.Need:
    grid, choices = GRIDS[figure], CHOICES[figure]
    sizes, steps = settings.sample_sizes or grid.sample_sizes, settings.inner_steps or grid.inner_steps
    kinds = len(settings.estimators or grid.estimators)
    for name, values in vars(choices).items():
        kinds *= len(getattr(settings, name) or values)
    trains, rates = figure == "training", len(settings.inner_lrs or grid.inner_lrs)
    moments, measured = (1, settings.updates + 1) if trains else (len(settings.points), 1)
    followed = 0 if trains else sum(settings.points)
    places = math.ceil(settings.mdps / common.BLOCK) * rates
    # all roles and steps divide a budget, and choices read their samples one after the other
    each = [common.block_need(settings, k, 1, max(sizes), sum(sizes) * kinds / 4) for k in steps]
    exact = [common.block_need(replace(settings, repeats=1), k, 0, 0, 0) for k in steps]
    seconds = measured * moments * sum(e.seconds for e in each) + followed * len(sizes) * sum(e.seconds for e in exact)
    rows = settings.mdps * rates * len(steps) * len(sizes) * moments * kinds * measured
    cells = places * len(steps) * len(sizes) * moments
    return gm_lab.Need(cells, rows, max(e.memory for e in each), places * seconds)


def cells(settings: Settings) -> list[Cell]:
    """One cell for each block of MDPs, K, α, budget and point; raises `BadInput` if a flag is out of range."""
    flag = settings.samples
    gm_lab.require(settings, "samples", "independent, since --splits says what is shared", flag == "independent")
    gm_lab.require(settings, "permutations", "SSS, since every role draws samples", settings.permutations is None)
    gm_lab.require(settings, "meta_lr", "a positive number", settings.meta_lr > 0)
    gm_lab.require(settings, "updates", "an integer of at least 1", settings.updates >= 1)
    gm_lab.require(settings, "updates", f"at most {MOST_UPDATES} updates", settings.updates <= MOST_UPDATES)
    require_distinct("points", settings.points)
    require_points(settings)
    return [cell for figure in dict.fromkeys(settings.figure) for cell in _of_figure(settings, figure)]


def _of_figure(settings: Settings, figure: Figure) -> Iterator[Cell]:
    from gm_experiments.frontier import problem

    chosen = _chosen(settings, figure)
    points = (settings.updates,) if figure == "training" else settings.points
    for cell in common.cells(settings, {figure: GRIDS[figure]}):
        ((_, grid),) = cell.grids
        problem.require_plain(grid.estimators)
        for size, point in product(grid.sample_sizes, points):
            for split, debias in product(chosen.splits, chosen.debias):
                problem.allocate(size, problem.split_of(split), problem.debias_of(debias), cell.inner_steps)
            one = replace(grid, sample_sizes=(size,), inner_steps=(cell.inner_steps,), inner_lrs=(cell.inner_lr,))
            own = vars(cell) | {"grids": ((figure, one),)}
            yield Cell(**own, choices=chosen, updates=point, meta_lr=settings.meta_lr)


def _chosen(settings: Settings, figure: Figure) -> Choices:
    from gm_experiments.frontier import problem

    values = {field.name: getattr(settings, field.name) for field in fields(Choices)}
    chosen = Choices(**{k: getattr(CHOICES[figure], k) if v is None else v for k, v in values.items()})
    for name in values:
        require_distinct(name, getattr(chosen, name))
    for value in chosen.gae_lambdas:
        if not 0 <= value <= 1:
            raise gm_lab.BadInput(f"--gae-lambdas: expected numbers from 0 to 1, got {value}")
    problem.require_different("debias", {name: problem.debias_of(name) for name in chosen.debias})
    problem.require_different("splits", {name: problem.split_of(name).shares for name in chosen.splits})
    return chosen
