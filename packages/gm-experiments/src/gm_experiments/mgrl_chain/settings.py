"""The flags of MGRL in the discounting chain, and the cells that they are cut into."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Final, Literal

import gm_lab
from gm_experiments.common.checks import require_cpu, require_distinct

KEY = ("figure", "curve", "method", "estimator", "critic", "seed", "update")
MEASURED = ("episode_return", "gamma", "best_arm")
COLUMNS = (*KEY, *MEASURED)
"""The return is the policy's own, by its probabilities; `best_arm` is the probability of the chain worth most."""
CURVES = (gm_lab.Curves(by=("figure", "curve"), x="update", y=MEASURED, alone="seed"),)
UNIT = "seeds"
BLOCK = 10
"""Seeds that are computed together."""
FIXED: Final = "fixed"
META: Final = "meta-gradient"
TARGET: Final = "bootstrapped"
INNER: Final = "inner"
OUTER: Final = "outer"
POINTS = 160
"""At about so many updates rows are kept."""
SECONDS = 1e-2
"""A window of three updates of a block takes about so long."""
TABLES = 4e6
"""Bytes that are kept of an update of a block until the meta-gradient is there."""


@dataclass(frozen=True)
class Chain:
    """The agents, their critics, and how γ is learnt; published values are those of the authors' code."""

    updates: int = 2400
    """Updates of an agent; published: 50,000 at --inner-lr 0.5. Their product is about the same here."""
    inner_lr: float = 10.0
    """α, the size of an update; published: 0.5."""
    inner_steps: int = 3
    """K, updates that a meta-gradient looks through; agents go on from where it ends. Published: 1."""
    trajectories: int = 128
    """Episodes of an update, as published."""
    entropy: float = 0.005
    """Coefficient of the policy's entropy in the inner and the outer objective, as published."""
    gae_lambda: float = 0.0
    """λ of the advantages of both objectives, as published; with 1 the outer critic is but a baseline."""
    discount: float = 0.95
    """γ where it begins, as published."""
    least_discount: float = 0.9
    """γ = least + (1 − least) σ(φ) can't leave this range; as published, which is where a γ of 0.90 comes from."""
    outer_discount: float = 1.0
    """γ of the outer objective, as published."""
    meta_lr: float = 0.1
    """Adam's learning rate for φ, as published."""
    target_steps: int = 1
    """L, further updates to the bootstrapped target, the last of which ascends the outer objective; as published."""
    values: Literal["learnt", "exact"] = "learnt"
    """Where critics have their values from: learnt from the returns of each batch, or exact, as published."""
    critic_lr: float = 0.5
    """Of learnt critics: how far a value moves to the return that followed it."""


@dataclass(frozen=True)
class Settings(Chain, gm_lab.RunSettings):
    """Does a meta-gradient find the discount that a task needs, and what does its critic do to that?

    Without a flag: MGRL in bsuite's discounting chain with AD and LVC, each with the inner critic in the outer
    objective, which biases it, and with a critic of its own; a bootstrapped target; and agents with a fixed discount.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "seeds until_decided most_seeds"}
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--methods meta-gradient --estimators ad": "The published comparison alone, in half a minute:",
        "--inner-steps 1 --inner-lr 0.5 --updates 50000": "The published sizes of updates, in hours:",
    }

    methods: tuple[Literal["meta-gradient", "bootstrapped", "fixed"], ...] = (META, TARGET, FIXED)
    """How γ is learnt: by the meta-gradient of the outer objective, from a bootstrapped target, or not at all."""
    estimators: tuple[str, ...] = ("ad", "lvc")
    """Of the updates that a meta-gradient looks through: ad, dice, loaded_dice, lvc, or your own as
    package.module:function."""
    critics: tuple[Literal["inner", "outer"], ...] = (INNER, OUTER)
    """Which critic the outer objective has: the inner one, which is of the γ that is learnt, or one of its own."""
    targets: tuple[str, ...] = ("ad",)
    """Estimators of the updates where γ is learnt from a bootstrapped target."""
    discounts: tuple[float, ...] = (0.95, 1.0)
    """γ of the agents that don't learn it."""
    seeds: int = 10
    """Independent runs; the intervals are over these. More of them go on from what --run-dir has."""
    until_decided: bool = False
    """Draws more seeds, 20, 40, 80 and so on, for the claims that are undecided."""
    most_seeds: int = 80
    """With --until-decided: at most so many seeds."""


@dataclass(frozen=True)
class Curve:
    """One way to learn γ, or a fixed one."""

    method: str
    estimator: str = "ad"
    critic: str = ""
    discount: float | None = None

    @property
    def name(self) -> str:
        """What the curve is called in results.csv."""
        if self.discount is not None:
            return f"γ = {self.discount:g}"
        return f"{self.estimator} {self.method} {self.critic}"


@dataclass(frozen=True)
class ChainCell:
    """One curve, for a block of seeds."""

    seed: int
    seeds: tuple[int, ...]
    curve: Curve
    chain: Chain

    def block(self) -> range:
        """Returns the seeds to compute: a whole block, since rounding varies with their number."""
        first = self.seeds[0] // BLOCK * BLOCK
        return range(first, first + BLOCK)


