"""What is played, how it is learnt and estimated, and the cells that the figures ask for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import gm_lab
from gm_experiments.common.checks import require_cpu
from gm_experiments.common.settings import other_figures

if TYPE_CHECKING:
    import gm_envs_ipd
    from gm_estimators import Estimator
    from gm_estimators.decomposition import Role

Figure = Literal["fig2a", "fig2b", "fig2c", "fig2d", "fig8", "debias"]
LARGEST = 1e30
"""Of payoffs and learning rates: what is computed for every trajectory has single precision, up to 3e38."""

BLOCK = 10
"""Seeds that are computed together."""
BYTES, SECONDS = 24, 2e-8
"""About what each round takes of the trajectories that an update reads."""


@dataclass(frozen=True)
class Game:
    """What is played, how long, and how it is learnt."""

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "updates evaluation_size"}

    game: str = "ipd"
    """ipd, stag-hunt, chicken, matching-pennies or battle-of-the-sexes."""
    payoffs: tuple[float, ...] | None = None
    """Instead of a known game: 8 numbers, R¹[a¹][a²] row by row (action 0 first), then R²[a¹][a²]."""
    cooperative: Literal[0, 1] | None = None
    """With --payoffs: the action that columns and figures call cooperation; 1 if not given."""
    horizon: int = 100
    """T, rounds of a trajectory; the truth has an infinite horizon."""
    discount: float = 0.96
    """γ."""
    updates: int = 500
    """Meta-updates of both players."""
    inner_steps: int = 1
    """K, the steps that a learner looks ahead."""
    inner_lr: float = 0.3
    """α, the size of a step in the look-ahead."""
    outer_lr: float = 0.1
    """Learning rate of Adam for the policies."""
    critic_lr: float = 0.1
    """Learning rate of Adam for the critics."""
    critic: Literal["reward", "return", "none"] = "reward"
    """What the critics predict: the immediate reward as in the paper's experiments, the return, or nothing."""
    learners: Literal["both", "first"] = "both"
    """Who looks ahead: both players, or player 1 against a naive learner."""
    estimator: str = "dice"
    """ad, dice, loaded_dice, loaded_dice@λ, lvc, tmaml, vtrace, or your own as package.module:function; each perhaps
    with +jackknife or +selfnorm, those that read advantages with +vtrace or +vtrace@clip. Your own may carry critic =
    False to be given values of zero."""
    evaluation_size: int = 128
    """Trajectories from which the score is taken after every update."""
    replay_capacity: int = 1024
    """Trajectories that the replay ring holds."""
    max_age: int | None = None
    """Leave out replayed trajectories that are older, in additions to the ring."""
    clip: float | None = None
    """Upper bound of the cumulative importance ratio."""
    self_normalise: bool = False
    """Divide the importance ratios by their mean."""

    def matrix_game(self) -> "gm_envs_ipd.MatrixGame":
        """Returns the game that is meant; raises `ValueError` if there is none or it lacks eight finite payoffs."""
        import gm_envs_ipd as envs

        if self.payoffs is None:
            return envs.game(self.game)
        return envs.game_from_payoffs(self.payoffs, cooperative=1 if self.cooperative is None else self.cooperative)


@dataclass(frozen=True)
class Arm:
    """How many trajectories the look-ahead's gradient (I), its Jacobian (II) and the outer gradient (III) are had from.

    `None` stands for exact. Who replays adds its trajectories to the ring and reads all of it. `baseline` says whether
    a look-ahead that doesn't replay has the critic's, `debias` is the end of the estimator's name.
    """

    name: str
    inner: int | None = 128
    hessian: int | None = 128
    outer: int | None = 128
    shared: bool = False
    replay_inner: bool = False
    replay_hessian: bool = False
    baseline: bool = True
    debias: str = ""

    def permutation(self) -> str:
        """Returns S or E for each of I, II, III."""
        return "".join("E" if size is None else "S" for size in (self.inner, self.hessian, self.outer))

    def drawn(self) -> "dict[Role, int]":
        """Returns how many trajectories are drawn for each role that has a draw of its own."""
        hessian = None if self.shared else self.hessian
        sizes: dict[Role, int | None] = {"inner": self.inner, "hessian": hessian, "outer": self.outer}
        return {role: size for role, size in sizes.items() if size is not None}

    def replays(self, role: "Role") -> bool:
        """Tells whether a role reads the ring; II does what I does where they share their trajectories."""
        return role != "outer" and (self.replay_hessian if role == "hessian" and not self.shared else self.replay_inner)


