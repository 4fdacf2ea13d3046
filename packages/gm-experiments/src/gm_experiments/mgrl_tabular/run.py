"""One cell of exact MGRL to its rows."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
from gm_estimators import Sizes, metrics
from gm_experiments.common import settings as common
from gm_experiments.common.checks import estimators_are_input, require_finite, require_policy, require_truth
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.mgrl_tabular import problem as mgrl
from gm_experiments.mgrl_tabular import sources
from gm_experiments.mgrl_tabular.settings import ALL, META_PARAMS, Cell, completed

SMALLER = ("--inner-lr", "--value-coef", "--meta-lr")
Label = dict[str, str | int | float]


def run_cell(cell: Cell, context: gm_lab.Context) -> list[gm_lab.Row]:
    """The rows of results.csv of some MDPs at one K."""
    task = task_of(cell, context.device)
    measure: Callable[[Cell, Task], Iterator[gm_lab.Row]] = {
        "steps": step_rows, "sources": source_rows, "schedules": schedule_rows,
    }[cell.figure]  # fmt: skip
    fixed: Label = {"figure": cell.figure, "inner_steps": cell.inner_steps}
    with estimators_are_input():
        rows = [completed(fixed | row) for row in measure(cell, task)]
    require_finite(rows, ("truth",), *SMALLER, unbounded=("relative_bias", "expected_relative_bias"))
    return rows


class Task(NamedTuple):
    """The MDPs of a cell, and θ and φ where learning begins in them, the same for all repeats."""

    mdps: RandomMDPs
    params: Tensor
    phi: Tensor

    def after(self, updates: int, horizon: int) -> Tensor:
        """θ after so many exact updates."""
        found = mgrl.exact_path(self.mdps.mdp, self.params, self.phi, updates, horizon)
        require_policy(found, f"update {updates}", *SMALLER)
        return found


def task_of(cell: Cell, device: str | torch.device) -> Task:
    """Draws the MDPs; the agents are new: a uniform policy, and values of zero."""
    flags = cell.mgrl
    most = max(cell.sample_sizes, default=1)
    drawn = common.Cell(
        cell.seed, cell.mdps, cell.inner_steps, flags.inner_lr,
        grids=((cell.figure, common.Grid(sample_sizes=(most,))),),
        tabular=common.Tabular(
            flags.repeats, flags.states, flags.actions, flags.horizon, flags.discount, flags.concentration
        ),
    )  # fmt: skip
    mdps = RandomMDPs(drawn, device)
    params = torch.zeros(len(cell.mdps), 1, flags.states, flags.actions + 1, dtype=torch.float64, device=device)
    return Task(mdps, params, mgrl.initial_phi(flags).to(device).expand(len(cell.mdps), 1, -1))


def step_rows(cell: Cell, task: Task) -> Iterator[gm_lab.Row]:
    """Bias and variance of every estimator after some exact updates, of all meta-parameters and of each."""
    horizon, keys = cell.mgrl.horizon, _keys(cell)
    chosen = [mgrl.estimator_of(name) for name in cell.estimators]
    for point in cell.points:
        params = task.after(point, horizon)
        truth = _truth(cell, task, params, point)
        found = estimators.decompose(
            mgrl.MgrlProblem(task.mdps.mdp, params, task.phi, cell.mgrl, task.mdps.rollout), chosen,
            permutations=cell.permutations, sizes=list(keys), inner_steps=cell.inner_steps, inner_lr=mgrl.COMPOSED,
        )  # fmt: skip
        for name in cell.estimators:
            expected = _exact(cell, task, params, name) if name in sources.ESTIMATORS else None
            for permutation in cell.permutations:
                for size, (batches, number) in keys.items():
                    label: Label = {"updates": point, "estimator": name, "permutation": permutation}
                    label |= {"batches": batches, "sample_size": number}
                    # where I is exact, II has a batch of its own whatever is shared
                    if batches == "own" or permutation[:2] == "SS":
                        exact = expected if permutation == "ESE" else None
                        yield from _rows(cell, label, truth, found[name, permutation, size], exact)


def _keys(cell: Cell) -> dict[Sizes, tuple[str, int]]:
    """How many trajectories each role has, with what that is called."""
    return {
        Sizes.each(size, shared=batches == "shared"): (batches, size)
        for batches in cell.batches
        for size in cell.sample_sizes
    }


def source_rows(cell: Cell, task: Task) -> Iterator[gm_lab.Row]:
    """The exact bias of each estimator whose expectation is known, and that of each of its sources alone."""
    for point in cell.points:
        params = task.after(point, cell.mgrl.horizon)
        truth = _truth(cell, task, params, point)
        for name in sources.ALL:
            label: Label = {"updates": point, "estimator": name}
            yield from _rows(cell, label, truth, None, _exact(cell, task, params, name))


def _truth(cell: Cell, task: Task, params: Tensor, point: int) -> Tensor:
    """The exact meta-gradient `[MDP, 5]`, by which errors are measured."""
    found = _exact(cell, task, params, "truth")
    require_truth(found.unsqueeze(1), "MDP", cell.mdps, point)
    return found


def _exact(cell: Cell, task: Task, params: Tensor, name: str) -> Tensor:
    """The exact meta-gradient `[MDP, 5]`, or the mean of an estimator, or the truth less one of its parts."""
    dependence = sources.ALL.get(name)
    found = mgrl.exact_meta_gradient(task.mdps.mdp, params, task.phi, cell.inner_steps, cell.mgrl.horizon, dependence)
    return found[:, 0]


def _rows(
    cell: Cell, label: Label, truth: Tensor, estimates: Tensor | None, expected: Tensor | None
) -> Iterator[gm_lab.Row]:
    """A row for each MDP and meta-parameter, and for all of these together."""
    for number, meta_param in enumerate((*META_PARAMS, ALL)):
        place = slice(None) if meta_param == ALL else slice(number, number + 1)
        columns = {"truth": truth[:, place].norm(dim=-1) if meta_param == ALL else truth[:, number]}
        if estimates is not None:
            columns |= _sampled(truth[:, place], estimates[..., place])
        if expected is not None:
            columns |= _expected(truth[:, place], expected[:, place])
        lists = {name: column.tolist() for name, column in columns.items()}
        for i, mdp in enumerate(cell.mdps):
            yield {**label, "meta_param": meta_param, "mdp": mdp, **{name: of[i] for name, of in lists.items()}}


def _sampled(truth: Tensor, estimates: Tensor) -> dict[str, Tensor]:
    """What the repeats say; one number has no direction, so that it has neither accuracy nor correlation."""
    found = metrics.summary(estimates, truth) if truth.shape[-1] > 1 else {
        "variance": metrics.variance(estimates), "std_sum": metrics.std_sum(estimates),
        "bias_sq": metrics.bias_sq(estimates, truth),
    }  # fmt: skip
    return found | {"relative_bias": metrics.relative_bias(estimates, truth.unsqueeze(1)).mean(-1)}


def _expected(truth: Tensor, expected: Tensor) -> dict[str, Tensor]:
    """How far an expectation is off the truth: squared, along it, and of one number in units of the larger of both."""
    off = expected - truth
    found = {"expected_bias_sq": off.square().sum(-1), "expected_relative_bias": metrics.relative_bias(expected, truth)}
    if truth.shape[-1] == 1:
        larger = torch.maximum(expected.abs(), truth.abs())[:, 0]
        found["expected_error"] = torch.where(larger > 0, off[:, 0].abs() / larger.where(larger > 0, 1), 0)
    return found


def schedule_rows(cell: Cell, task: Task) -> Iterator[gm_lab.Row]:
    """Training by each estimator, schedule and use of batches: every window's estimate beside what it estimates."""
    kinds = [(name, schedule, batches)
             for name in cell.estimators for schedule in cell.schedule for batches in cell.batches]  # fmt: skip
    for done, (name, schedule, batches) in enumerate(kinds, start=1):
        label: Label = {"estimator": name, "schedule": schedule, "batches": batches}
        label |= {"permutation": "SSS", "sample_size": cell.sample_sizes[0], "meta_param": ALL}
        for window, columns in enumerate(_training(cell, task, name, schedule, batches == "shared")):
            lists = {column: values.tolist() for column, values in columns.items()}
            for i, mdp in enumerate(cell.mdps):
                yield {**label, "updates": window, "mdp": mdp, **{column: of[i] for column, of in lists.items()}}
        gm_lab.progressed(done, len(kinds))


