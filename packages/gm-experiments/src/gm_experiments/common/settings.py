"""The settings and cells of the tabular experiments: random MDPs, and grids over them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

import gm_lab
from gm_experiments.common.checks import require_device

# what gm_estimators names so, written out because settings import no torch; a test compares the two
ESTIMATORS = ("ad", "dice", "loaded_dice", "lvc")
PERMUTATIONS = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")
# few enough for the caches, enough to hide what a call costs
BLOCK = 5
TENSORS, SECONDS = 12, 1e-7
"""About how many numbers are kept of each step of a trajectory, and how long each estimator takes to read it."""
KEY = ("figure", "algorithm", "estimator", "permutation", "sample_size", "inner_steps", "inner_lr", "mdp")
UNIT, BUDGET = "mdps", ("mdps", "repeats")
METRICS = ("accuracy", "correlation", "variance", "std_sum", "bias_sq")
MEASURED = (*METRICS, "truth_sq")
"""The last is ‖∇φJ‖² of the exact meta-gradient, by which squared biases of different K and α compare."""
COLUMNS = (*KEY, *MEASURED)
Need = tuple[str, str, str, tuple[tuple[str, float], ...]]
"""What a claim needs: figure, estimator, permutation, and values of some of sample_size, inner_steps, inner_lr."""


def curves(x: str, *figures: str) -> gm_lab.Curves:
    """Each estimator and permutation is a curve over `x`, averaged over the MDPs."""
    by = tuple(column for column in KEY if column not in (x, "mdp"))
    return gm_lab.Curves(by=by, x=x, y=METRICS, over="mdp", figures=figures)


@dataclass(frozen=True)
class Grid:
    """Every combination of these is one measurement."""

    estimators: tuple[str, ...] = ESTIMATORS
    permutations: tuple[str, ...] = PERMUTATIONS
    sample_sizes: tuple[int, ...] = (32,)
    inner_steps: tuple[int, ...] = (1,)
    inner_lrs: tuple[float, ...] = (10.0,)

    def override(self, **values: tuple[object, ...] | None) -> "Grid":
        """The grid with the values that aren't `None` replaced; raises `BadInput` if one is out of range."""
        grid = replace(self, **{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type]
        for name, chosen in vars(grid).items():
            if not chosen or len(set(chosen)) < len(chosen):
                raise _refused(name, f"expected different values, at least one, got {list(chosen)}")
        for name, kind in {"sample_sizes": "integer", "inner_steps": "integer", "inner_lrs": "number"}.items():
            for value in getattr(grid, name):
                if not 0 < value < math.inf:
                    raise _refused(name, f"expected a positive {kind}, got {value}")
        for permutation in grid.permutations:
            if permutation not in PERMUTATIONS:
                expected = f"a permutation of {', '.join(PERMUTATIONS)}"
                raise _refused("permutations", f"expected {expected}, {gm_lab.got(permutation, PERMUTATIONS)}")
        _require_known(grid.estimators)
        return grid

    def points(self) -> list[tuple[int, float]]:
        """All (K, α)."""
        return [(k, a) for k in self.inner_steps for a in self.inner_lrs]


def _require_known(names: tuple[str, ...]) -> None:
    import gm_estimators

    for name in names:
        try:
            gm_estimators.load(name)
        except ValueError as error:
            raise _refused("estimators", str(error)) from error


def _refused(field: str, why: str) -> gm_lab.BadInput:
    return gm_lab.BadInput(f"--{field.replace('_', '-')}: {why}")


@dataclass(frozen=True)
class MDPs:
    """The random MDPs, and how often something is estimated in each."""

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "repeats"}

    repeats: int = 20
    """Independent estimates in each MDP, from which bias and variance are told apart."""
    states: int = 20
    """States of an MDP."""
    actions: int = 5
    """Actions in each state."""
    horizon: int = 20
    """Steps of a trajectory; the truth has an infinite horizon."""
    discount: float = 0.8
    """γ."""
    concentration: float = 0.001
    """Dirichlet parameter of the transition probabilities; small means almost deterministic."""