ARMS: dict[str, tuple[Arm, ...]] = {
    "fig2a": (
        Arm("inner=128 outer=128", shared=True),
        Arm("inner=1024 outer=128", inner=1024, hessian=1024, shared=True),
        Arm("inner=exact outer=128", inner=None, hessian=None),
        Arm("inner=exact outer=exact", inner=None, hessian=None, outer=None),
    ),
    "fig2b": (
        Arm("comp=128 hessian=128"),
        Arm("comp=1024 hessian=128", inner=1024),
        Arm("comp=exact hessian=128", inner=None),
    ),
    "fig2c": (
        Arm("comp=128 hessian=128"),
        Arm("comp=128 hessian=1024", hessian=1024),
        Arm("comp=128 hessian=exact", hessian=None),
    ),
    "fig2d": (
        Arm("comp=on hessian=on"),
        Arm("comp=off hessian=off", shared=True, replay_inner=True, replay_hessian=True),
        Arm("comp=off hessian=on", replay_inner=True),
        Arm("comp=on hessian=off", replay_hessian=True),
    ),
    "debias": (
        Arm("plain 192 + 192", inner=192, hessian=192, outer=192, shared=True),
        Arm("jackknife 128 + 256", shared=True, debias="+jackknife"),
        Arm("plain 24 + 24", inner=24, hessian=24, outer=24, shared=True),
        Arm("jackknife 16 + 32", inner=16, hessian=16, outer=16, shared=True, debias="+jackknife"),
    ),
}
"""The curves of each figure. Figure 8 shows those of Figure 2 with the accuracy of their gradients. A jackknife of two
blocks draws an outer sample for all trajectories of the look-ahead and one half as large for each half, twice as many
trajectories together: of the curves of `debias` each two have one budget."""

POLICY = tuple(f"cooperate_{player}_{state}" for player in (1, 2) for state in ("start", "CC", "CD", "DC", "DD"))
KEY = ("figure", "curve", "seed", "update")
MEASURED = (
    "score", "score_1", "score_2", "accuracy", "accuracy_outer_exact", "correlation", "correlation_outer_exact",
    "error_sq", "truth_sq", "effective_size", "bias", "bias_outer_exact",
)  # fmt: skip
SOURCES = ("hessian_error_sq", "composition_error_sq")
"""What the sampled Hessian, and the sampled step alone, add to the error where the outer gradient is exact."""
COLUMNS = (*KEY, *MEASURED, *POLICY, *SOURCES)
CURVES = (gm_lab.Curves(by=("figure", "curve"), x="update", y=(*MEASURED, *SOURCES), alone="seed"),)
UNIT, BUDGET = "seeds", ("seeds", "updates")


@dataclass(frozen=True)
class Settings(Game, gm_lab.RunSettings):
    """Why does LOLA-DiCE fail to cooperate, and does replay with off-policy DiCE help?

    Without a flag: Figure 2(a-d) and Figure 8 of the paper at its full budget, the exact meta-gradient beside every
    estimate.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "seeds until_decided most_seeds"}
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        '--figure fig2a --curves "inner=128 outer=128"': "One curve, in seconds:",
        "--figure debias --seeds 40": "Does a look-ahead with less bias cooperate more?",
        "--figure fig2a --game stag-hunt": "Another game:",
    }

    figure: tuple[Figure, ...] = ("fig2a", "fig2b", "fig2c", "fig2d", "fig8")
    """Figures to reproduce; fig8 has the curves of all four parts of Figure 2. debias: whether a look-ahead without
    most of its bias of composition cooperates more, at one budget of trajectories."""
    curves: tuple[str, ...] | None = None
    """Only these curves of the figures, e.g. "inner=128 outer=128"."""
    seeds: int = 10
    """Independent runs; the intervals are over these. More of them go on from what --run-dir has."""
    until_decided: bool = False
    """Draws more seeds, 20, 40, 80 and so on, for the claims that are undecided."""
    most_seeds: int = 320
    """With --until-decided: at most so many seeds."""
    inner_baseline: Literal["all", "replay"] = "all"
    """Whether the arms of Figure 2d that don't replay have the baseline too; replay: only those that do, as in the
    paper's code."""


