"""The rows of the studies of theory: each bound beside what it bounds, along a path of inner steps."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import gm_estimators as estimators
import gm_exact
import gm_lab
from gm_estimators.estimator import families
from gm_estimators.metrics import Interval
from gm_exact import Constants, Errors
from gm_experiments.common.checks import estimators_are_input, require_finite
from gm_experiments.common.mdps import SMALLER, RandomMDPs
from gm_experiments.common.problem import TabularProblem
from gm_experiments.common.settings import MEASURED, Cell, Grid
from gm_experiments.theory.settings import BOUNDS, COLUMNS, GRIDS, HESSIAN_ERRORS, HESSIAN_NOISE, ROUNDING

Labels = dict[str, Any]
Measurement = tuple[Labels, Interval, list[Tensor]]
"""What was measured, its value, and its bounds as `BOUNDS` names them, each per MDP."""
Known = tuple[Constants, Errors]


@dataclass(frozen=True)
class Point:
    """One K and α on some MDPs, with the exact path θ⁰ … θᴷ, batch axes [MDP, 1]."""

    mdps: RandomMDPs
    problem: TabularProblem
    inner_steps: int
    inner_lr: float
    exact_path: list[Tensor]

    @classmethod
    def at(cls, mdps: RandomMDPs, problem: TabularProblem, inner_steps: int, inner_lr: float) -> "Point":
        """The point with its path."""
        path = gm_exact.inner_path(mdps.mdp, problem.params[:, :1], inner_lr=inner_lr, inner_steps=inner_steps)
        return cls(mdps, problem, inner_steps, inner_lr, path)

    def drawn_anew(self) -> "Point":
        """The same point with random numbers of its own: where constants come from that know nothing of the samples."""
        mdps = self.mdps.fresh("constants")
        return replace(self, mdps=mdps, problem=self.problem.with_numbers(mdps))

    @property
    def terms(self) -> dict[str, Any]:
        """K and α as keywords."""
        return {"inner_lr": self.inner_lr, "inner_steps": self.inner_steps}


def sampled_path(point: Point, name: str, size: int) -> tuple[list[Tensor], Tensor]:
    """θ̂⁰ … θ̂ᴷ, and s: the root mean square error of ∇θ J_In at them over the repeats, the largest of all steps."""
    path = estimators.decomposition.sampled_path(point.problem, estimators.load(name), size, **point.terms)
    errors = [length(step.gradient - gm_exact.gradient(point.mdps.mdp, theta)).square().mean(-1).sqrt()
              for step, theta in zip(path.inner, path.params, strict=False)]  # fmt: skip
    return path.params, torch.stack(errors).amax(0)


def hessian_errors(point: Point, name: str, size: int, path: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Δ_H and σ_H, the largest along the path: Frobenius norms from the repeats, Δ_H at its upper 95% limit."""
    shape = point.problem.params.shape
    n = shape[-2] * shape[-1]
    basis = torch.eye(n, dtype=torch.float64, device=point.problem.params.device).reshape(n, 1, 1, *shape[2:])
    biases, deviations = [], []
    estimator = estimators.load(name)
    for step, theta in enumerate(path[:-1]):
        at = point.problem.at(theta.expand(shape))
        sample = at.draw(step, {"hessian": slice(size)})["hessian"]
        columns, _ = at.sampled("hessian", estimator, sample).vjp(basis.expand(n, *shape))
        estimates = columns.movedim(0, 2).flatten(2)
        exact = gm_exact.hessian(point.mdps.mdp, theta).flatten(1)
        biases.append(estimators.metrics.bias_sq_interval(estimates, exact).high.clamp(min=0).sqrt())
        deviations.append(estimators.metrics.variance(estimates).sqrt())
    return torch.stack(biases).amax(0), torch.stack(deviations).amax(0)


