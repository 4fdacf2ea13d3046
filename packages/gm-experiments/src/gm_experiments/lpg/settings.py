"""The flags of LPG's meta-training and study, and the cells that they are cut into."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Literal

import gm_lab
from gm_experiments.common.checks import require_cpu
from gm_experiments.common.settings import other_figures

KEY = (
    "figure", "rule", "seed", "kind", "update", "task", "lr", "critic_lr", "gae_lambda",
    "estimator", "permutation", "sample_size", "inner_steps", "mdp",
)  # fmt: skip
MEASURED = ("score", "accuracy", "variance", "bias_sq", "expected_accuracy", "expected_bias_sq")
COLUMNS = (*KEY, *MEASURED)
TEXT = ("figure", "rule", "kind", "task", "estimator", "permutation")
"""Columns of text."""
CURVES = (
    gm_lab.Curves(
        by=("figure", "rule", "kind"), x="update", y=("score",), over="task", figures=("learning",), alone="seed",
    ),
    gm_lab.Curves(
        by=("figure", "estimator", "permutation", "sample_size"), x="inner_steps",
        y=("accuracy", "variance", "bias_sq"), over="mdp", figures=("gradient",),
    ),
)  # fmt: skip
UNIT = "rules"
UNIT, GROWS = "rules", ("mdps",)
BLOCK = 10
"""Tiny MDPs that are measured together."""
LEARNT, HAND_MADE = "lpg", ("policy_gradient", "actor_critic")
LEARNING = 1.0
"""Seconds in which the study's rule is learnt, at each K."""
FOR_THE_MEAN = "_for_the_mean"
"""Ends the name of a rule that is tuned for the mean over a lifetime instead of its end."""
CORRECTED = "corrected"
"""Not of the catalogue: AD with the update's derivative corrected by the score of the whole trajectory."""


@dataclass(frozen=True)
class Lpg:
    """The tasks, the lives of agents in them, the rule and its meta-training."""

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "tasks meta_updates"}

    side: int = 4
    """Training tasks have side² + 1 states: grid worlds of side × side cells, and random MDPs of that size."""
    horizon: int = 20
    """T, steps of a trajectory."""
    discount: float = 0.95
    """γ."""
    trajectories: int = 2
    """Trajectories of an update of an agent."""
    lifetime: int = 100
    """Updates of an agent until another begins anew in another task."""
    window: int = 5
    """K, updates that a meta-gradient looks through; agents go on from where it ends."""
    inner_lr: float = 3.0
    """α, the size of an agent's update."""
    prediction_weight: float = 1.0
    """α_y, the size of the predictions' part of it."""
    hidden: int = 32
    """Size of the LSTM."""
    predictions: int = 8
    """m, the length of a prediction vector."""
    estimator: str = "lvc"
    """Of the updates in meta-training: ad, dice, loaded_dice, lvc, or your own as package.module:function."""
    tasks: int = 256
    """Lives that go on at the same time."""
    meta_updates: int = 600
    """Windows of meta-training."""
    meta_lr: float = 5e-3
    """Adam's learning rate for the rule, which decays linearly to 0."""
    outer_trajectories: int = 16
    """Trajectories of the outer objective."""
    policy_entropy: float = 0.01
    """Coefficient of the policies' entropy in the outer objective."""
    prediction_entropy: float = 1e-3
    """Coefficient of the predictions' entropy in the outer objective."""
    target_penalty: float = 1e-3
    """Coefficient of the squares of the targets π̂ and ŷ in the outer objective."""
    gae_lambda: float = 0.95
    """λ of the outer advantages."""
    critic_lr: float = 0.3
    """Step size of the critics of the outer objective, which the rule never sees."""


