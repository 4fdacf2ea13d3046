"""The flags of exact MGRL, and the cells that they are cut into."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Literal

import gm_lab
from gm_experiments.common.checks import require_device, require_distinct, require_points
from gm_experiments.common.settings import BLOCK, SECONDS, TENSORS, MDPs, other_figures

Figure = Literal["steps", "sources", "schedules"]
META_PARAMS = ("gamma", "gae_lambda", "value_coef", "entropy_coef", "inner_lr")
ALL = "all"
"""Stands for the five meta-parameters together."""
CORRECTED = "corrected"
"""Not of the catalogue: every way in which an update depends on θ counts, see `problem.CorrectedUpdate`."""
KEY = (
    "figure", "schedule", "batches", "estimator", "permutation", "sample_size", "inner_steps", "updates", "meta_param",
    "mdp",
)  # fmt: skip
METRICS = ("accuracy", "correlation", "variance", "std_sum", "bias_sq", "relative_bias")
EXPECTED = ("truth", "expected_bias_sq", "expected_relative_bias", "expected_error")
COLUMNS = (*KEY, *METRICS, *EXPECTED, "value")
TEXT = ("figure", "schedule", "batches", "estimator", "permutation", "meta_param")
"""Columns of text."""
UNIT, GROWS = "mdps", ()
EXACT_BLOCK = 40
"""MDPs of a cell in which nothing is sampled: few numbers, so that calls cost more than these."""
CURVES = (
    gm_lab.Curves(
        by=("figure", "batches", "estimator", "permutation", "sample_size", "updates", "meta_param"), x="inner_steps",
        y=(*METRICS, *EXPECTED[1:]), over="mdp", figures=("steps",),
    ),
    gm_lab.Curves(
        by=("figure", "estimator", "updates"), x="inner_steps", y=EXPECTED[1:], over="mdp", figures=("sources",)
    ),
    gm_lab.Curves(
        by=("figure", "schedule", "batches", "estimator"), x="updates", y=("accuracy", "relative_bias", "value"),
        over="mdp", figures=("schedules",),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Mgrl(MDPs):
    """The random MDPs, the actor-critic that learns in them, and what is sampled; γ of the MDPs is the outer one."""

    gamma: float = 0.7
    """γ of the inner updates, a meta-parameter, where they begin."""
    gae_lambda: float = 0.9
    """λ of the inner updates, a meta-parameter, where they begin."""
    value_coef: float = 0.1
    """Weight of the critic's term, a meta-parameter, where it begins."""
    entropy_coef: float = 0.01
    """Weight of the entropy's term, a meta-parameter, where it begins."""
    inner_lr: float = 10.0
    """α, the size of an inner update, a meta-parameter, where it begins."""
    outer_lambda: float = 0.95
    """λ of the outer advantages where the outer gradient is sampled."""


@dataclass(frozen=True)
class Settings(Mgrl, gm_lab.RunSettings):
    """How biased is MGRL's meta-gradient, from how many inner steps on, in which meta-parameter, and what is it from?

    Without a flag: an actor-critic in random MDPs, whose expected update and meta-gradient are exact, with K = 1 … 7
    inner steps; what each way in which an update depends on its parameters is worth; and MGRL that trains by each
    estimator, by both schedules.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "mdps windows until_decided most_mdps"}
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--figure sources --mdps 100": "What the bias is from, exactly, in more MDPs:",
        "--figure steps --estimators ad lvc --inner-steps 1 2": "Two estimators, up to two steps:",
    }

    figure: tuple[Figure, ...] = ("steps", "sources", "schedules")
    """steps: bias and variance by K and by meta-parameter; sources: the exact bias that each source leaves;
    schedules: estimates along training, discarding or keeping what was learnt in a window."""
    estimators: tuple[str, ...] = ("ad", "lvc", "loaded_dice", CORRECTED)
    """ad, lvc, loaded_dice, corrected (every source of bias in the Hessian is), or package.module:function."""
    permutations: tuple[str, ...] = ("ESE", "SSS")
    """Of steps: S (sampled) or E (exact) for the inner gradient, the Hessian and the outer gradient."""
    sample_sizes: tuple[int, ...] = (64,)
    """Trajectories per estimate; schedules have the most of them."""
    batches: tuple[Literal["own", "shared"], ...] = ("own", "shared")
    """own: every role draws its own at each step; shared: the Hessian reads those of the inner gradient, and online a
    window's first step those of the outer gradient before it."""
    inner_steps: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    """K of steps and sources."""
    points: tuple[int, ...] = (0, 20)
    """Of steps and sources: after how many exact updates to measure."""
    schedule: tuple[Literal["discard", "online"], ...] = ("discard", "online")
    """Of schedules: whether a window's updates but the first are taken back when it is over."""
    window: int = 3
    """Of schedules: K, updates of a window."""
    windows: int = 12
    """Of schedules: how many windows."""
    meta_lr: float = 0.1
    """Of schedules: size of a meta-gradient step, in the logarithm of α and the logits of the others."""
    mdps: int = 10
    """Random MDPs; the intervals are over these. More of them go on from what --run-dir has."""
    until_decided: bool = False
    """Draws more MDPs, 20, 40, 80 and so on, for the claims that are undecided."""
    most_mdps: int = 320
    """With --until-decided: at most so many MDPs."""


