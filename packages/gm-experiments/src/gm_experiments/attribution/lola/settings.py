"""The flags and the cells of the attribution experiment in matrix games."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

import gm_lab
from gm_experiments.attribution.sources import KEY as OF_SHARES
from gm_experiments.attribution.sources import OF_PROBLEM, SOURCES, Source, check
from gm_experiments.common.checks import require_cpu
from gm_experiments.common.settings import BLOCK
from gm_experiments.lola.settings import LARGEST, Game, learner_need

KEY = (*OF_SHARES, "seed")


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """How much of a LOLA learner's error has each of its sources, and how does it change with training?

    Without a flag: three estimators in the iterated prisoner's dilemma, 128 trajectories a role, after 0 to 50 updates.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "seeds repeats"}
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--points 0 20 --path sampled": "Along what the estimates themselves train:",
    }

    game: str = Game.game
    """ipd, stag-hunt, chicken, matching-pennies or battle-of-the-sexes."""
    horizon: int = Game.horizon
    """T, rounds of a trajectory; the truth has an infinite horizon."""
    discount: float = Game.discount
    """γ."""
    inner_steps: int = Game.inner_steps
    """K, the steps that a learner looks ahead."""
    inner_lr: float = Game.inner_lr
    """α, the size of a step in the look-ahead."""
    outer_lr: float = Game.outer_lr
    """Learning rate of Adam for the policies."""
    critic_lr: float = Game.critic_lr
    """Learning rate of Adam for the critics."""
    critic: Literal["reward", "return", "none"] = Game.critic
    """critic: what it predicts in practice, the immediate reward as in the paper's experiments, the return, or nothing;
    ideal are the values of the present policies."""
    estimators: tuple[str, ...] = ("dice", "loaded_dice", "lvc")
    """ad, dice, loaded_dice, lvc, or your own as package.module:function."""
    sample_sizes: tuple[int, ...] = (128,)
    """Trajectories for each role and step."""
    points: tuple[int, ...] = (0, 10, 20, 30, 50)
    """After how many updates to measure."""
    path: Literal["exact", "sampled"] = "exact"
    """What was followed up to there: exact meta-gradients, or the estimates that are measured."""
    sources: tuple[Source, ...] = SOURCES
    """What is as in practice, sampled or learnt; all else is exact or left out."""
    clip_norm: float = 1.0
    """clipping: the longest that a learner's estimate may be, in units of its exact meta-gradient's length."""
    seeds: int = 10
    """Independent runs; the intervals are over these."""
    repeats: int = 16
    """Independent estimates at each point of a run, from which bias and variance are told apart."""


@dataclass(frozen=True)
class Cell:
    """Some runs at one point of training."""

    seed: int
    runs: tuple[int, ...]
    game: Game
    estimators: tuple[str, ...]
    sample_sizes: tuple[int, ...]
    path: str
    sources: tuple[str, ...]
    clip_norm: float
    repeats: int


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about: training up to each point, and every estimate once for each set of sources there."""
    game = Game(**{f.name: getattr(settings, f.name) for f in fields(Game) if hasattr(settings, f.name)})
    runs, kinds, moments = min(BLOCK, settings.seeds), len(settings.estimators), len(settings.points)
    blocks, sets = math.ceil(settings.seeds / BLOCK), 2 ** len(OF_PROBLEM.intersection(settings.sources))
    trains = [learner_need(game, runs, 3 * size) for size in settings.sample_sizes]
    measures = [learner_need(game, runs * settings.repeats, 3 * size) for size in settings.sample_sizes]
    seconds = sum(settings.points) * sum(each.seconds for each in trains)
    seconds += 5 * moments * sets * sum(each.seconds for each in measures)
    rows = settings.seeds * moments * kinds * len(settings.sample_sizes) * (len(settings.sources) + 1)
    memory = 5 * max(each.memory for each in measures)  # the permutations keep their paths
    return gm_lab.Need(blocks * moments, rows, memory, blocks * kinds * seconds)


def cells(settings: Settings) -> list[Cell]:
    """Returns one cell for each block of runs and point; raises `BadInput` if a flag is out of range."""
    require_cpu(settings)
    _check_numbers(settings)
    check(settings)
    _check_names(settings)
    game = Game(**{f.name: getattr(settings, f.name) for f in fields(Game) if hasattr(settings, f.name)})
    blocks = [tuple(range(first, min(first + BLOCK, settings.seeds))) for first in range(0, settings.seeds, BLOCK)]
    return [
        Cell(
            settings.seed, block, replace(game, updates=point), settings.estimators, settings.sample_sizes,
            settings.path, settings.sources, settings.clip_norm, settings.repeats,
        )
        for point in sorted(settings.points, reverse=True)
        for block in blocks
    ]  # fmt: skip


def _check_numbers(settings: Settings) -> None:
    for name, least in (("horizon", 1), ("inner_steps", 1), ("seeds", 1), ("repeats", 2)):
        gm_lab.require(settings, name, f"an integer of at least {least}", getattr(settings, name) >= least)
    for name in ("inner_lr", "outer_lr", "critic_lr"):
        gm_lab.require(settings, name, "a number above 0 and up to 1e30", 0 < getattr(settings, name) <= LARGEST)
    gm_lab.require(settings, "discount", "0 ≤ γ < 1", 0 <= settings.discount < 1)
    gm_lab.require(settings, "sample_sizes", "integers of at least 1", min(settings.sample_sizes) >= 1)
    for name in ("estimators", "sample_sizes"):
        values = getattr(settings, name)
        gm_lab.require(settings, name, "different values", len(set(values)) == len(values))


def _check_names(settings: Settings) -> None:
    import gm_envs_ipd as envs
    from gm_estimators import load

    try:
        envs.game(settings.game)
        for name in settings.estimators:
            load(name, suffixes=False)
    except ValueError as error:
        raise gm_lab.BadInput(f"--{'' if str(error).startswith('game:') else 'estimators: '}{error}") from error