def length(x: Tensor) -> Tensor:
    """‖x‖ of parameters `[*batch, state, action]`."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1))
    return norm


def rows(cell: Cell, mdps: RandomMDPs, problem: TabularProblem) -> list[gm_lab.Row]:
    """The rows of all studies that a cell asks for; raises `BadInput` if II is to share the trajectories of I."""
    grids = [(study, grid) for study, grid in cell.grids if study in GRIDS]
    if not grids:
        return []
    if cell.tabular.samples == "shared":
        expected = "expected independent with --figure theory, whose bounds need it"
        raise gm_lab.BadInput(f"--samples: {expected}, got 'shared'")
    point = Point.at(mdps, problem, cell.inner_steps, cell.inner_lr)
    rows: list[gm_lab.Row] = []
    with estimators_are_input():
        for study, grid in grids:
            measure = {"theory_split": _split, "theory_hessian": _injected}.get(study, _composition)
            for labels, measured, bounds in measure(point, grid):
                rows += _as_rows({"figure": study} | cell.terms | labels, cell.mdps, measured, bounds)
    # a bound may be infinite, and an interval of two repeats is
    require_finite(rows, ("measured",), *SMALLER, unbounded=COLUMNS)
    return rows


def _composition(point: Point, grid: Grid) -> Iterator[Measurement]:
    """E‖θ̂ᴷ − θᴷ‖ beside Lemma 4.4: with c₂ and σ of these samples a theorem about them, with those of others a test."""
    worldwide, anew = _global_constants(point).c2, point.drawn_anew()
    for name in grid.estimators:
        for size in grid.sample_sizes:
            path, inner_std = sampled_path(point, name, size)
            distance = estimators.metrics.mean_interval(length(path[-1] - point.exact_path[-1]))
            other_path, other_std = sampled_path(anew, name, size)
            local, other = (gm_exact.local_c2(point.mdps.mdp, point.exact_path, x) for x in (path, other_path))
            known = ((local, inner_std), (worldwide, inner_std), (other, other_std))
            limits = [gm_exact.eq6_compositional_bias(c2, std, **point.terms) for c2, std in known]
            labels = _labels("distance", estimator=name, permutation="SEE", sample_size=size)
            yield labels, distance, limits


def _split(point: Point, grid: Grid) -> Iterator[Measurement]:
    """Bias and variance with I, II or both sampled, on the same samples, beside Theorem 4.5."""
    truth = estimators.exact_meta_gradient(point.problem, **point.terms)[:, 0].flatten(1)
    chosen = [estimators.load(name) for name in grid.estimators]
    permutations = [p for p in grid.permutations if p[2] == "E"]
    estimates = estimators.decompose(
        point.problem, chosen, permutations=permutations, sizes=grid.sample_sizes, **point.terms
    )
    known, known_elsewhere = _known(point, chosen), _known(point.drawn_anew(), chosen)
    for (name, permutation, size), estimate in estimates.items():
        assert isinstance(size, int)  # as it was given
        labels = {"estimator": name, "permutation": permutation, "sample_size": size}
        which = (name, permutation, size)
        yield from _theorem(point, labels, estimate.flatten(2), truth, known(*which), known_elsewhere(*which))


def _known(point: Point, chosen: list[estimators.Estimator]) -> Callable[[str, str, int], Known]:
    """(estimator, permutation, size) ↦ the constants along the path taken, and the errors of what is sampled there."""
    mdp, exact_path = point.mdps.mdp, point.exact_path
    leaders = {e.name: group[0].name for group in families(chosen) for e in group}
    exact_constants = gm_exact.local_constants(mdp, exact_path)

    @functools.cache  # estimators of one family share their sampled path
    def sampled(leader: str, size: int) -> tuple[list[Tensor], Tensor, Constants]:
        path, inner_std = sampled_path(point, leader, size)
        return path, inner_std, gm_exact.local_constants(mdp, exact_path, path)

    on_exact_path = functools.cache(functools.partial(hessian_errors, point, path=exact_path))

    def known(name: str, permutation: str, size: int) -> Known:
        constants, errors, path = exact_constants, Errors(), exact_path
        if permutation[0] == "S":
            path, inner_std, constants = sampled(leaders[name], size)
            errors = Errors(inner_std=inner_std)
        if permutation[1] == "S":
            bias, std = on_exact_path(name, size)
            if permutation[0] == "S":
                # one sampled path stands for all: its errors are estimated from the repeats, which need a common θ
                there = hessian_errors(point, name, size, [theta[:, :1] for theta in path])
                bias, std = (torch.maximum(x, y) for x, y in zip(there, (bias, std), strict=True))
            errors = replace(errors, hessian_bias=bias, hessian_std=std)
        return constants, errors

    return known


def _injected(point: Point, _grid: Grid) -> Iterator[Measurement]:
    """Everything exact but the Hessian H + δI + 0.3 diag(N(0, 1)): MAML, and LIRPG at φ = 0, of degree K − 1 in δ."""
    mdp, theta = point.mdps.mdp, point.exact_path[0]
    phi = torch.zeros_like(theta)
    (noise, std), (_, other_std) = _noise(point), _noise(point.drawn_anew())
    adjoint, meta = _with_injected(point, noise)
    maml = gm_exact.maml_meta_gradient(mdp, theta, **point.terms)
    lirpg = gm_exact.lirpg_meta_gradient(mdp, theta, phi, **point.terms)
    for algorithm, estimates, truth, intrinsic in (("maml", adjoint, maml, None), ("lirpg", meta, lirpg, phi)):
        local = gm_exact.local_constants(mdp, point.exact_path, intrinsic_reward=intrinsic)
        for value, each in zip(HESSIAN_ERRORS, estimates, strict=True):
            labels = {"algorithm": algorithm, "estimator": "exact", "permutation": "ESE", "hessian_error": value}
            known, elsewhere = ((local, Errors(hessian_bias=value, hessian_std=x)) for x in (std, other_std))
            yield from _theorem(point, labels, each.flatten(2), truth[:, 0].flatten(1), known, elsewhere, intrinsic)


def _noise(point: Point) -> tuple[list[Tensor], Tensor]:
    """0.3 diag(N(0, 1)) of each step as a table, and the largest root mean square of its norm."""
    drawn = [HESSIAN_NOISE * point.mdps.normal("injected", step) for step in range(point.inner_steps)]
    # no mean over the repeats, so that δ is the error of the mean, not only on average
    noise = [x - x.mean(1, keepdim=True) for x in drawn]
    # the spectral norm of a diagonal matrix is its largest entry
    return noise, torch.stack([x.flatten(2).abs().amax(-1).square().mean(-1).sqrt() for x in noise]).amax(0)


def _with_injected(point: Point, noise: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The meta-gradients of MAML and of LIRPG at φ = 0 with H + δI + noise for H, `[δ, mdp, repeat, state, action]`."""
    *inner, outer = [gm_exact.evaluate(point.mdps.mdp, theta) for theta in point.exact_path]
    error = torch.tensor(HESSIAN_ERRORS, dtype=outer.gradient.dtype, device=outer.gradient.device)
    adjoint = outer.gradient.expand(len(error), *point.problem.params.shape)
    meta = torch.zeros_like(adjoint)
    for evaluation, diagonal in zip(reversed(inner), reversed(noise), strict=True):
        tangent = evaluation.tangent(adjoint)
        meta = meta + point.inner_lr * tangent.occupancy
        hessian = tangent.gradient + (error.reshape(-1, 1, 1, 1, 1) + diagonal) * adjoint
        adjoint = adjoint + point.inner_lr * hessian
    return adjoint, meta


