"""What ails LOLA-DiCE in the iterated prisoner's dilemma, and what replay does for it (paper, Figures 2 and 8)."""

import sys
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

import gm_estimators as estimators
import gm_lab
import lola_report
from lola_problem import Curve, Game, blocks_of, estimator_of
from lola_training import Training

if TYPE_CHECKING:
    import pandas as pd

Figure = Literal["fig2a", "fig2b", "fig2c", "fig2d", "fig8", "debias"]

CURVES: dict[str, tuple[Curve, ...]] = {
    "fig2a": (
        Curve("inner=128 outer=128", shared=True),
        Curve("inner=1024 outer=128", inner=1024, hessian=1024, shared=True),
        Curve("inner=exact outer=128", inner=None, hessian=None),
        Curve("inner=exact outer=exact", inner=None, hessian=None, outer=None),
    ),
    "fig2b": (
        Curve("comp=128 hessian=128"),
        Curve("comp=1024 hessian=128", inner=1024),
        Curve("comp=exact hessian=128", inner=None),
    ),
    "fig2c": (
        Curve("comp=128 hessian=128"),
        Curve("comp=128 hessian=1024", hessian=1024),
        Curve("comp=128 hessian=exact", hessian=None),
    ),
    "fig2d": (
        Curve("comp=on hessian=on"),
        Curve("comp=off hessian=off", shared=True, replay_inner=True, replay_hessian=True),
        Curve("comp=off hessian=on", replay_inner=True),
        Curve("comp=on hessian=off", replay_hessian=True),
    ),
    "debias": (
        Curve("plain 192 + 192", inner=192, hessian=192, outer=192, shared=True),
        Curve("jackknife 128 + 256", shared=True, debias="+jackknife"),
        Curve("plain 24 + 24", inner=24, hessian=24, outer=24, shared=True),
        Curve("jackknife 16 + 32", inner=16, hessian=16, outer=16, shared=True, debias="+jackknife"),
    ),
}
"""Figure 8 shows the curves of Figure 2 with the accuracy of their gradients. A jackknife of two blocks draws an outer
sample for all trajectories of the look-ahead and one half as large for each half, twice as many trajectories together:
of the curves of `debias` each two have one budget."""

LARGEST = 1e30
"""Of payoffs and learning rates: what is computed for every trajectory has single precision, up to 3e38."""

STATES = ("start", "CC", "CD", "DC", "DD")
POLICY = tuple(f"cooperate_{player}_{state}" for player in (1, 2) for state in STATES)
KEY = ("figure", "curve", "seed", "update")
MEASURED = (
    "score",
    "score_1",
    "score_2",
    "accuracy",
    "accuracy_outer_exact",
    "correlation",
    "correlation_outer_exact",
    "error_sq",
    "truth_sq",
    "effective_size",
    "bias",
    "bias_outer_exact",
)


COLUMNS = (*KEY, *MEASURED, *POLICY)


@dataclass(frozen=True)
class Settings(Game, gm_lab.RunSettings):
    """Why does LOLA-DiCE fail to cooperate, and does replay with off-policy DiCE help?

    Without a flag: Figure 2(a-d) and Figure 8 of the paper at its full budget, the exact meta-gradient beside every
    estimate.
    """

    figure: tuple[Figure, ...] = ("fig2a", "fig2b", "fig2c", "fig2d", "fig8")
    """Figures to reproduce; fig8 has the curves of all four parts of Figure 2. debias: whether a look-ahead without
    most of its bias of composition cooperates more, at one budget of trajectories."""
    curves: tuple[str, ...] | None = None
    """Only these curves of the figures, e.g. "inner=128 outer=128"."""
    seeds: int = 10
    """Independent runs; the intervals are over these."""
    inner_baseline: Literal["all", "replay"] = "all"
    """Whether the arms of Figure 2d that don't replay have the baseline too; replay: only those that do, as in the
    paper's code."""


@dataclass(frozen=True)
class Cell:
    """One way to estimate, for all seeds, under all the names that the figures have for it."""

    seed: int
    seeds: int
    curve: Curve
    names: tuple[tuple[str, str], ...]
    game: Game
    columns: tuple[str, ...]


def cells(settings: Settings) -> list[Cell]:
    """One cell for each different way to estimate.

    Args:
        settings: the flags.

    Raises:
        BadInput: if a flag is out of range.
    """
    for name in ("horizon", "updates", "inner_steps", "evaluation_size", "replay_capacity", "seeds"):
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
    on_the_cpu(settings)
    gm_lab.require(settings, "clip", "a number above 0", settings.clip is None or settings.clip > 0)
    gm_lab.require(settings, "max_age", "an integer of at least 0", settings.max_age is None or settings.max_age >= 0)
    game = settings_game(settings)
    try:
        game.matrix_game()
        estimator_of(game, Curve(""))
    except ValueError as error:
        flag = "" if str(error).startswith(("game:", "payoffs:")) else "estimator: "
        raise gm_lab.BadInput(f"--{flag}{error}") from error
    if "debias" in settings.figure and blocks_of(estimator_of(game, Curve(""))) > 1:
        raise gm_lab.BadInput(
            f"--estimator: expected one without +jackknife, which --figure debias adds, got {settings.estimator!r}"
        )
    figures = tuple(f for f in CURVES if f in settings.figure or ("fig8" in settings.figure and f != "debias"))
    known = [curve.name for figure in figures for curve in CURVES[figure]]
    if unknown := sorted(set(settings.curves or ()) - set(known)):
        raise gm_lab.BadInput(f"--curves: expected some of {', '.join(dict.fromkeys(known))}, got {', '.join(unknown)}")
    names: dict[Curve, list[tuple[str, str]]] = {}
    for figure in figures:
        for curve in CURVES[figure]:
            if settings.curves is None or curve.name in settings.curves:
                baseline = figure != "fig2d" or settings.inner_baseline == "all"
                names.setdefault(replace(curve, name="", baseline=baseline), []).append((figure, curve.name))
    fresh = [
        size for c in names for size, on in ((c.inner, c.replay_inner), (c.hessian, c.replay_hessian)) if size and on
    ]
    most = max(fresh, default=1)
    gm_lab.require(settings, "replay_capacity", f"at least {most} trajectories", settings.replay_capacity >= most)
    for curve in names:
        blocks = blocks_of(estimator_of(game, curve))
        sizes = [size for size in (curve.inner, curve.hessian, curve.outer) if size is not None]
        sizes += [settings.replay_capacity] if curve.replay_inner or curve.replay_hessian else []
        if odd := [size for size in sizes if size % blocks]:
            raise gm_lab.BadInput(f"--estimator: expected parts of {odd[0]} trajectories, got a jackknife of {blocks}")
    columns = (*COLUMNS, *extra_columns(settings))
    found = [Cell(settings.seed, settings.seeds, c, tuple(named), game, columns) for c, named in names.items()]
    # the longest first, so that no worker is left with one at the end
    return sorted(found, key=work, reverse=True)


