"""Learning an update rule: LPG on random MDPs and grid worlds, and its meta-gradient (paper, Table 1, A.4)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import tabular
import torch

import gm_estimators as estimators
import gm_lab
import lpg_lifetimes as lifetimes
import lpg_report
import lpg_study
from gm_lab.store import write_atomically
from lpg_training import Lpg, MetaTraining

Figure = Literal["learning", "gradient"]
HAND_MADE = ("policy_gradient", "actor_critic")
EVERY = 5
CHECKPOINT_WINDOWS = 25


@dataclass(frozen=True)
class Settings(Lpg, gm_lab.RunSettings):
    """Does a learnt update rule (LPG) beat tuned policy gradients in tasks it has not seen, and how good is AD for it?

    Without a flag: meta-training of two rules, their lives in larger tasks than they were trained in beside those of
    policy gradients and actor-critics, tuned on the training tasks; and the bias and variance of LPG's meta-gradient,
    with the exact one from every trajectory of tiny MDPs.
    """

    figure: tuple[Figure, ...] = ("learning", "gradient")
    """learning: scores over a lifetime; gradient: the meta-gradient's bias and variance."""
    rules: int = 2
    """Independent meta-trainings; tasks are scored by the mean over them."""
    held_out: int = 100
    """Held-out tasks of each kind; the intervals are over these."""
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
    estimators: tuple[str, ...] = ("ad", "lvc", "loaded_dice", "dice", lpg_study.CORRECTED)
    """Of the study: ad, dice, loaded_dice, lvc, corrected (unbiased derivatives), or package.module:function."""
    sample_sizes: tuple[int, ...] = (16, 64, 256)
    """Of the study: trajectories of an update."""
    inner_steps: tuple[int, ...] = (1, 2, 3, 5)
    """Of the study: K."""
    mdps: int = 10
    """Of the study: tiny MDPs; the intervals are over these."""
    repeats: int = 20
    """Of the study: independent estimates in each MDP."""


@dataclass(frozen=True)
class Cell:
    """A rule to learn, a hand-made rule to tune, or a K of the study."""

    seed: int
    part: str
    index: int
    lpg: Lpg
    held_out: tuple[int, int]
    tuning: lifetimes.Grid | None = None
    tuning_tasks: int = 0
    study: tuple[tuple[str, ...], tuple[int, ...], int, int] | None = None


@dataclass(frozen=True)
class Place:
    """Where this process keeps checkpoints; no bearing on results."""

    folder: Path | None = None


_place = Place()


