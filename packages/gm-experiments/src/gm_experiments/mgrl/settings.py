"""The flags of the Atari experiment, its columns, and the cells that it is cut into."""

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

import gm_lab
from gm_experiments.common.checks import require_device
from gm_experiments.mgrl.training import NAMES, Algorithm, described, require_different

if TYPE_CHECKING:
    import gm_mgrl_atari as mgrl

PAPER_ENVS, DEMO_ENVS, DEMO_UPDATES = 64, 8, 80
TOO_FEW = 100_000
"""Environment steps in which A2C learns to play no game that we tried; the paper's runs have 400 times as many."""
PAPER_GAMES = ("Asteroids", "Qbert", "Tennis", "BeamRider", "Alien", "Assault", "DoubleDunk", "Seaquest")
PARTS = (
    "emulation", "policy inference", "inner losses and gradients", "outer loss and meta-gradient", "optimisers",
    "log and checkpoints",
)  # fmt: skip
"""The parts of a run's time, as `gm_mgrl_atari` names them."""
KEY = ("figure", "game", "algorithm", "seed", "updates", "variant")
PROGRESS = ("env_steps", "emulated_steps", "episode_return", "episode_length", "episodes", *NAMES)
TERMS = ("policy_term", "value_term", "entropy_term")
RATES = ("steps_per_second", "emulator_steps_per_second", "learner_steps_per_second")
MEASURES, ENDS = ("accuracy", "bias_sq", "variance", "change", "same", "spread"), ("", "_low", "_high")
"""Of meta-gradients, and the ends of their intervals."""
INTERVALS = tuple(f"{measure}{end}" for measure in MEASURES for end in ENDS)
QUALITY = ("windows", *INTERVALS, "distance", *(f"gradient_{name}" for name in NAMES))
SECONDS = tuple(f"seconds_{part.replace(' ', '_')}" for part in PARTS)
"""Wall time of a run's parts, since it was last begun."""
COLUMNS = (*KEY, *PROGRESS, *TERMS, *RATES, *SECONDS, *QUALITY)
CURVES = (
    gm_lab.Curves(
        ("figure", "game", "algorithm"), x="env_steps", y=(*PROGRESS[1:], *TERMS, "steps_per_second"),
        figures=("returns",), alone="seed",
    ),
)  # fmt: skip

EMULATOR, FRAMES, RATE, LOGGED = 1e6, 28_224.0, 800.0, 500
"""About the bytes of an emulator and of an observation, steps of a core in a second, and the rows of a run."""
DISCARDING, ONLINE, STUDIED = 1.7, 2.0, 10.0
"""What they cost, in A2C updates: a batch of a discarding window, an online update, a batch that is studied."""


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """MGRL on Atari. Without a flag it has too few steps (3,200) to learn to play: it shows the meta-gradient itself.

    The demonstration, of some minutes on two cores, trains A2C, 3-step MGRL and 3-step MGRL with LVC on one game. It
    shows how the meta-parameters begin to move, how fast all is, and what one window's meta-gradient is worth: which
    estimators agree on it, its spread, direction and bias. The paper's run, which takes days, asks whether correcting
    the Hessian helps: --games Qbert --env-steps 40_000_000 --seeds 5.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {
        "how much": "seeds env_steps gradient_windows",
        "where": "checkpoint_minutes",
    }
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--game Breakout --env-steps 100_000 --algorithm a2c": "A2C alone on another game, for some minutes:",
        "--games Qbert --env-steps 40_000_000 --seeds 5 --device cuda": "One of the paper's games, for days:",
    }

    figure: tuple[Literal["returns", "gradient"], ...] = ("returns", "gradient")
    """returns: Figures 3, 9 and 10; gradient: the meta-gradient's bias, variance and direction at points of a run."""
    games: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--game",))] = ("Qbert",)
    """The paper's: Asteroids Qbert Tennis BeamRider Alien Assault DoubleDunk Seaquest; or any other that ALE has."""
    algorithms: Annotated[tuple[Algorithm, ...], tyro.conf.arg(aliases=("--algorithm",))] = ("a2c", "mgrl", "mgrl-lvc")
    """Which to train; gradient is measured in runs of the last one."""
    seeds: int = 1
    """Independent runs; the intervals are over these."""
    env_steps: int | None = None
    """Environment steps of kept updates, 40_000_000 in the paper; the demonstration's 3,200 if not given."""
    envs: int | None = None
    """Environments; 64 as in the paper, 8 in the demonstration."""
    steps: int = 5
    """Steps of each environment per update."""
    inner_steps: int = 3
    """K, updates that the meta-gradient looks through."""
    schedule: Literal["discard", "online"] = "discard"
    """discard: of K updates only the first is kept, as in the paper; online: all are kept."""
    estimator: str | None = None
    """Of MGRL's policy term instead of the algorithm's: ad, lvc, loaded_dice or your own as package.module:function."""
    inner_lr: float = 7e-4
    """Adam's learning rate, which decays linearly to 0."""
    meta_lr: float = 1e-3
    """Learning rate of the meta-parameters."""
    max_grad_norm: float = 0.5
    """Norm to which gradients are clipped."""
    adam_eps: float = 1e-8
    """Adam's ε."""
    conditioned: bool = True
    """Whether the critic is told γ, in A2C as well; the reference code's A2C isn't."""
    gradient_points: tuple[float, ...] = (0.0, 0.5)
    """Where in a run the meta-gradient is measured, as parts of its updates; at the end the learning rate is 0."""
    gradient_windows: int = 24
    """Windows of K + 1 batches at each point."""
    checkpoint_minutes: float = 10.0
    """Time between checkpoints; Ctrl-C, SIGTERM or SIGHUP writes one, too, with any number of workers."""