@dataclass(frozen=True)
class Cell:
    """Some MDPs at one K: for steps and sources at all points, for schedules along a training."""

    figure: str
    seed: int
    mdps: tuple[int, ...]
    inner_steps: int
    mgrl: Mgrl
    estimators: tuple[str, ...] = ()
    permutations: tuple[str, ...] = ()
    sample_sizes: tuple[int, ...] = ()
    batches: tuple[str, ...] = ()
    points: tuple[int, ...] = ()
    schedule: tuple[str, ...] = ()
    windows: int = 0
    meta_lr: float = 0.0


RANGES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    (
        "states actions horizon mdps most_mdps window windows",
        "an integer of at least 1",
        lambda number: number >= 1,
    ),
    ("repeats", "an integer of at least 2", lambda number: number >= 2),
    ("discount", "0 ≤ γ < 1", lambda number: 0 <= number < 1),
    ("gamma gae_lambda value_coef entropy_coef", "a number above 0 and below 1", lambda number: 0 < number < 1),
    ("inner_lr meta_lr", "a number above 0 and up to 1e30", lambda number: 0 < number <= 1e30),
    ("outer_lambda", "0 ≤ λ ≤ 1", lambda number: 0 <= number <= 1),
    ("concentration", "a positive number up to 1e300", lambda number: 0 < number <= 1e300),
    ("inner_steps sample_sizes", "integers of at least 1", lambda numbers: min(numbers) >= 1),
)
"""Flags, what they must be in words, and whether they are."""


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    parts = {"steps": _steps_need, "sources": _sources_need, "schedules": _schedules_need}
    return sum((parts[figure](settings) for figure in set(settings.figure)), gm_lab.Need())


def _steps_need(s: Settings) -> gm_lab.Need:
    points, steps = float(len(s.points)), [float(k) for k in s.inner_steps]
    measured = points * sum(steps) + _before(s)
    read = float(sum(s.sample_sizes) * len(s.estimators) * (len(s.permutations) + 1))
    rows = s.mdps * points * len(steps) * read / max(1, min(s.sample_sizes)) * (len(META_PARAMS) + 1)
    return _blocks(s, max(steps), measured, float(max(s.sample_sizes)), read, rows)


def _before(s: Settings) -> float:
    """Exact updates after which something is measured."""
    return float(sum(s.points)) * len(s.inner_steps)


def _sources_need(s: Settings) -> gm_lab.Need:
    steps = float(sum(s.inner_steps) * len(s.points))
    deepest = float(max(s.inner_steps)) * EXACT_BLOCK / BLOCK
    return _blocks(s, deepest, 15 * steps + _before(s), 0, 0, 60.0 * s.mdps)


def _schedules_need(s: Settings) -> gm_lab.Need:
    kinds = float(len(s.estimators) * len(s.schedule) * len(s.batches))
    steps, most = float(s.window) * s.windows * kinds, float(max(s.sample_sizes))
    return _blocks(s, float(s.window), steps * s.repeats, most, most / s.repeats, s.mdps * float(s.windows) * kinds)