@dataclass(frozen=True)
class Settings(Lpg, gm_lab.RunSettings):
    """Does a learnt update rule (LPG) beat tuned policy gradients in tasks it has not seen, and how good is AD for it?

    Without a flag: meta-training of ten rules, their lives in larger tasks than they were trained in beside those of
    policy gradients and actor-critics, tuned on the training tasks; and the bias and variance of LPG's meta-gradient,
    with the exact one from every trajectory of tiny MDPs.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {
        "how much": "rules held_out tuning_tasks mdps repeats until_decided most_rules",
    }
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--rules 2": "Two rules instead of ten, in minutes:",
        "--figure gradient --inner-steps 1 2 --estimators ad lvc": "The study of the meta-gradient alone:",
    }

    figure: tuple[Literal["learning", "gradient"], ...] = ("learning", "gradient")
    """learning: scores over a lifetime; gradient: the meta-gradient's bias and variance."""
    rules: int = 10
    """Independent meta-trainings; the intervals are over these and over tasks. More of them go on from what --run-dir
    has."""
    held_out: int = 100
    """Held-out tasks of each kind."""
    held_out_side: int = 6
    """Held-out tasks have side² + 1 states."""
    tuning_tasks: int = 32
    """Training tasks of each kind in which rules are tuned, learnt and hand-made ones alike."""
    inner_lrs: tuple[float, ...] = (0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 5.0)
    """α among which the hand-made rules are tuned, for each kind of task by itself."""
    lr_scales: tuple[float, ...] = (0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
    """Multiples of α among which the learnt rules are tuned, likewise."""
    critic_lrs: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Step sizes of the critic among which the actor-critic is tuned."""
    gae_lambdas: tuple[float, ...] = (0.8, 0.95)
    """λ among which the actor-critic is tuned."""
    estimators: tuple[str, ...] = ("ad", "lvc", "loaded_dice", "dice", CORRECTED)
    """Of the study: ad, dice, loaded_dice, lvc, corrected (unbiased derivatives), or package.module:function."""
    sample_sizes: tuple[int, ...] = (16, 64, 256)
    """Of the study: trajectories of an update."""
    inner_steps: tuple[int, ...] = (1, 2, 3, 5)
    """Of the study: K."""
    until_decided: bool = False
    """Learns more rules, 20, 40 and so on, and draws as many tiny MDPs, for the claims that are undecided."""
    most_rules: int = 40
    """With --until-decided: at most so many rules, of which each takes about a minute, and tiny MDPs."""
    mdps: int = 10
    """Of the study: tiny MDPs; the intervals are over these."""
    repeats: int = 20
    """Of the study: independent estimates in each MDP."""


LARGEST = 1e30
"""Rules are learnt in single precision, up to 3e38."""
RANGES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    (
        "horizon trajectories lifetime window hidden predictions tasks meta_updates outer_trajectories rules held_out "
        "tuning_tasks mdps most_rules",
        "an integer of at least 1",
        lambda number: number >= 1,
    ),
    ("side held_out_side repeats", "an integer of at least 2", lambda number: number >= 2),
    ("inner_lr meta_lr", "a number above 0 and up to 1e30", lambda number: 0 < number <= LARGEST),
    (
        "prediction_weight policy_entropy prediction_entropy target_penalty critic_lr",
        "a number from 0 to 1e30",
        lambda number: 0 <= number <= LARGEST,
    ),
    (
        "inner_lrs lr_scales critic_lrs",
        "numbers above 0 and up to 1e30",
        lambda numbers: all(0 < number <= LARGEST for number in numbers),
    ),
    ("sample_sizes inner_steps", "integers of at least 1", lambda numbers: min(numbers) >= 1),
    ("discount", "0 ≤ γ < 1", lambda number: 0 <= number < 1),
    ("gae_lambda", "0 ≤ λ ≤ 1", lambda number: 0 <= number <= 1),
    ("gae_lambdas", "0 ≤ λ ≤ 1", lambda numbers: all(0 <= number <= 1 for number in numbers)),
)
"""Flags, what they must be in words, and whether they are."""


@dataclass(frozen=True)
class Tuning:
    """Rules are tuned over these: α, and the actor-critic over the critic's step size and λ too."""

    inner_lrs: tuple[float, ...]
    learnt_lrs: tuple[float, ...]
    critic_lrs: tuple[float, ...]
    gae_lambdas: tuple[float, ...]


@dataclass(frozen=True)
class LpgCell:
    """A cell learns a rule, tunes a hand-made one, or measures the meta-gradient at one K."""

    seed: int
    part: str
    index: int
    lpg: Lpg
    held_out: tuple[int, int]
    tuning: Tuning | None = None
    tuning_tasks: int = 0
    study: tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], int] | None = None


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    parts = {"learning": _learning_need, "gradient": _gradient_need}
    return sum((parts[figure](settings) for figure in set(settings.figure)), gm_lab.Need())


def _learning_need(s: Settings) -> gm_lab.Need:
    """Windows of meta-training, whose steps all have an LSTM's activations, then the lives of many agents."""
    trials = len(s.lr_scales), len(s.inner_lrs) * (1 + len(s.critic_lrs) * len(s.gae_lambdas))
    steps = float(s.tasks * s.horizon) * (s.window * s.trajectories * s.hidden + s.outer_trajectories)
    tables, held_out = (n * float(side) ** 4 * 4 for n, side in ((s.tasks, s.side), (s.held_out, s.held_out_side)))
    weights = 4.0 * s.hidden * (s.hidden + s.predictions)
    lives = float(max(s.tuning_tasks, s.held_out) * s.lifetime)
    lived = 4 * (s.rules * trials[0] + trials[1]) * lives * s.horizon
    lived *= s.trajectories * s.hidden * 1e-8 + s.side**4 * 4e-9
    trained = s.rules * s.meta_updates * (steps * 2e-8 + tables * s.horizon * 1e-9 + weights * 1e-9)
    rows = 4.0 * (s.rules + len(HAND_MADE)) * s.held_out * s.lifetime / 5
    memory = 4 * 8 * steps + 48 * (tables + held_out) + 16 * weights + 8 * lives + 100.0 * s.meta_updates
    return gm_lab.Need(s.rules + len(HAND_MADE), rows, memory, trained + lived)