def _theorem(
    point: Point, labels: Labels, estimates: Tensor, truth: Tensor, known: Known, elsewhere: Known,
    intrinsic: Tensor | None = None,
) -> Iterator[Measurement]:  # fmt: skip
    """Bias and variance beside Eqs. 44 and 57, with the constants that are known here, everywhere and elsewhere."""
    constants = (known, (_global_constants(point, intrinsic), known[1]), elsewhere)
    bias = Interval(*(x.clamp(min=0).sqrt() for x in estimators.metrics.bias_sq_interval(estimates, truth)))
    repeats = estimates.shape[-2]
    squares = (estimates - estimates.mean(-2, keepdim=True)).square().sum(-1) * repeats / (repeats - 1)
    variance = estimators.metrics.mean_interval(squares)
    bounds = (("bias", bias, gm_exact.eq44_bias), ("variance", variance, gm_exact.eq57_variance))
    for quantity, measured, bound in bounds:
        limits = [bound(*each, meta_is_params=intrinsic is None, **point.terms) for each in constants]
        yield _labels(quantity, **labels), measured, limits


def _global_constants(point: Point, intrinsic: Tensor | None = None) -> Constants:
    constants = vars(gm_exact.global_constants(point.mdps.mdp, intrinsic))
    return Constants(**{k: v.squeeze(-1) if isinstance(v, Tensor) else v for k, v in constants.items()})


def _labels(quantity: str, **labels: Any) -> Labels:
    return {"quantity": quantity, "algorithm": "maml", "sample_size": 0, "hessian_error": math.nan} | labels


def _as_rows(labels: Labels, mdps: tuple[int, ...], measured: Interval, bounds: list[Tensor]) -> list[gm_lab.Row]:
    value, low, high, *limits = (x.expand(len(mdps)).tolist() for x in (*measured, *bounds))
    unused = dict.fromkeys(MEASURED, math.nan)
    rows: list[gm_lab.Row] = []
    for i, mdp in enumerate(mdps):
        row = unused | labels | {"mdp": mdp, "measured": value[i], "measured_low": low[i], "measured_high": high[i]}
        for kind, limit in zip(BOUNDS, limits, strict=True):
            row |= {f"bound_{kind}": limit[i], f"tightness_{kind}": _ratio(limit[i], value[i])}
        rows.append(row)
    return rows


def _ratio(bound: float, measured: float) -> float:
    return bound / measured if measured > ROUNDING else math.nan