@dataclass(frozen=True)
class Tabular(MDPs):
    """The random MDPs, and what is sampled in them."""

    critic_noise: float = 1.0
    """Error of the critic: its standard deviation in units of ‖V‖₂ / states."""
    critic: Literal["paper", "all", "none"] = "paper"
    """Who gets the critic: everyone but DiCE as in the paper, all, or none."""
    samples: Literal["independent", "shared"] = "independent"
    """Whether the Hessian is estimated from trajectories of its own, or from those of the inner gradient."""


@dataclass(frozen=True)
class TabularSettings(Tabular, gm_lab.RunSettings):
    """Flags of every tabular app."""

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "mdps"}

    estimators: tuple[str, ...] | None = None
    """Instead of the figure's: ad, dice, loaded_dice, lvc, tmaml, loaded_dice@λ, loaded_dice@λ,τ, or your own as
    package.module:function; each perhaps with +learnt, +jackknife or +correction."""
    permutations: tuple[str, ...] | None = None
    """Instead of the figure's: S (sampled) or E (exact) for the inner gradient, the Hessian and the outer gradient."""
    sample_sizes: tuple[int, ...] | None = None
    """Instead of the figure's: trajectories per estimate."""
    inner_steps: tuple[int, ...] | None = None
    """Instead of the figure's: K, policy-gradient steps in the inner loop."""
    inner_lrs: tuple[float, ...] | None = None
    """Instead of the figure's: α, the size of an inner step."""
    mdps: int = 10
    """Random MDPs; the intervals are over these. More of them go on from what --run-dir has."""


@dataclass(frozen=True)
class UntilDecided:
    """Flags of the tabular apps that judge claims of the paper."""

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "until_decided most_mdps"}

    until_decided: bool = False
    """Draws more MDPs, 20, 40, 80 and so on, for the claims that are undecided."""
    most_mdps: int = 640
    """With --until-decided: at most so many MDPs."""


@dataclass(frozen=True)
class Cell:
    """Some MDPs at one K and α, for all that the figures ask there."""

    seed: int
    mdps: tuple[int, ...]
    inner_steps: int
    inner_lr: float
    grids: tuple[tuple[str, Grid], ...]
    tabular: Tabular
    unused: tuple[str, ...] = ()
    """Columns that only other cells of the run have something for."""

    @property
    def terms(self) -> dict[str, Any]:
        """K and α as keywords."""
        return {"inner_steps": self.inner_steps, "inner_lr": self.inner_lr}


def cells(settings: TabularSettings, figures: Mapping[str, Grid], kind: type[Tabular] = Tabular) -> list[Cell]:
    """One cell, with the flags of `kind`, for each block of MDPs, K and α; raises `BadInput` if one is out of range."""
    require_device(settings)
    for name, least in (("mdps", 1), ("repeats", 2), ("states", 1), ("actions", 1), ("horizon", 1)):
        gm_lab.require(settings, name, f"an integer of at least {least}", getattr(settings, name) >= least)
    gm_lab.require(settings, "discount", "0 ≤ γ < 1", 0 <= settings.discount < 1)
    gm_lab.require(settings, "concentration", "a positive number up to 1e300", 0 < settings.concentration <= 1e300)
    gm_lab.require(settings, "critic_noise", "a number of at least 0", settings.critic_noise >= 0)
    most = getattr(settings, "most_mdps", 1)
    gm_lab.require(settings, "most_mdps", "an integer of at least 1", most >= 1)
    grids = _grids(settings, figures)
    points = sorted({point for grid in grids.values() for point in grid.points()})
    return _in_blocks(settings, [(point, grids) for point in points], range(settings.mdps), kind)


def further_cells(
    settings: TabularSettings, figures: Mapping[str, Grid], mdps: range, needs: Iterable[Need], kind: type[Tabular]
) -> list[Cell]:
    """The cells of more MDPs, with what some needs ask of the figures at each K and α."""
    grids, wanted = _grids(settings, figures), list(needs)
    points = sorted({point for grid in grids.values() for point in grid.points()})
    narrowed = [(point, _narrowed(grids, point, wanted)) for point in points]
    return _in_blocks(settings, [(point, some) for point, some in narrowed if some], mdps, kind)


def other_figures(chosen: Sequence[str], asked: Iterable[str]) -> str:
    """Says which of the figures that are asked for were not chosen, as a flag; empty if all were."""
    others = [figure for figure in asked if figure not in chosen]
    return f"--figure {' '.join(others)} would measure more" if others else ""