def _training(cell: Cell, task: Task, name: str, schedule: str, shared: bool) -> Iterator[dict[str, Tensor]]:
    """Windows of K sampled updates and a meta-update; repeats are separate trainings, means over them are measured.

    `discard` takes back all updates but the first, `online` none; if batches are shared, it reads the outer one again.
    """
    params, phi = task.params, task.phi
    size = Sizes.each(cell.sample_sizes[0], shared=shared)
    first: tuple[Tensor, Tensor] | None = None
    for window in range(cell.windows):
        draw = task.mdps.fresh("window", window).rollout
        problem = mgrl.MgrlProblem(task.mdps.mdp, params, phi, cell.mgrl, draw, first)
        found = estimators.decompose(
            problem, [mgrl.estimator_of(name)], permutations=["SSS"], sizes=[size], inner_steps=cell.inner_steps,
            inner_lr=mgrl.COMPOSED, keep_paths=True,
        )  # fmt: skip
        estimate, path = found[name, "SSS", size], found.paths[name, "S", size]
        truth = mgrl.exact_meta_gradient(task.mdps.mdp, params, phi, cell.inner_steps, cell.mgrl.horizon)
        yield {
            "accuracy": metrics.accuracy(estimate, truth).mean(-1),
            "correlation": metrics.correlation(estimate, truth).mean(-1),
            "relative_bias": metrics.relative_bias(estimate, truth).mean(-1),
            "truth": truth.norm(dim=-1).mean(-1),
            "value": _value(task, params),
        }
        params = path.params[1 if schedule == "discard" else -1]
        phi = phi + cell.meta_lr * estimate
        require_policy(phi, f"window {window}", *SMALLER)
        if shared and schedule == "online":
            assert isinstance(path.outer, mgrl.SampledOuter)
            first = path.outer.sample.state, path.outer.sample.action


def _value(task: Task, params: Tensor) -> Tensor:
    """J of the policies, on average over repeats."""
    return gm_exact.value(task.mdps.mdp, params[..., :-1]).mean(-1)
