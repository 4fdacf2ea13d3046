"""A cell learns and tunes a rule, or measures its meta-gradient, and returns its rows."""

import sys
from collections.abc import Sequence

import numpy as np
import torch

import gm_lab
from gm_experiments.common.checks import estimators_are_input, require_cpu, require_finite
from gm_experiments.lpg import lifetimes, study
from gm_experiments.lpg.settings import BLOCK, FOR_THE_MEAN, LEARNT, LpgCell, Settings, completed
from gm_experiments.lpg.training import MetaTraining
from gm_lab.run import write_atomically

EVERY = 5
"""Scores are kept after so many updates."""
CHECKPOINT_WINDOWS = 25
LEARNING = 0.8
"""About the part of a learnt rule's time that meta-training takes; tuning has the rest."""
SMALLER = ("--inner-lrs", "--lr-scales", "--inner-lr")


def prepare(settings: Settings) -> gm_lab.Context:
    """Gives each worker one thread, since the workers fill the cores, and refuses another device than the CPU."""
    torch.set_num_threads(1)
    require_cpu(settings)
    return gm_lab.Context(settings.run_dir)


def run_cell(cell: LpgCell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """Computes the rows of results.csv of one cell; raises `BadInput` if a user's estimator fails."""
    with estimators_are_input():
        if cell.part == "gradient":
            rows = gradient_rows(cell)
        elif cell.part == LEARNT:
            rows = learnt_rows(cell, context)
        else:
            assert cell.tuning is not None
            rows = tuned_rows(cell, list(lifetimes.hand_made_trials(cell.tuning, cell.part, cell.lpg.discount)))
    require_finite(rows, ("score", "variance", "bias_sq"), *SMALLER)
    return [completed(row) for row in rows]


def learnt_rows(cell: LpgCell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """Meta-trains a rule and tunes it; the rows have its way, and how it fares in held-out tasks."""
    training = meta_trained(cell, context)
    assert cell.tuning is not None
    meta: list[gm_lab.Row] = [
        {"figure": "meta", "rule": cell.part, "seed": cell.index, "update": end, "score": mean}
        for end, mean in _means(training.scores)
    ]
    return meta + tuned_rows(cell, list(lifetimes.learnt_trials(cell.tuning, training.inner, training.weights)))


def meta_trained(cell: LpgCell, context: gm_lab.Context) -> MetaTraining:
    """Meta-trains a rule from its checkpoint, or from the beginning where there is none that can be used."""

    def new() -> MetaTraining:
        return MetaTraining(cell.lpg, np.random.default_rng(gm_lab.seed_of(cell.seed, "rule", cell.index)))

    training = new()
    folder = context.run_dir and context.run_dir / "training"
    file = folder and folder / f"rule-{gm_lab.cell_id(cell)}.pt"
    if file and file.exists():
        try:
            training.restore(file.read_bytes())
        except Exception as error:  # a damaged checkpoint costs time, never results
            damage = f"{file} is damaged ({type(error).__name__})"
            print(f"lpg_tabular: {damage}; meta-training begins anew", file=sys.stderr)
            training = new()
    while training.windows < cell.lpg.meta_updates:
        training.step()
        gm_lab.progressed(LEARNING * training.windows, cell.lpg.meta_updates)
        if file and training.windows % CHECKPOINT_WINDOWS == 0:
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, training.state())
    return training


def _means(scores: Sequence[float], parts: int = 30) -> list[tuple[int, float]]:
    """Averages successive parts; each mean comes with the number of windows at its end."""
    size = max(1, len(scores) // parts)
    return [(i + size, float(np.mean(scores[i : i + size]))) for i in range(0, len(scores) - size + 1, size)]


def tuned_rows(cell: LpgCell, trials: Sequence[lifetimes.Trial]) -> list[gm_lab.Row]:
    """Tunes a rule for a lifetime's end and for its mean; the rows also score the best settings in held-out tasks."""
    rows: list[gm_lab.Row] = []
    before, steps = LEARNING * (cell.part == LEARNT), len(trials) * len(lifetimes.KINDS)
    for number, kind in enumerate(lifetimes.KINDS):
        tasks = tasks_of(cell, "tuning", kind, cell.lpg.side, cell.tuning_tasks)
        tried = []
        for trial, (_, new) in enumerate(trials, start=1):
            tried.append(scores_of(cell, tasks, new(), f"tuning {kind}").mean(1))
            gm_lab.progressed(before * steps + (1 - before) * (number * len(trials) + trial), steps)
        for name, values in {
            cell.part: [float(scores[-1]) for scores in tried],
            cell.part + FOR_THE_MEAN: [float(scores[1:].mean()) for scores in tried],
        }.items():
            common: gm_lab.Row = {"figure": "tuning", "rule": name, "seed": cell.index, "kind": kind}
            common["update"] = cell.lpg.lifetime
            rows += [{**common, **at, "score": value} for (at, _), value in zip(trials, values, strict=True)]
            at, new = trials[max(range(len(trials)), key=values.__getitem__)]
            rows += held_out_rows(cell, kind, new(), {**at, "rule": name})
    return rows


def held_out_rows(cell: LpgCell, kind: str, rule: lifetimes.Rule, label: gm_lab.Row) -> list[gm_lab.Row]:
    """Scores a rule in the held-out tasks of one kind, after every few updates; the label names the rule."""
    count, side = cell.held_out
    scores = scores_of(cell, tasks_of(cell, "held-out", kind, side, count), rule, f"held-out {kind}")
    updates = sorted({*range(0, cell.lpg.lifetime, EVERY), cell.lpg.lifetime})
    common: gm_lab.Row = {"figure": "learning", "seed": cell.index, "kind": kind, **label}
    return [
        common | {"update": update, "task": f"{kind} {task:03d}", "score": float(score)}
        for update in updates
        for task, score in enumerate(scores[update])
    ]


def tasks_of(cell: LpgCell, purpose: str, kind: str, side: int, count: int) -> lifetimes.Tasks:
    """Draws tasks that are the same for every rule."""
    rng = np.random.default_rng(gm_lab.seed_of(cell.seed, purpose, kind, side, count))
    return lifetimes.draw_tasks(rng, kind, side, count, cell.lpg.discount, cell.lpg.horizon)


def scores_of(cell: LpgCell, tasks: lifetimes.Tasks, rule: lifetimes.Rule, purpose: str) -> torch.Tensor:
    """Scores new agents over a lifetime, on random numbers that all rules have in common."""
    lpg, rng = cell.lpg, np.random.default_rng(gm_lab.seed_of(cell.seed, purpose, "life"))
    return lifetimes.live(tasks, rule, lpg.lifetime, lpg.trajectories, lpg.predictions, rng)


def gradient_rows(cell: LpgCell) -> list[gm_lab.Row]:
    """Measures bias and variance of the meta-gradient at one K, in a whole block of MDPs: rounding is by batch."""
    assert cell.study is not None
    names, sizes, mdps, repeats = cell.study
    first = mdps[0] // BLOCK * BLOCK

    def stream(*labels: str | int) -> np.random.Generator:
        return np.random.default_rng(gm_lab.seed_of(cell.seed, "tiny", *labels))

    problem = study.learnt_problem(study.Tiny(), range(first, first + BLOCK), stream)
    measurements = study.measurements(problem, names, sizes, cell.index, repeats=repeats, stream=stream)
    return [{"figure": "gradient", **row} for row in measurements if row["mdp"] in mdps]