def _blocks(s: Settings, deepest: float, steps: float, most: float, read: float, rows: float) -> gm_lab.Need:
    """Updates of a block, each with all that is sampled for it and an exact one of each MDP."""
    mdps, blocks = min(BLOCK, s.mdps), math.ceil(s.mdps / BLOCK)
    pairs = float(s.states * s.actions)
    sampled = float(mdps * s.repeats * s.horizon)
    memory = 8 * (TENSORS * sampled * most * deepest + mdps * pairs * s.states * 3 + mdps * pairs * s.horizon * deepest)
    seconds = steps * (sampled * read * SECONDS / 2 + mdps * s.horizon * pairs * s.states * 2e-9)
    return gm_lab.Need(blocks * len(s.inner_steps), rows, memory, blocks * seconds)


def cells(settings: Settings) -> list[Cell]:
    """The longest cells first, each of one K and a block of MDPs; raises `BadInput` for a bad flag."""
    require_flags(settings)
    return _cells_of(settings, settings.figure, range(settings.mdps))


def further_cells(settings: Settings, units: range, needs: frozenset[str]) -> list[Cell]:
    """The cells of more MDPs, of the figures that claims need more of."""
    return _cells_of(settings, [figure for figure in settings.figure if figure in needs], units)


def measured_by(settings: Settings, needs: frozenset[str]) -> str:
    """Says with which flag claims would be measured that are about another figure."""
    return other_figures(settings.figure, sorted(needs))


def _cells_of(settings: Settings, figures: Sequence[str], mdps: range) -> list[Cell]:
    """Blocks begin at multiples of their size."""
    mgrl = Mgrl(**{field.name: getattr(settings, field.name) for field in fields(Mgrl)})
    names, steps = tuple(dict.fromkeys(settings.estimators)), sorted(set(settings.inner_steps), reverse=True)
    of_figure: dict[str, dict[str, Any]] = {
        "schedules": {
            "estimators": names, "sample_sizes": (max(settings.sample_sizes),), "batches": settings.batches,
            "schedule": settings.schedule, "windows": settings.windows, "meta_lr": settings.meta_lr,
        },
        "steps": {
            "estimators": names, "permutations": settings.permutations, "sample_sizes": settings.sample_sizes,
            "batches": settings.batches, "points": settings.points,
        },
        "sources": {"points": settings.points},
    }  # fmt: skip
    return [
        Cell(figure, settings.seed, block, k, mgrl, **terms)
        for figure, terms in of_figure.items()
        if figure in figures
        for k in ([settings.window] if figure == "schedules" else steps)
        for block in _blocks_of(mdps, EXACT_BLOCK if figure == "sources" else BLOCK)
    ]


def _blocks_of(mdps: range, size: int) -> list[tuple[int, ...]]:
    cuts = sorted({mdps.start, mdps.stop, *(cut for cut in mdps if cut % size == 0)})
    return [tuple(range(*cut)) for cut in pairwise(cuts)]


def require_flags(settings: Settings) -> None:
    """Raises `BadInput` if a flag is out of range."""
    require_device(settings)
    for names, expected, holds in RANGES:
        for name in names.split():
            gm_lab.require(settings, name, expected, holds(getattr(settings, name)))
    for name in ("figure", "permutations", "sample_sizes", "batches", "inner_steps", "points", "schedule"):
        require_distinct(name, getattr(settings, name))
    require_points(settings)
    _require_known(settings)


def _require_known(settings: Settings) -> None:
    import gm_estimators as estimators

    for permutation in settings.permutations:
        if permutation not in estimators.PERMUTATIONS:
            known = estimators.PERMUTATIONS
            expected = f"a permutation of {', '.join(known)}"
            raise gm_lab.BadInput(f"--permutations: expected {expected}, {gm_lab.got(permutation, known)}")
    for name in settings.estimators:
        if name == CORRECTED:
            continue
        try:
            estimator = estimators.load(name, suffixes=False)
        except estimators.EstimatorError as error:
            raise gm_lab.BadInput(f"--estimators: {error}") from error
        if estimator.reads != "advantages" or not estimator.takes_values:
            expected = f"an estimator that reads advantages, such as ad, lvc or loaded_dice, or {CORRECTED}"
            raise gm_lab.BadInput(f"--estimators: expected {expected}, got {name}")


def completed(row: gm_lab.Row) -> gm_lab.Row:
    """The row with every column: no text where there is none, NaN where there is no number."""
    return {column: row.get(column, "" if column in TEXT else math.nan) for column in COLUMNS}