@dataclass(frozen=True)
class Cell:
    """One way to estimate, for a block of seeds, under all the names that the figures have for it."""

    seed: int
    seeds: tuple[int, ...]
    curve: Arm
    names: tuple[tuple[str, str], ...]
    game: Game
    columns: tuple[str, ...]

    def block(self) -> range:
        """Returns the seeds to compute: a whole block, since what an update makes of a seed varies with their number.

        The difference is one of rounding, in the last digit of a sigmoid, but training makes it a large one.
        """
        first = self.seeds[0] // BLOCK * BLOCK
        return range(first, first + BLOCK)


def need(settings: Settings) -> gm_lab.Need:
    """What a run takes, about: the trajectories of an update, and a row for each update and seed."""
    figures = [f for f in ARMS if f in settings.figure or ("fig8" in settings.figure and f != "debias")]
    named = [arm for f in figures for arm in ARMS[f] if settings.curves is None or arm.name in settings.curves]
    arms = {replace(arm, name="") for arm in named}
    every = [learner_need(settings, BLOCK, _read(settings.replay_capacity, arm)) for arm in arms]
    blocks = float(-(-settings.seeds // BLOCK))
    memory = max((each.memory for each in every), default=0) + 8.0 * len(COLUMNS) * settings.updates * BLOCK
    seconds = settings.updates * blocks * sum(each.seconds for each in every)
    return gm_lab.Need(blocks * len(arms), float(len(named) * settings.updates * settings.seeds), memory, seconds)


def learner_need(game: "Settings | Game", seeds: int, read: int) -> gm_lab.Need:
    """What an update takes of so many runs that read so many trajectories in a look-ahead."""
    steps = float(seeds * game.horizon * (read * game.inner_steps + game.evaluation_size))
    return gm_lab.Need(1, 0, BYTES * steps, SECONDS * steps + 4e-3)


def cells(settings: Settings) -> list[Cell]:
    """Returns a cell for each way to estimate and block of seeds; raises `BadInput` if a flag is out of range."""
    _check_numbers(settings)
    game = game_of(settings)
    _check_names(settings, game)
    names = _names(settings)
    _check_sizes(game, names)
    return _in_blocks(settings, names, range(settings.seeds))


def further_cells(settings: Settings, seeds: range, needs: frozenset[str]) -> list[Cell]:
    """Returns the cells of more seeds, for claims that need more of some curves."""
    named = _names(settings)
    return _in_blocks(settings, {arm: of for arm, of in named.items() if needs.intersection(dict(of).values())}, seeds)


def measured_by(settings: Settings, needs: frozenset[str]) -> str:
    """Says with which flag claims would be measured that are about curves of other figures."""
    if "fig8" in settings.figure:
        return ""
    asked = [figure for figure in ARMS if any(arm.name in needs for arm in ARMS[figure])]
    return other_figures(settings.figure, asked)


def _in_blocks(settings: Settings, names: Mapping[Arm, Iterable[tuple[str, str]]], seeds: range) -> list[Cell]:
    """A cell for each way to estimate and block of seeds; blocks begin at multiples of `BLOCK`."""
    game, columns = game_of(settings), (*COLUMNS, *extra_columns(settings))
    cuts = sorted({seeds.start, seeds.stop, *(cut for cut in seeds if cut % BLOCK == 0)})
    blocks = [tuple(range(*cut)) for cut in pairwise(cuts)]
    every = [Cell(settings.seed, b, arm, tuple(named), game, columns) for arm, named in names.items() for b in blocks]
    # the longest first, so that no worker is left with one at the end
    return sorted(every, key=trajectories_read, reverse=True)


def game_of(settings: Settings) -> Game:
    """Returns the part of the settings that says what is played and how it is learnt."""
    return Game(**{field.name: getattr(settings, field.name) for field in fields(Game)})


def extra_columns(settings: Settings) -> tuple[str, ...]:
    """Says how often the players cooperate, where that is asked for."""
    return ("cooperation",) if "debias" in settings.figure else ()


def trajectories_read(cell: Cell) -> int:
    """Counts, about, the trajectories that an update reads."""
    return _read(cell.game.replay_capacity, cell.curve)


def _read(replay_capacity: int, arm: Arm) -> int:
    return sum(replay_capacity if arm.replays(role) else size for role, size in arm.drawn().items())


def estimator_of(game: Game, arm: Arm) -> "Estimator":
    """Returns an arm's estimator in a game; raises `EstimatorError` for none, or one for tabular problems only."""
    import gm_estimators as estimators

    estimator = estimators.load(game.estimator + arm.debias)
    tabular = {
        "+learnt": estimator.critic == "learnt",
        "+correction": estimator.correction,
        "τ": estimator.gae_lambda is not None,
    }
    for part, asked in tabular.items():
        if asked:
            raise estimators.EstimatorError(
                f"expected an estimator without {part}, which only the tabular problems have, got {estimator.name!r}"
            )
    return estimator


def blocks_of(game: Game, arm: Arm) -> int:
    """Returns into how many parts an arm's estimator divides its samples."""
    from gm_estimators.debias import Jackknife

    debias = estimator_of(game, arm).debias
    return debias.blocks if isinstance(debias, Jackknife) else 1


def _check_numbers(settings: Settings) -> None:
    for name in ("horizon", "updates", "inner_steps", "evaluation_size", "replay_capacity", "seeds", "most_seeds"):
        gm_lab.require(settings, name, "an integer of at least 1", getattr(settings, name) >= 1)
    for name in ("inner_lr", "outer_lr", "critic_lr"):
        gm_lab.require(settings, name, "a number above 0 and up to 1e30", 0 < getattr(settings, name) <= LARGEST)
    gm_lab.require(settings, "discount", "0 ≤ γ ≤ 1 − 1e-12", 0 <= settings.discount <= 1 - 1e-12)
    bounded = all(abs(payoff) <= LARGEST for payoff in settings.payoffs or ())
    gm_lab.require(settings, "payoffs", "numbers from −1e30 to 1e30", bounded)
    alone = settings.payoffs is None or settings.game == Game.game
    gm_lab.require(settings, "game", "no --payoffs beside it", alone)
    meant = settings.cooperative is None or settings.payoffs is not None
    gm_lab.require(settings, "cooperative", "--payoffs beside it, since a known game has its own", meant)
    require_cpu(settings)
    gm_lab.require(settings, "clip", "a number above 0", settings.clip is None or settings.clip > 0)
    gm_lab.require(settings, "max_age", "an integer of at least 0", settings.max_age is None or settings.max_age >= 0)
    gm_lab.require(settings, "max_age", "an integer up to 10¹⁵", (settings.max_age or 0) <= 10**15)


def _check_names(settings: Settings, game: Game) -> None:
    try:
        game.matrix_game()
        blocks = blocks_of(game, Arm(""))
    except ValueError as error:
        flag = "" if str(error).startswith(("game:", "payoffs:")) else "estimator: "
        raise gm_lab.BadInput(f"--{flag}{error}") from error
    if "debias" in settings.figure and blocks > 1:
        raise gm_lab.BadInput(
            f"--estimator: expected one without +jackknife, which --figure debias adds, got {settings.estimator!r}"
        )


def _names(settings: Settings) -> dict[Arm, list[tuple[str, str]]]:
    """The different ways to estimate, without a name, each with all (figure, curve) that ask for it."""
    figures = [f for f in ARMS if f in settings.figure or ("fig8" in settings.figure and f != "debias")]
    known = [arm.name for figure in figures for arm in ARMS[figure]]
    if unknown := sorted(set(settings.curves or ()) - set(known)):
        raise gm_lab.BadInput(
            f"--curves: expected some of {', '.join(dict.fromkeys(known))}, {gm_lab.got(unknown[0], known)}"
        )
    names: dict[Arm, list[tuple[str, str]]] = {}
    for figure in figures:
        baseline = figure != "fig2d" or settings.inner_baseline == "all"
        for arm in ARMS[figure]:
            if settings.curves is None or arm.name in settings.curves:
                names.setdefault(replace(arm, name="", baseline=baseline), []).append((figure, arm.name))
    return names


def _check_sizes(game: Game, arms: Iterable[Arm]) -> None:
    """Refuses a ring or a jackknife that the sizes of the arms don't suit."""
    arms = list(arms)
    most = max((size for arm in arms for role, size in arm.drawn().items() if arm.replays(role)), default=1)
    if game.replay_capacity < most:
        raise gm_lab.BadInput(f"--replay-capacity: expected at least {most} trajectories, got {game.replay_capacity}")
    for arm in arms:
        blocks = blocks_of(game, arm)
        ring = [game.replay_capacity] * any(arm.replays(role) for role in arm.drawn())
        if odd := [size for size in (*arm.drawn().values(), *ring) if size % blocks]:
            raise gm_lab.BadInput(f"--estimator: expected parts of {odd[0]} trajectories, got a jackknife of {blocks}")