LARGEST = 1e30
RANGES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    (
        "updates inner_steps trajectories target_steps seeds most_seeds",
        "an integer of at least 1",
        lambda number: number >= 1,
    ),
    ("inner_lr meta_lr", "a number above 0 and up to 1e30", lambda number: 0 < number <= LARGEST),
    ("entropy", "a number from 0 to 1e30", lambda number: 0 <= number <= LARGEST),
    ("critic_lr", "a number above 0 and up to 1", lambda number: 0 < number <= 1),
    ("gae_lambda", "0 ≤ λ ≤ 1", lambda number: 0 <= number <= 1),
    ("outer_discount", "0 ≤ γ ≤ 1", lambda number: 0 <= number <= 1),
    ("discounts", "0 ≤ γ ≤ 1", lambda numbers: all(0 <= number <= 1 for number in numbers)),
    ("least_discount", "0 ≤ γ < 1", lambda number: 0 <= number < 1),
)
"""Flags, what they must be in words, and whether they are."""


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    curves, blocks = len(curves_of(settings)), math.ceil(settings.seeds / BLOCK)
    windows = max(1.0, settings.updates / settings.inner_steps)
    steps = 100.0 * BLOCK * settings.trajectories
    whole = not {*settings.estimators, *settings.targets} <= {"ad", "lvc"}
    each = float(settings.inner_steps + settings.target_steps) * (SECONDS / 4 + steps * (2e-8 + 6e-8 * whole))
    rows = curves * settings.seeds * (2.0 + min(windows, 2 * POINTS))
    memory = 1e8 + settings.inner_steps * (TABLES + 100 * steps * whole) + 30 * steps
    return gm_lab.Need(float(curves * blocks), rows, memory, curves * blocks * windows * each)


def curves_of(settings: Settings) -> list[Curve]:
    """Returns what is learnt by whom, in the order in which people read of it."""
    ways = {META: settings.estimators, TARGET: settings.targets}
    learnt = [Curve(method, name, critic) for method, names in ways.items() if method in settings.methods
              for name in names for critic in settings.critics]  # fmt: skip
    fixed = [Curve(FIXED, discount=discount) for discount in settings.discounts]
    return learnt + fixed * (FIXED in settings.methods)


def cells(settings: Settings) -> list[ChainCell]:
    """Returns a cell for each curve and block of seeds; raises `BadInput` if a flag is out of range."""
    require_flags(settings)
    return _in_blocks(settings, curves_of(settings), range(settings.seeds))


def further_cells(settings: Settings, seeds: range, needs: frozenset[str]) -> list[ChainCell]:
    """Returns the cells of more seeds, for claims that need more of some curves."""
    return _in_blocks(settings, [curve for curve in curves_of(settings) if curve.name in needs], seeds)


def measured_by(settings: Settings, needs: frozenset[str]) -> str:
    """Says with which flags claims would be measured that are about other curves."""
    missing = needs - {curve.name for curve in curves_of(settings)}
    lacking = {
        field for name in missing for field in ("critics", "estimators", "methods") if _asks(field, name, settings)
    }
    flags = [f"--{field} {' '.join(getattr(Settings(), field))}" for field in sorted(lacking)]
    return f"{' '.join(flags)} would measure more" if flags else ""


def _asks(field: str, curve: str, settings: Settings) -> bool:
    """Whether a curve of a meta-gradient is missing for want of a value of that flag."""
    estimator, method, critic = curve.split()
    asked = {"critics": critic, "estimators": estimator, "methods": method}[field]
    return method == META and asked not in getattr(settings, field)


def _in_blocks(settings: Settings, curves: Iterable[Curve], seeds: range) -> list[ChainCell]:
    """A cell for each curve and block of seeds; blocks begin at multiples of `BLOCK`."""
    chain = Chain(**{field.name: getattr(settings, field.name) for field in fields(Chain)})
    cuts = sorted({seeds.start, seeds.stop, *(cut for cut in seeds if cut % BLOCK == 0)})
    blocks = [tuple(range(*cut)) for cut in pairwise(cuts)]
    return [ChainCell(settings.seed, block, curve, chain) for curve in curves for block in blocks]


def require_flags(settings: Settings) -> None:
    """Raises `BadInput` if a flag is out of range."""
    require_cpu(settings)
    for names, expected, holds in RANGES:
        for name in names.split():
            gm_lab.require(settings, name, expected, holds(getattr(settings, name)))
    inside = settings.least_discount < settings.discount < 1
    gm_lab.require(
        settings, "discount", f"a number between --least-discount, {settings.least_discount:g}, and 1", inside
    )
    fits = settings.updates % settings.inner_steps == 0
    gm_lab.require(settings, "updates", f"a multiple of --inner-steps, {settings.inner_steps}", fits)
    for name in ("methods", "estimators", "critics", "targets", "discounts"):
        require_distinct(name, getattr(settings, name))
    _require_known("estimators", settings.estimators)
    _require_known("targets", settings.targets)


def _require_known(flag: str, names: Sequence[str]) -> None:
    import gm_estimators as estimators

    for name in names:
        try:
            estimators.load(name, suffixes=False)
        except estimators.EstimatorError as error:
            raise gm_lab.BadInput(f"--{flag}: {error}") from error