def _grids(settings: TabularSettings, figures: Mapping[str, Grid]) -> dict[str, Grid]:
    overrides = {field.name: getattr(settings, field.name) for field in fields(Grid)}
    return {figure: grid.override(**overrides) for figure, grid in figures.items()}


def _narrowed(grids: Mapping[str, Grid], point: tuple[int, float], needs: Sequence[Need]) -> dict[str, Grid]:
    """What is needed of each figure at one K and α: the smallest grid that has all of it."""
    here: dict[str, Grid] = {}
    at = {"inner_steps": point[0], "inner_lr": point[1]}
    for figure, grid in grids.items():
        asked = [(name, permutation, dict(where)) for of, name, permutation, where in needs if of == figure]
        asked = [item for item in asked if all(item[2].get(axis, value) == value for axis, value in at.items())]
        sizes = {item[2].get("sample_size", size) for item in asked for size in grid.sample_sizes}
        chosen: dict[str, Any] = {
            "estimators": tuple(x for x in grid.estimators if any(item[0] == x for item in asked)),
            "permutations": tuple(x for x in grid.permutations if any(item[1] == x for item in asked)),
            "sample_sizes": tuple(x for x in grid.sample_sizes if x in sizes),
        }
        if point in grid.points() and all(chosen.values()):
            here[figure] = replace(grid, inner_steps=point[:1], inner_lrs=point[1:], **chosen)
    return here


def _in_blocks(
    settings: TabularSettings, grids: Sequence[tuple[tuple[int, float], Mapping[str, Grid]]], mdps: range,
    kind: type[Tabular],
) -> list[Cell]:  # fmt: skip
    """A cell for each K and α with its grids, and each block of MDPs; blocks begin at multiples of `BLOCK`."""
    tabular = kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})
    cuts = sorted({mdps.start, mdps.stop, *(cut for cut in mdps if cut % BLOCK == 0)})
    blocks = [tuple(range(*cut)) for cut in pairwise(cuts)]
    return [Cell(settings.seed, block, *point, tuple((f, g) for f, g in some.items() if point in g.points()), tabular)
            for point, some in grids
            for block in blocks]  # fmt: skip


def need(settings: TabularSettings, figures: Iterable[Grid]) -> gm_lab.Need:
    """What it takes to measure the grids of some figures: trajectories, and policies that are evaluated exactly."""
    overrides = {field.name: getattr(settings, field.name) for field in fields(Grid)}
    grids = [replace(grid, **{k: v for k, v in overrides.items() if v is not None}) for grid in figures]
    points = {point for grid in grids for point in grid.points()}
    sizes = {size for grid in grids for size in grid.sample_sizes}
    kinds = len({name for grid in grids for name in grid.estimators})
    inner, hessian, outer = (any(p[i : i + 1] == "S" for grid in grids for p in grid.permutations) for i in range(3))
    rows = sum(len(g.points()) * len(g.estimators) * len(g.permutations) * len(g.sample_sizes) for g in grids)
    every = [block_need(settings, k, k * (inner + hessian) + outer, max(sizes), sum(sizes) * kinds) for k, _ in points]
    blocks = math.ceil(settings.mdps / BLOCK)
    memory, seconds = max(each.memory for each in every), blocks * sum(each.seconds for each in every)
    return gm_lab.Need(blocks * len(points), settings.mdps * rows, memory, seconds)


def block_need(settings: TabularSettings, inner_steps: int, streams: int, most: float, read: float) -> gm_lab.Need:
    """What a block of MDPs takes: so many streams of random numbers, the largest sample of each, and all that are read.

    An exact step costs a matrix of all pairs of states.
    """
    mdps = min(BLOCK, settings.mdps)
    batch, states, pairs = mdps * settings.repeats, settings.states, settings.states * settings.actions
    sampled, exact = float(batch * settings.horizon * streams), float(batch * (inner_steps + 1))
    memory = 8 * (TENSORS * sampled * most + exact * (6 * states**2 + 10 * pairs) + 3 * mdps * states * pairs)
    seconds = sampled * read * SECONDS + exact * states**2 * (states + settings.actions) * 2e-9 + 0.05
    return gm_lab.Need(1, 0, memory, seconds)