@dataclass(frozen=True)
class MgrlCell:
    """A cell is one run, and at how many updates its meta-gradient is measured."""

    root_seed: int
    game: str
    seed: int
    training: "mgrl.Training"
    points: tuple[int, ...]
    windows: int


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about: emulators, and the activations of the batches of a window."""
    envs = envs_of(settings)
    batch = envs * settings.steps
    updates = DEMO_UPDATES if settings.env_steps is None else settings.env_steps // max(1, batch)
    runs = len(settings.games) * len(settings.algorithms) * settings.seeds
    window = batch * (settings.inner_steps + 1)
    batches = updates * (settings.inner_steps + 1 if settings.schedule == "discard" else 2)
    studied = settings.gradient_windows * window if "gradient" in settings.figure else 0
    memory = EMULATOR * envs + FRAMES * (2.0 * window + studied)
    seconds = (batches * batch + 5.0 * len(settings.gradient_points) * studied) / RATE
    return gm_lab.Need(runs, runs * float(min(updates, LOGGED)), memory, runs * seconds)


def foreword(settings: Settings) -> Sequence[str]:
    """Says of a run that is too short to learn anything that it is, and what it shows instead."""
    steps = DEMO_UPDATES * DEMO_ENVS * settings.steps if settings.env_steps is None else settings.env_steps
    if steps > TOO_FEW:
        return ()
    shown = ["the speed"]
    if {*settings.algorithms} - {"a2c"}:
        shown.insert(0, "how the meta-parameters begin to move")
    if "gradient" in settings.figure:
        what = "the meta-gradient itself (which estimators agree on it, its spread, direction and bias over windows)"
        shown.insert(0, what)
    *most, last = shown
    listed = f"{', '.join(most)} and {last}" if most else last
    return (f"{steps:,} steps are too few to learn to play; what they show is {listed}",)


def training_work(training: "mgrl.Training") -> float:
    """What training costs, in A2C updates."""
    if training.algorithm == "a2c":
        return float(training.updates)
    return training.updates * (ONLINE if training.schedule == "online" else DISCARDING * (training.inner_steps + 1))


def study_work(cell: MgrlCell) -> float:
    """What one point of a run costs at which the meta-gradient is measured, in A2C updates."""
    return STUDIED * cell.windows * (cell.training.inner_steps + 1)


def weight(cell: MgrlCell) -> float:
    """What a cell costs, in steps of A2C."""
    work = training_work(cell.training) + study_work(cell) * len(cell.points)
    return work * cell.training.envs * cell.training.steps


def cells(settings: Settings) -> list[MgrlCell]:
    """Returns one cell per game, seed and algorithm; `BadInput` if the extra is missing or a flag is bad."""
    require_device(settings)
    require_atari()
    require_flags(settings)
    algorithms, games = dict.fromkeys(settings.algorithms), games_of(settings)
    runs = [(game, seed, name) for game in games for seed in range(settings.seeds) for name in algorithms]
    listed: list[MgrlCell] = []
    for game, seed, algorithm in runs:
        training = training_of(settings, algorithm)
        studied = "gradient" in settings.figure and algorithm == settings.algorithms[-1]
        points = points_of(settings, training) if studied else ()
        listed.append(MgrlCell(settings.seed, game, seed, training, points, settings.gradient_windows))
    # the longest of each game and seed first, lest it is what all wait for
    listed.sort(key=lambda cell: (games.index(cell.game), cell.seed, -weight(cell)))
    require_different(settings)
    return listed


def require_atari() -> None:
    """Raises `BadInput` if the package that trains is not installed."""
    try:
        importlib.import_module("gm_mgrl_atari")
    except ImportError as error:
        raise gm_lab.BadInput(f"expected gm-experiments[atari], the extra that trains on Atari; {error}") from None


def require_flags(settings: Settings) -> None:
    """Raises `BadInput` if a flag is out of range."""
    for name in ("seeds", "steps", "inner_steps"):
        gm_lab.require(settings, name, "an integer of at least 1", getattr(settings, name) >= 1)
    gm_lab.require(settings, "envs", "an integer of at least 1", envs_of(settings) >= 1)
    batch = envs_of(settings) * settings.steps
    enough = settings.env_steps is None or settings.env_steps >= batch
    gm_lab.require(settings, "env_steps", f"at least {batch}, the steps of one update", enough)
    gm_lab.require(settings, "gradient_windows", "an integer of at least 2", settings.gradient_windows >= 2)
    inside = all(0 <= point <= 1 for point in settings.gradient_points)
    gm_lab.require(settings, "gradient_points", "numbers from 0 to 1", inside)
    gm_lab.require(settings, "checkpoint_minutes", "a positive number", settings.checkpoint_minutes > 0)


def envs_of(settings: Settings) -> int:
    """Returns the number of environments, which the paper and the demonstration have of their own."""
    return settings.envs if settings.envs is not None else PAPER_ENVS if settings.env_steps else DEMO_ENVS


def games_of(settings: Settings) -> list[str]:
    """Returns the games, each once and in the one spelling; raises `BadInput` if ALE has no such game."""
    import gm_mgrl_atari as mgrl

    try:
        return list(dict.fromkeys(mgrl.game_name(game) for game in settings.games))
    except ValueError as error:
        raise gm_lab.BadInput(f"--games: {error}") from error


def training_of(settings: Settings, algorithm: str) -> "mgrl.Training":
    """Returns what an algorithm's runs depend on besides the seed; raises `BadInput` if a flag is out of range."""
    envs = envs_of(settings)
    updates = DEMO_UPDATES if settings.env_steps is None else settings.env_steps // (envs * settings.steps)
    return described(settings, algorithm, updates, envs)


def points_of(settings: Settings, training: "mgrl.Training") -> tuple[int, ...]:
    """Returns after how many updates the meta-gradient is measured, in the online schedule at the end of a window.

    Raises `BadInput` if a window there would reach the end of training, where the learning rate is 0.
    """
    from gm_mgrl_atari import study

    at = {round(part * training.updates) for part in settings.gradient_points}
    if training.schedule == "online":
        at = {-(-point // training.inner_steps) * training.inner_steps for point in at}
    expected = (
        f"points whose windows of {training.inner_steps} updates end within the run's {training.updates}, after which "
        "the learning rate is 0 (--figure returns measures none)"
    )
    gm_lab.require(settings, "gradient_points", expected, max(at) <= study.last_point(training))
    return tuple(sorted(at))


def completed(row: gm_lab.Row) -> gm_lab.Row:
    """Returns the row with every column: no text where there is none, NaN where there is no number."""
    return {column: row.get(column, "" if column == "variant" else math.nan) for column in COLUMNS}