def _gradient_need(s: Settings) -> gm_lab.Need:
    """Estimates of the study, each with the activations of all its steps."""
    each = float(min(s.mdps, BLOCK) * s.repeats * max(s.sample_sizes))
    blocks = -(-s.mdps // BLOCK)
    rows = 2.0 * len(s.estimators) * len(s.sample_sizes) * s.mdps * len(s.inner_steps)
    seconds = 2.0 * s.mdps * s.repeats * sum(s.sample_sizes) * len(s.estimators) * sum(s.inner_steps) * 5e-6
    seconds += float(blocks * len(s.inner_steps)) * LEARNING
    return gm_lab.Need(float(blocks * len(s.inner_steps)), rows, 8 * 300 * each * max(s.inner_steps), seconds)


def cells(settings: Settings) -> list[LpgCell]:
    """Returns the longest cells first: rules to learn, rules to tune, then the study; `BadInput` for a bad flag."""
    require_cpu(settings)
    require_flags(settings)
    listed = []
    if "learning" in settings.figure:
        rules = [(LEARNT, index) for index in range(settings.rules)] + [(rule, 0) for rule in reversed(HAND_MADE)]
        listed = _learning_cells(settings, rules)
    if "gradient" in settings.figure:
        listed += _gradient_cells(settings, range(settings.mdps))
    return listed


def further_cells(settings: Settings, units: range, needs: frozenset[str]) -> list[LpgCell]:
    """Returns the cells of more rules, and of as many tiny MDPs, for the claims about the one or the other."""
    listed = []
    if "learning" in needs:
        listed = _learning_cells(settings, [(LEARNT, index) for index in units])
    if "gradient" in needs:
        listed += _gradient_cells(settings, range(max(units.start, settings.mdps), units.stop))
    return listed


def measured_by(settings: Settings, needs: frozenset[str]) -> str:
    """Says with which flag claims would be measured that are about the other part."""
    return other_figures(settings.figure, sorted(needs))


def _learning_cells(settings: Settings, rules: Sequence[tuple[str, int]]) -> list[LpgCell]:
    lpg = Lpg(**{field.name: getattr(settings, field.name) for field in fields(Lpg)})
    held_out = settings.held_out, settings.held_out_side
    scaled = tuple(scale * settings.inner_lr for scale in settings.lr_scales)
    tuning = Tuning(settings.inner_lrs, scaled, settings.critic_lrs, settings.gae_lambdas)
    return [LpgCell(settings.seed, *rule, lpg, held_out, tuning, settings.tuning_tasks) for rule in rules]


def _gradient_cells(settings: Settings, mdps: range) -> list[LpgCell]:
    """Cells of the study, each of one K and a block of MDPs; blocks begin at multiples of `BLOCK`."""
    cuts = sorted({mdps.start, mdps.stop, *(cut for cut in mdps if cut % BLOCK == 0)})
    names = tuple(dict.fromkeys(settings.estimators))
    studies = [(names, settings.sample_sizes, tuple(range(*cut)), settings.repeats) for cut in pairwise(cuts)]
    steps = sorted(set(settings.inner_steps), reverse=True)
    return [LpgCell(settings.seed, "gradient", k, Lpg(), (1, 2), study=study) for k in steps for study in studies]


def require_flags(settings: Settings) -> None:
    """Raises `BadInput` if a flag is out of range."""
    import gm_estimators as estimators

    for names, expected, holds in RANGES:
        for name in names.split():
            gm_lab.require(settings, name, expected, holds(getattr(settings, name)))
    fits = settings.lifetime % settings.window == 0
    gm_lab.require(settings, "lifetime", f"a multiple of the window, {settings.window}", fits)
    named = [("estimator", settings.estimator)]
    named += [("estimators", name) for name in settings.estimators if name != CORRECTED]
    for flag, name in named:
        try:
            estimators.load(name, suffixes=False)
        except estimators.EstimatorError as error:
            raise gm_lab.BadInput(f"--{flag}: {error}") from error


def completed(row: gm_lab.Row) -> gm_lab.Row:
    """Returns the row with every column: no text where there is none, NaN where there is no number."""
    return {column: row.get(column, "" if column in TEXT else math.nan) for column in COLUMNS}