def settings_game(settings: Settings) -> Game:
    """The part of the settings that says what is played and how it is learnt."""
    return Game(**{field.name: getattr(settings, field.name) for field in fields(Game)})


def extra_columns(settings: Settings) -> tuple[str, ...]:
    """How often the players cooperate, where that is asked for."""
    return ("cooperation",) if "debias" in settings.figure else ()


def work(cell: Cell) -> int:
    """About how many trajectories an update reads."""
    curve = cell.curve
    sizes = [
        cell.game.replay_capacity if replay else size or 0
        for size, replay in ((curve.inner, curve.replay_inner), (curve.hessian, curve.replay_hessian))
    ]
    return (max(sizes) if curve.shared else sum(sizes)) + (curve.outer or 0)


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of one way to estimate."""
    # the same stream for every curve: what two have in common, they draw alike
    rng = np.random.Generator(np.random.SFC64(gm_lab.seed_of(cell.seed, "lola", cell.seeds)))
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused
            updates = list(Training(cell.game, cell.curve, cell.seeds, rng).updates())
    except estimators.EstimatorError as error:
        raise gm_lab.BadInput(str(error)) from error
    except ValueError as error:
        advice = "smaller payoffs or learning rates, or a --clip, keep numbers finite"
        raise gm_lab.BadInput(f"{cell.names[0][1]}: {error} ({advice})") from error
    measured = {name: torch.stack([update[name] for update in updates]) for name in updates[0]}
    measured["score_1"], measured["score_2"] = measured.pop("scores").unbind(-1)
    c, d = cell.game.matrix_game().cooperative, 1 - cell.game.matrix_game().cooperative
    order = [0, *(1 + 2 * own + other for own, other in ((c, c), (c, d), (d, c), (d, d)))]
    action_0 = measured.pop("action_0")[..., order].flatten(-2)
    policy = 1 - action_0 if c == 1 else action_0
    more = [measured[name].unsqueeze(-1) for name in cell.columns[len(COLUMNS) :]]
    table = torch.cat((torch.stack([measured[name] for name in MEASURED], -1), policy, *more), -1)
    rounded = significant(table).tolist()
    return [
        dict(zip(cell.columns, (figure, name, seed, update, *values), strict=True))
        for figure, name in cell.names
        for update, by_seed in enumerate(rounded, start=1)
        for seed, values in enumerate(by_seed)
    ]


def significant(values: torch.Tensor, digits: int = 8) -> torch.Tensor:
    """Numbers rounded to that many significant digits, so that small ones keep theirs; the rest as it is."""
    places = digits - 1 - values.abs().log10().floor()
    power = torch.tensor([10.0**n for n in range(301)], dtype=values.dtype)  # whole powers are exact up to 10²²
    up, down = (power[n.nan_to_num().clamp(0, 300).long()] for n in (places, -places))
    return ((values * up / down).round() * down / up).where(places.abs() <= 300, values)


def on_the_cpu(settings: gm_lab.RunSettings) -> None:
    """Refuses any other device.

    Raises:
        BadInput: another one was asked for.
    """
    cpu = settings.device in ("auto", "cpu")
    gm_lab.require(settings, "device", "auto or cpu, since this app computes on the CPU", cpu)


def warm_up(settings: gm_lab.RunSettings) -> None:
    """One thread for each worker, since the workers fill the cores."""
    torch.set_num_threads(1)
    on_the_cpu(settings)


def claims(settings: Settings, frame: "pd.DataFrame") -> list[gm_lab.Verdict]:
    """The verdicts on the paper's claims, which are about its own prisoner's dilemma."""
    its_game = settings_game(settings).matrix_game().payoffs == Game().matrix_game().payoffs
    return lola_report.claims(frame) if its_game and settings.figure != ("debias",) else []


def summary(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The closing table, under a line about what could not be measured."""
    if missing := lola_report.undefined(frame):
        print(missing)
    return lola_report.summary(frame)


EXPERIMENT = gm_lab.Experiment(
    name="lola_offpolicy",
    settings=Settings,
    columns=COLUMNS,
    key=KEY,
    cells=cells,
    run_cell=run_cell,
    figures=lambda settings, frame: lola_report.figures(frame, settings.figure),
    claims=claims,
    extra_columns=extra_columns,
    summary=lambda _settings, frame: summary(frame),
    warm_up=warm_up,
    curves=(gm_lab.Curves(by=("figure", "curve", "seed"), x="update", y=MEASURED),),
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
