"""Lemma 4.4 and Theorem 4.5 beside what they bound: the studies of `maml_tabular.py --figure theory`."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
import tabular
from gm_estimators.catalogue import families
from gm_estimators.metrics import Interval
from gm_exact import Constants, Errors

# two families of first-order gradients: LVC stands for AD and Loaded-DiCE, too
COMPOSITION = estimators.Grid(
    estimators=("lvc", "dice"), permutations=("SEE",), inner_steps=(2,), inner_lrs=(3.0,), sample_sizes=(32,)
)
GRIDS = {
    "theory_size": replace(COMPOSITION, sample_sizes=(2, 4, 8, 16, 32, 64, 128, 256)),
    "theory_steps": replace(COMPOSITION, inner_steps=(1, 2, 3, 4, 5, 6)),
    "theory_rate": replace(COMPOSITION, inner_steps=(6,), inner_lrs=(1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0)),
    "theory_split": estimators.Grid(permutations=("SSE", "SEE", "ESE"), inner_steps=(2,), inner_lrs=(3.0,)),
    # errors are added to an exact Hessian: neither estimators nor sizes matter
    "theory_hessian": estimators.Grid(estimators=("lvc",), inner_steps=(1, 2, 3, 4, 5), inner_lrs=(3.0,)),
}
HESSIAN_ERRORS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
HESSIAN_NOISE = 0.3
ROUNDING = 1e-12  # what is smaller is as good as zero
COLUMNS = (
    *("quantity", "hessian_error", "measured", "measured_low", "measured_high"),
    *("bound_local", "bound_global", "tightness_local", "tightness_global"),
)
"""What results.csv has for these studies behind the columns of all tabular apps; empty for other figures."""
AXES = {
    "theory_size": "sample_size",
    "theory_steps": "inner_steps",
    "theory_rate": "inner_lr",
    "theory_split": "sample_size",
    "theory_hessian": "hessian_error",
}
CURVES = tuple(
    gm_lab.Curves(
        by=(*(column for column in tabular.KEY if column not in (x, "mdp")), "quantity"),
        x=x,
        y=("measured", "bound_local", "bound_global"),
        over="mdp",
        figures=(study,),
    )
    for study, x in AXES.items()
)
"""What is measured and both its bounds along what each study varies."""


@dataclass(frozen=True)
class Point:
    """One K and α on some MDPs, with the exact path θ⁰ … θᴷ, batch axes [MDP, 1]."""

    mdps: tabular.RandomMDPs
    problem: estimators.TabularProblem
    inner_steps: int
    inner_lr: float
    exact_path: list[Tensor]

    @property
    def terms(self) -> dict[str, Any]:
        """K and α as keywords."""
        return {"inner_lr": self.inner_lr, "inner_steps": self.inner_steps}


def rows(cell: tabular.Cell, mdps: tabular.RandomMDPs, problem: estimators.TabularProblem) -> list[gm_lab.Row]:
    """The rows of all studies that a cell asks for.

    Raises:
        BadInput: if a user's estimator fails, or II is to be estimated from the trajectories of I.
    """
    if not any(study in GRIDS for study, _ in cell.grids):
        return []
    if cell.tabular.samples == "shared":
        raise gm_lab.BadInput(
            "--samples: expected independent with --figure theory, whose bounds need it, got 'shared'"
        )
    steps, inner_lr = cell.inner_steps, cell.inner_lr
    path = gm_exact.inner_path(mdps.mdp, problem.params[:, :1], inner_lr=inner_lr, inner_steps=steps)
    point = Point(mdps, problem, steps, inner_lr, path)
    found: list[gm_lab.Row] = []
    with tabular.estimators_are_input():
        for study, grid in cell.grids:
            if study in GRIDS:
                measure = {"theory_split": _split, "theory_hessian": _injected}.get(study, _composition)
                fixed = {"figure": study, "inner_steps": steps, "inner_lr": inner_lr}
                for labels, measured, *bounds in measure(point, grid):
                    found += _as_rows(fixed | labels, cell.mdps, measured, bounds)
    return found


Labels = dict[str, Any]
Measurement = tuple[Labels, Interval, Tensor, Tensor]
"""What was measured, with its value, its local and its global bound, each per MDP."""


def _composition(point: Point, grid: estimators.Grid) -> Iterator[Measurement]:
    """E‖θ̂ᴷ − θᴷ‖ beside Lemma 4.4, which is a theorem about these very samples: c₂ and σ are theirs."""
    mdp = point.mdps.mdp
    for name in grid.estimators:
        for size in grid.sample_sizes:
            path, inner_std = _sampled_path(point, name, size)
            distance = estimators.mean_interval(_norm(path[-1] - point.exact_path[-1]))
            local, worldwide = gm_exact.local_c2(mdp, point.exact_path, path), gm_exact.global_constants(mdp).c2
            limits = [
                gm_exact.eq6_compositional_bias(c2, inner_std, **point.terms)
                for c2 in (local, torch.as_tensor(worldwide).squeeze(-1))
            ]
            labels = _labels("distance", estimator=name, permutation="SEE", sample_size=size)
            yield labels, distance, limits[0], limits[1]


def _split(point: Point, grid: estimators.Grid) -> Iterator[Measurement]:
    """Bias and variance with I, II or both sampled, on the same samples, beside Theorem 4.5."""
    mdp, exact_path = point.mdps.mdp, point.exact_path
    truth = estimators.exact_meta_gradient(point.problem, **point.terms)[:, 0].flatten(1)
    chosen = [estimators.load(name) for name in grid.estimators]
    found = estimators.decompose(
        point.problem,
        chosen,
        permutations=[p for p in grid.permutations if p[2] == "E"],
        sample_sizes=grid.sample_sizes,
        **point.terms,
    )
    exact_constants = gm_exact.local_constants(mdp, exact_path)

    @functools.cache  # estimators of one family share their sampled path
    def sampled_steps(leader: str, size: int) -> tuple[list[Tensor], Tensor, Constants]:
        path, inner_std = _sampled_path(point, leader, size)
        return path, inner_std, gm_exact.local_constants(mdp, exact_path, path)

    @functools.cache
    def hessian_errors(name: str, size: int) -> tuple[Tensor, Tensor]:
        return _hessian_errors(point, name, size, exact_path)

    leaders = {e.name: group[0].name for group in families(chosen) for e in group}
    for (name, permutation, size), estimates in found.items():
        constants, errors = exact_constants, Errors()
        if permutation[1] == "S":
            bias, std = hessian_errors(name, size)
            errors = Errors(hessian_bias=bias, hessian_std=std)
        if permutation[0] == "S":
            path, inner_std, constants = sampled_steps(leaders[name], size)
            errors = replace(errors, inner_std=inner_std)
            if permutation[1] == "S":
                # one sampled path stands for all: its errors are estimated from the repeats, which need a common θ
                there = _hessian_errors(point, name, size, [theta[:, :1] for theta in path])
                bias, std = (torch.maximum(x, y) for x, y in zip(there, (bias, std), strict=True))
                errors = replace(errors, hessian_bias=bias, hessian_std=std)
        labels = {"estimator": name, "permutation": permutation, "sample_size": size}
        yield from _theorem(point, labels, estimates.flatten(2), truth, constants, errors)


def _injected(point: Point, _grid: estimators.Grid) -> Iterator[Measurement]:
    """Everything exact but the Hessian H + δI + 0.3 diag(N(0, 1)): MAML, and LIRPG at φ = 0, of degree K − 1 in δ."""
    mdp, steps = point.mdps.mdp, point.inner_steps
    theta, phi = point.exact_path[0], torch.zeros_like(point.exact_path[0])
    evaluations = [gm_exact.evaluate(mdp, theta) for theta in point.exact_path]
    drawn = [HESSIAN_NOISE * point.mdps.normal("injected", step) for step in range(steps)]
    # no mean over the repeats, so that δ is the error of the mean, not only on average
    noise = [x - x.mean(1, keepdim=True) for x in drawn]
    error = torch.tensor(HESSIAN_ERRORS, dtype=theta.dtype, device=theta.device)
    adjoint = evaluations[-1].gradient.expand(len(error), *point.problem.params.shape)
    meta = torch.zeros_like(adjoint)
    for evaluation, diagonal in zip(reversed(evaluations[:-1]), reversed(noise), strict=True):
        tangent = evaluation.tangent(adjoint)
        meta = meta + point.inner_lr * tangent.occupancy
        hessian = tangent.gradient + (error.reshape(-1, 1, 1, 1, 1) + diagonal) * adjoint
        adjoint = adjoint + point.inner_lr * hessian
    # the spectral norm of a diagonal matrix is its largest entry
    std = torch.stack([x.flatten(2).abs().amax(-1).square().mean(-1).sqrt() for x in noise]).amax(0)
    truths = {
        "maml": gm_exact.maml_meta_gradient(mdp, theta, **point.terms),
        "lirpg": gm_exact.lirpg_meta_gradient(mdp, theta, phi, **point.terms),
    }
    for algorithm, estimates in (("maml", adjoint), ("lirpg", meta)):
        intrinsic = phi if algorithm == "lirpg" else None
        local = gm_exact.local_constants(mdp, point.exact_path, intrinsic_reward=intrinsic)
        for value, each in zip(HESSIAN_ERRORS, estimates, strict=True):
            labels = {"algorithm": algorithm, "estimator": "exact", "permutation": "ESE", "hessian_error": value}
            errors = Errors(hessian_bias=value, hessian_std=std)
            truth = truths[algorithm][:, 0].flatten(1)
            yield from _theorem(point, labels, each.flatten(2), truth, local, errors, intrinsic)


def _theorem(
    point: Point,
    labels: Labels,
    estimates: Tensor,
    truth: Tensor,
    local: Constants,
    errors: Errors,
    intrinsic: Tensor | None = None,
) -> Iterator[Measurement]:
    """Bias and variance beside Eqs. 44 and 57, with local and global constants."""
    worldwide = gm_exact.global_constants(point.mdps.mdp, intrinsic)
    worldwide = Constants(**{k: v.squeeze(-1) if isinstance(v, Tensor) else v for k, v in vars(worldwide).items()})
    bias = Interval(*(x.clamp(min=0).sqrt() for x in estimators.bias_sq_interval(estimates, truth)))
    repeats = estimates.shape[-2]
    squares = (estimates - estimates.mean(-2, keepdim=True)).square().sum(-1) * repeats / (repeats - 1)
    variance = estimators.mean_interval(squares)
    for quantity, measured, bound in (
        ("bias", bias, gm_exact.eq44_bias),
        ("variance", variance, gm_exact.eq57_variance),
    ):
        limits = [bound(k, errors, meta_is_params=intrinsic is None, **point.terms) for k in (local, worldwide)]
        yield _labels(quantity, **labels), measured, limits[0], limits[1]


def _sampled_path(point: Point, name: str, size: int) -> tuple[list[Tensor], Tensor]:
    """θ̂⁰ … θ̂ᴷ, and s: the root mean square error of ∇θ J_In at them over the repeats, the largest of all steps."""
    path, errors = [point.problem.params], []
    for step in range(point.inner_steps):
        sample = point.problem.draw("inner", step, path[-1], size)
        gradient = point.problem.sampled("inner", estimators.load(name), sample, path[-1]).gradient
        errors.append(_norm(gradient - gm_exact.gradient(point.mdps.mdp, path[-1])).square().mean(-1).sqrt())
        path.append(path[-1] + point.inner_lr * gradient)
    return path, torch.stack(errors).amax(0)


def _hessian_errors(point: Point, name: str, size: int, path: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Δ_H and σ_H, the largest along the path: Frobenius norms from the repeats, Δ_H at its upper 95% limit."""
    shape = point.problem.params.shape
    n = shape[-2] * shape[-1]
    basis = torch.eye(n, dtype=torch.float64, device=point.problem.params.device).reshape(n, 1, 1, *shape[2:])
    biases, deviations = [], []
    for step, theta in enumerate(path[:-1]):
        at = theta.expand(shape)
        sample = point.problem.draw("hessian", step, at, size)
        columns, _ = point.problem.sampled("hessian", estimators.load(name), sample, at).vjp(basis.expand(n, *shape))
        estimates = columns.movedim(0, 2).flatten(2)
        exact = gm_exact.hessian(point.mdps.mdp, theta).flatten(1)
        biases.append(estimators.bias_sq_interval(estimates, exact).high.clamp(min=0).sqrt())
        deviations.append(estimators.variance(estimates).sqrt())
    return torch.stack(biases).amax(0), torch.stack(deviations).amax(0)


def _labels(quantity: str, **labels: Any) -> Labels:
    return {"quantity": quantity, "algorithm": "maml", "sample_size": 0, "hessian_error": math.nan} | labels


def _as_rows(labels: Labels, mdps: tuple[int, ...], measured: Interval, bounds: list[Tensor]) -> list[gm_lab.Row]:
    value, low, high, local, worldwide = (x.expand(len(mdps)).tolist() for x in (*measured, *bounds))
    unused = dict.fromkeys(tabular.METRICS, math.nan)
    return [
        unused
        | labels
        | {"mdp": mdp, "measured": value[i], "measured_low": low[i], "measured_high": high[i]}
        | {"bound_local": local[i], "tightness_local": _ratio(local[i], value[i])}
        | {"bound_global": worldwide[i], "tightness_global": _ratio(worldwide[i], value[i])}
        for i, mdp in enumerate(mdps)
    ]


def _ratio(bound: float, measured: float) -> float:
    return bound / measured if measured > ROUNDING else math.nan


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1))
    return norm
