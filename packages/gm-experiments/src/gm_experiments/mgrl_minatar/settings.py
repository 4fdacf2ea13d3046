"""The flags of the MinAtar experiment, its columns, and the cells that it is cut into."""

import importlib
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

import gm_lab
from gm_experiments.common.checks import require_cpu
from gm_experiments.mgrl.settings import TERMS
from gm_experiments.mgrl.training import NAMES, Algorithm, described, require_different

if TYPE_CHECKING:
    import gm_mgrl_atari as mgrl

GAMES = {
    "Breakout": "breakout", "Asterix": "asterix", "SpaceInvaders": "space_invaders", "Seaquest": "seaquest",
    "Freeway": "freeway",
}  # fmt: skip
"""The games, and what MinAtar calls their modules."""
ALL = "all"
KEY = ("figure", "game", "algorithm", "seed", "updates")
PROGRESS = ("env_steps", "emulated_steps", "episode_return", "episode_length", "episodes", *NAMES)
COLUMNS = (*KEY, *PROGRESS, *TERMS, "steps_per_second")
CURVES = (
    gm_lab.Curves(
        ("figure", "game", "algorithm"), x="env_steps", y=(*PROGRESS[1:], *TERMS, "steps_per_second"),
        figures=("returns",), alone="seed",
    ),
)  # fmt: skip
UNIT = "seeds"
MEMORY, ENVIRONMENT, STEP = 60e6, 20e3, 40e3
"""About the bytes of a run beside torch, of an environment, and of a step in a window's batches."""
RATE, LOGGED = {"a2c": 18_000.0, "mgrl": 9_000.0, "mgrl-lvc": 9_000.0}, 200
"""About the steps of a core in a second, and the rows of a run."""


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """Does meta-gradient RL gain from correcting its Hessian, in games that a laptop learns?

    Without a flag: A2C, 3-step MGRL and 3-step MGRL with LVC learn Breakout with three seeds each, in about two minutes
    on two cores. All games, for verdicts: --games all --env-steps 1_000_000 --seeds 5, some hours.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "seeds env_steps", "where": "checkpoint_minutes"}
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--game SpaceInvaders --algorithm a2c mgrl-lvc": "Two algorithms on another game:",
        "--games all --env-steps 1_000_000 --seeds 5": "All five games, for hours; stopped runs go on:",
    }

    figure: tuple[Literal["returns"], ...] = ("returns",)
    """returns: returns and meta-parameters along training."""
    games: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--game",))] = ("Breakout",)
    """Breakout Asterix SpaceInvaders Seaquest Freeway, or all."""
    algorithms: Annotated[tuple[Algorithm, ...], tyro.conf.arg(aliases=("--algorithm",))] = ("a2c", "mgrl", "mgrl-lvc")
    """Which to train."""
    seeds: int = 3
    """Independent runs; the intervals are over these."""
    env_steps: int = 300_000
    """Environment steps of kept updates, 1_000_000 for verdicts."""
    envs: int = 64
    """Environments."""
    steps: int = 5
    """Steps of each environment per update."""
    inner_steps: int = 3
    """K, updates that the meta-gradient looks through."""
    schedule: Literal["discard", "online"] = "online"
    """online: of K updates all are kept; discard: only the first, as in the paper, for three times the work."""
    estimator: str | None = None
    """Of MGRL's policy term instead of the algorithm's: ad, lvc, loaded_dice or your own as package.module:function."""
    inner_lr: float = 5e-3
    """Adam's learning rate, which decays linearly to 0."""
    meta_lr: float = 1e-3
    """Learning rate of the meta-parameters."""
    max_grad_norm: float = 0.5
    """Norm to which gradients are clipped."""
    adam_eps: float = 1e-8
    """Adam's ε."""
    conditioned: bool = True
    """Whether the critic is told γ, in A2C as well."""
    checkpoint_minutes: float = 2.0
    """Time between checkpoints; Ctrl-C, SIGTERM or SIGHUP writes one, too, with any number of workers."""