def cells(settings: Settings) -> list[Cell]:
    """The longest first: rules to learn, rules to tune, then the study.

    Raises:
        BadInput: if a flag is out of range.
    """
    whole = "horizon trajectories lifetime window hidden predictions tasks meta_updates outer_trajectories rules"
    for name in (*whole.split(), "held_out", "tuning_tasks", "mdps"):
        gm_lab.require(settings, name, "an integer of at least 1", getattr(settings, name) >= 1)
    for name in ("side", "held_out_side", "repeats"):
        gm_lab.require(settings, name, "an integer of at least 2", getattr(settings, name) >= 2)
    for name in ("inner_lr", "meta_lr"):
        gm_lab.require(settings, name, "a number above 0", getattr(settings, name) > 0)
    for name in ("prediction_weight", "policy_entropy", "prediction_entropy", "target_penalty", "critic_lr"):
        gm_lab.require(settings, name, "a number of at least 0", getattr(settings, name) >= 0)
    for name in ("inner_lrs", "lr_scales", "critic_lrs"):
        gm_lab.require(settings, name, "numbers above 0", min(getattr(settings, name)) > 0)
    for name in ("sample_sizes", "inner_steps"):
        gm_lab.require(settings, name, "integers of at least 1", min(getattr(settings, name)) >= 1)
    gm_lab.require(settings, "discount", "0 ≤ γ < 1", 0 <= settings.discount < 1)
    gm_lab.require(settings, "gae_lambda", "0 ≤ λ ≤ 1", 0 <= settings.gae_lambda <= 1)
    gm_lab.require(settings, "gae_lambdas", "0 ≤ λ ≤ 1", all(0 <= x <= 1 for x in settings.gae_lambdas))
    fits = settings.lifetime % settings.window == 0
    gm_lab.require(settings, "lifetime", f"a multiple of the window, {settings.window}", fits)
    for flag, names in (("estimator", (settings.estimator,)), ("estimators", settings.estimators)):
        for name in names:
            try:
                if flag == "estimator" or name != lpg_study.CORRECTED:
                    estimators.load(name, suffixes=False)
            except estimators.EstimatorError as error:
                raise gm_lab.BadInput(f"--{flag}: {error}") from error
    lpg = Lpg(**{field.name: getattr(settings, field.name) for field in fields(Lpg)})
    seed, held_out, found = settings.seed, (settings.held_out, settings.held_out_side), []
    if "learning" in settings.figure:
        scaled = tuple(scale * settings.inner_lr for scale in settings.lr_scales)
        grid = lifetimes.Grid(settings.inner_lrs, scaled, settings.critic_lrs, settings.gae_lambdas)
        tuning = grid, settings.tuning_tasks
        found += [Cell(seed, "lpg", index, lpg, held_out, *tuning) for index in range(settings.rules)]
        found += [Cell(seed, rule, 0, lpg, held_out, *tuning) for rule in reversed(HAND_MADE)]
    if "gradient" in settings.figure:
        study = tuple(dict.fromkeys(settings.estimators)), settings.sample_sizes, settings.mdps, settings.repeats
        steps = sorted(set(settings.inner_steps), reverse=True)
        found += [Cell(seed, "gradient", k, Lpg(), (1, 2), study=study) for k in steps]
    return found


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of one cell.

    Raises:
        BadInput: if a user's estimator fails.
    """
    with tabular.estimators_are_input():
        if cell.part == "gradient":
            rows = list(study_rows(cell))
        elif cell.part == "lpg":
            rows = learnt_rows(cell)
        else:
            assert cell.tuning is not None
            rows = tuned_rows(cell, list(cell.tuning.hand_made(cell.part, cell.lpg.discount)))
    return [lpg_report.completed(row) for row in rows]


def tasks_of(cell: Cell, purpose: str, kind: str, side: int, count: int) -> lifetimes.Tasks:
    """Tasks of a purpose, the same for every rule."""
    rng = np.random.default_rng(gm_lab.seed_of(cell.seed, purpose, kind, side, count))
    return lifetimes.draw_tasks(rng, kind, side, count, cell.lpg.discount, cell.lpg.horizon)


def scores_of(cell: Cell, tasks: lifetimes.Tasks, learner: lifetimes.Learner, purpose: str) -> torch.Tensor:
    """The scores of new agents over a lifetime on random numbers that all rules have in common."""
    lpg, rng = cell.lpg, np.random.default_rng(gm_lab.seed_of(cell.seed, purpose, "life"))
    return lifetimes.live(tasks, learner, lpg.lifetime, lpg.trajectories, lpg.predictions, rng)


def held_out_rows(cell: Cell, kind: str, learner: lifetimes.Learner, label: gm_lab.Row) -> list[gm_lab.Row]:
    """Scores in the held-out tasks of one kind, after every few updates; the label names the rule."""
    count, side = cell.held_out
    scores = scores_of(cell, tasks_of(cell, "held-out", kind, side, count), learner, f"held-out {kind}")
    updates = sorted({*range(0, cell.lpg.lifetime, EVERY), cell.lpg.lifetime})
    common: gm_lab.Row = {"figure": "learning", "seed": cell.index, "kind": kind, **label}
    return [
        common | {"update": update, "task": f"{kind} {task:03d}", "score": float(score)}
        for update in updates
        for task, score in enumerate(scores[update])
    ]


def learnt_rows(cell: Cell) -> list[gm_lab.Row]:
    """Meta-trains a rule, or goes on meta-training it; its way, and how it is tuned and fares in held-out tasks."""
    rng = np.random.default_rng(gm_lab.seed_of(cell.seed, "rule", cell.index))
    training = MetaTraining(cell.lpg, rng)
    file = None if _place.folder is None else _place.folder / "training" / f"rule-{gm_lab.cell_id(cell)}.pt"
    if file is not None and file.exists():
        try:
            training.restore(file.read_bytes())
        except Exception as error:  # a damaged checkpoint costs time, never results
            print(
                f"lpg_tabular: {file} is damaged ({type(error).__name__}); meta-training begins anew", file=sys.stderr
            )
            training = MetaTraining(cell.lpg, np.random.default_rng(gm_lab.seed_of(cell.seed, "rule", cell.index)))
    while training.windows < cell.lpg.meta_updates:
        training.step()
        if file is not None and training.windows % CHECKPOINT_WINDOWS == 0:
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, training.state())
    meta: list[gm_lab.Row] = [
        {"figure": "meta", "rule": cell.part, "seed": cell.index, "update": end, "score": mean}
        for end, mean in _means(training.scores)
    ]
    assert cell.tuning is not None
    return meta + tuned_rows(cell, list(cell.tuning.learnt(training.inner, training.weights)))


def _means(scores: Sequence[float], parts: int = 30) -> list[tuple[int, float]]:
    """Means over successive parts, each with the number of windows at its end."""
    size = max(1, len(scores) // parts)
    return [(i + size, float(np.mean(scores[i : i + size]))) for i in range(0, len(scores) - size + 1, size)]


def tuned_rows(cell: Cell, points: Sequence[lifetimes.Point]) -> list[gm_lab.Row]:
    """Tunes a rule in training tasks of each kind, for the end of a lifetime and for the mean over it.

    The rows are its scores there and, at the best setting for either, in the held-out tasks.
    """
    rows: list[gm_lab.Row] = []
    for kind in lifetimes.KINDS:
        tasks = tasks_of(cell, "tuning", kind, cell.lpg.side, cell.tuning_tasks)
        tried = [scores_of(cell, tasks, new(), f"tuning {kind}").mean(1) for _, new in points]
        for name, values in {
            cell.part: [float(scores[-1]) for scores in tried],
            cell.part + lpg_report.FOR_THE_MEAN: [float(scores[1:].mean()) for scores in tried],
        }.items():
            common: gm_lab.Row = {"rule": name, "seed": cell.index, "kind": kind, "update": cell.lpg.lifetime}
            common["figure"] = "tuning"
            rows += [{**common, **point, "score": value} for (point, _), value in zip(points, values, strict=True)]
            point, new = points[max(range(len(points)), key=values.__getitem__)]
            rows += held_out_rows(cell, kind, new(), {**point, "rule": name})
    return rows


def study_rows(cell: Cell) -> list[gm_lab.Row]:
    """Bias and variance of the meta-gradient at one K."""
    assert cell.study is not None
    names, sizes, mdps, repeats = cell.study
    problem = lpg_study.TinyProblem(lpg_study.Tiny(), mdps, np.random.default_rng(gm_lab.seed_of(cell.seed, "tiny")))
    problem.learn()
    seed = gm_lab.seed_of(cell.seed, "study")
    return [
        {"figure": "gradient", **row}
        for row in lpg_study.measured(problem, names, sizes, cell.index, repeats=repeats, seed=seed)
    ]


def warm_up(settings: gm_lab.RunSettings) -> None:
    """One thread for each worker, since the workers fill the cores; says where checkpoints go."""
    global _place
    torch.set_num_threads(1)
    if settings.device not in ("auto", "cpu"):
        raise gm_lab.BadInput(f"--device: expected auto or cpu, got {settings.device!r}")
    _place = Place(settings.run_dir)


EXPERIMENT = gm_lab.Experiment(
    name="lpg_tabular",
    settings=Settings,
    columns=lpg_report.COLUMNS,
    key=lpg_report.KEY,
    cells=cells,
    run_cell=run_cell,
    figures=lambda _settings, frame: lpg_report.figures(frame),
    claims=lambda _settings, frame: lpg_report.claims(frame),
    summary=lambda _settings, frame: lpg_report.summary(frame),
    warm_up=warm_up,
    curves=(
        gm_lab.Curves(
            by=("figure", "rule", "kind", "seed"), x="update", y=("score",), over="task", figures=("learning",)
        ),
        gm_lab.Curves(
            by=("figure", "estimator", "permutation", "sample_size"),
            x="inner_steps",
            y=("accuracy", "variance", "bias_sq"),
            over="mdp",
            figures=("gradient",),
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