@dataclass(frozen=True)
class MinAtarCell:
    """A cell is one run."""

    root_seed: int
    game: str
    seed: int
    training: "mgrl.Training"


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about."""
    games = len(GAMES) if ALL in settings.games else len(settings.games)
    runs = games * len(settings.algorithms) * settings.seeds
    batch = float(settings.envs) * settings.steps
    memory = MEMORY + ENVIRONMENT * settings.envs + STEP * batch * (settings.inner_steps + 1)
    drawn = settings.inner_steps if settings.schedule == "discard" else 1
    work = max(float(settings.env_steps), batch)
    each = sum(work * (1 if name == "a2c" else drawn) / RATE[name] for name in settings.algorithms)
    return gm_lab.Need(runs, runs * float(LOGGED), memory, games * settings.seeds * each)


def cells(settings: Settings) -> list[MinAtarCell]:
    """Returns one cell per seed, game and algorithm, whole seeds first; `BadInput` if something is missing or bad."""
    require_cpu(settings)
    require_minatar()
    require_flags(settings)
    algorithms = dict.fromkeys(settings.algorithms)
    trainings = {name: training_of(settings, name) for name in algorithms}
    require_different(settings)
    games = games_of(settings)
    runs = [(seed, game, name) for seed in range(settings.seeds) for game in games for name in algorithms]
    return [MinAtarCell(settings.seed, game, seed, trainings[name]) for seed, game, name in runs]


def require_minatar() -> None:
    """Raises `BadInput` if the package that trains or the games are not installed; it imports no game."""
    try:
        importlib.import_module("gm_mgrl_atari")
    except ImportError as error:
        raise _missing(str(error)) from None
    if importlib.util.find_spec("minatar") is None:
        raise _missing("No module named 'minatar'")


def _missing(reason: str) -> gm_lab.BadInput:
    return gm_lab.BadInput(
        "expected gm-experiments[minatar], the extra that has MinAtar's games "
        f"(uv pip install 'gm-experiments[minatar]'); {reason}"
    )


def require_flags(settings: Settings) -> None:
    """Raises `BadInput` if a flag is out of range."""
    for name in ("seeds", "steps", "inner_steps", "envs"):
        gm_lab.require(settings, name, "an integer of at least 1", getattr(settings, name) >= 1)
    batch = settings.envs * settings.steps
    gm_lab.require(settings, "env_steps", f"at least {batch}, the steps of one update", settings.env_steps >= batch)
    gm_lab.require(settings, "checkpoint_minutes", "a positive number", settings.checkpoint_minutes > 0)


def games_of(settings: Settings) -> list[str]:
    """Returns the games, each once and in the one spelling; raises `BadInput` if there is no such game."""
    spelt = {_plain(name): name for name in GAMES}
    found: list[str] = []
    for asked in settings.games:
        if _plain(asked) == ALL:
            found += GAMES
        elif _plain(asked) in spelt:
            found.append(spelt[_plain(asked)])
        else:
            close = get_close_matches(_plain(asked), spelt, 1)
            hint = f" (did you mean {spelt[close[0]]}?)" if close else ""
            raise gm_lab.BadInput(f"--games: expected {', '.join(GAMES)}, or all, got {asked!r}{hint}")
    return list(dict.fromkeys(found))


def _plain(name: str) -> str:
    """A game's name without what differs in spelling: MinAtar/SpaceInvaders-v1 and space_invaders are the same."""
    bare = name.lower().removeprefix("minatar/").removesuffix("-v1").removesuffix("-v0")
    return "".join(letter for letter in bare if letter.isalnum())


def training_of(settings: Settings, algorithm: str) -> "mgrl.Training":
    """Returns what an algorithm's runs depend on besides the seed; raises `BadInput` if a flag is out of range."""
    updates = settings.env_steps // (settings.envs * settings.steps)
    return described(settings, algorithm, updates, settings.envs)


def completed(row: gm_lab.Row) -> gm_lab.Row:
    """Returns the row with every column, NaN where there is no number."""
    return {column: row.get(column, math.nan) for column in COLUMNS}
