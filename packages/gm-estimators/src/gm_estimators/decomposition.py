"""Every permutation of the estimators I, II and III on shared samples, for any problem.

A permutation such as "SSE" says for I (inner-loop gradient), II (Jacobian and Hessian) and III (outer gradient)
whether it is estimated from samples (S) or exact (E). All permutations together need one path of inner parameters
with sampled and one with exact gradients; the meta-gradient then runs backwards along a path (paper, Eq. 4, from
right to left):

    λ_K = ∇θ J_Out(φ, θᴷ),   λ_i = λ_{i+1} + α ∇²θ J_In(φ, θ^i) λ_{i+1},
    ∇φ Jᴷ = ∇φ J_Out(φ, θᴷ) + α Σ_i ∇φ∇θ J_In(φ, θ^i) λ_{i+1}  [+ λ_0 if φ = θ⁰]

so that nothing is differentiated that two permutations share. The sampling correction of an estimator that has one adds
c (J_Out(θᴷ) − b) Σ_n Σ_t ∇ log π of the batch that moved θ^i to λ_i, and its ∇φ to ∇φ Jᴷ, see `decompose`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gm_estimators.corrections import credit
from gm_estimators.debias import Debias
from gm_estimators.estimator import Estimator, EstimatorError, families
from gm_estimators.problem import DrawsParts, Objective, Problem, Role, Sample, SampleT, Splits

__all__ = [
    "PERMUTATIONS",
    "Objective",
    "Problem",
    "Role",
    "Sample",
    "SampleT",
    "Splits",
    "check_permutation",
    "decompose",
    "exact_meta_gradient",
]

PERMUTATIONS = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")
"""The seven permutations that estimate anything; EEE is the truth."""


class _Part:
    """A problem whose samples are those trajectories of the original's that have the given numbers."""

    def __init__(self, problem: Problem[Any], numbers: Tensor, size: int, drawn: dict[Role, Any]) -> None:
        self._problem, self._numbers, self._size, self._drawn = problem, numbers, size, drawn
        self.params, self.meta_is_params = problem.params, problem.meta_is_params
        self.exact, self.sampled = problem.exact, problem.sampled

    def draw(self, role: Role, step: int, params: Tensor, _size: int) -> Any:
        """Its part of what the original draws; at θ⁰ all parts share one draw."""
        if step > 0 and isinstance(self._problem, DrawsParts):
            return self._problem.draw_part(role, step, params, self._numbers)
        if step > 0:
            return self._problem.draw(role, step, params, self._size).select(self._numbers)
        if role not in self._drawn:
            self._drawn[role] = self._problem.draw(role, 0, params, self._size)
        return self._drawn[role].select(self._numbers)


class _Path:
    """Parameters θ⁰ … θᴷ of one choice of I, with what was computed at them."""

    def __init__(self, params: list[Tensor]) -> None:
        self.params = params
        self.samples: list[Any] = []
        """What moved it from each of its points to the next, where that is asked for."""
        self.objectives: dict[tuple[Role, int], Objective] = {}

    def exact(self, problem: Problem[SampleT], role: Role, step: int) -> Objective:
        if (role, step) not in self.objectives:
            self.objectives[role, step] = problem.exact(role, self.params[step])
        return self.objectives[role, step]


def check_permutation(permutation: str) -> str:
    """The permutation itself.

    Raises:
        ValueError: if it is not one of `PERMUTATIONS`.
    """
    if permutation not in PERMUTATIONS:
        raise ValueError(f"expected a permutation of {', '.join(PERMUTATIONS)}, got {permutation!r}")
    return permutation


def exact_meta_gradient(problem: Problem[SampleT], *, inner_steps: int, inner_lr: float) -> Tensor:
    """The permutation EEE: the exact meta-gradient (paper, Eq. 3), shape `[*batch, *meta shape]`."""
    path = _exact_path(problem, inner_steps, inner_lr)
    steps = [path.exact(problem, "inner", i) for i in range(inner_steps)]
    outer = path.exact(problem, "outer", inner_steps)
    return _backward(problem, steps, [outer], inner_lr)[0]


def decompose(
    problem: Problem[SampleT],
    estimators: Iterable[Estimator],
    *,
    permutations: Sequence[str] = PERMUTATIONS,
    sample_sizes: Sequence[int],
    inner_steps: int,
    inner_lr: float,
) -> dict[tuple[str, str, int], Tensor]:
    """Meta-gradient estimates of every estimator, permutation and sample size, on common random numbers (paper, G.1.2).

    An estimator with `correction` gets that term where I and II are sampled: it makes up for what the derivative of the
    sampled step lacks, that an exact Hessian has. With c = 1, the Hessian of `ad`, a critic that does not change with θ
    and one batch for I and II, the estimate is unbiased for ∇φ E_τ[J_Out(θᴷ(φ, τ))] over the K inner batches τ of n
    trajectories, for φ = θ⁰ or not. That differs by O(1/n) from `exact_meta_gradient`, which takes exact steps.

    Args:
        problem: the two-level problem; its batch axes are independent repeats.
        estimators: what estimates I, II and III where they are sampled; with `debias`, each part of a sample runs
            through all K steps on its own.
        permutations: some of `PERMUTATIONS`.
        sample_sizes: |τ|, trajectories per estimate; smaller samples are parts of larger ones.
        inner_steps: K.
        inner_lr: α.

    Returns:
        (estimator name, permutation, sample size) ↦ estimate, shape `[*batch, *meta shape]`.

    Raises:
        ValueError: for an unknown permutation, or a size or number of steps below one.
        EstimatorError: if a user's estimator fails, the sample size does not suit its `debias`, or its `correction`
            meets outer objectives without a value.
    """
    estimators = list(estimators)
    for permutation in permutations:
        check_permutation(permutation)
    if min(inner_steps, *sample_sizes) < 1:
        raise ValueError(f"expected sizes and steps of at least 1, got {list(sample_sizes)} and {inner_steps}")
    # with every inner gradient sampled, the exact path is only its first point
    compositions = sorted({permutation[0] for permutation in permutations})
    exact_path = _exact_path(problem, inner_steps if "E" in compositions else 0, inner_lr)
    drawn: dict[tuple[Role, int], SampleT] = {}
    results: dict[tuple[str, str, int], Tensor] = {}
    for debias in {e.debias: None for e in estimators if e.debias is not None}:
        chosen = [e for e in estimators if e.debias == debias]
        for size in sample_sizes:
            settings = {"permutations": permutations, "inner_steps": inner_steps, "inner_lr": inner_lr}
            results.update(_debiased(problem, debias, chosen, size, **settings))
    estimators = [e for e in estimators if e.debias is None]

    def shared_draw(role: Role, step: int, size: int) -> SampleT:
        if (role, step) not in drawn:
            drawn[role, step] = problem.draw(role, step, exact_path.params[step], max(sample_sizes))
        return drawn[role, step].first(size)

    for family in families(estimators):
        for size in sample_sizes:
            for composition in compositions:
                wanted = [p for p in permutations if p[0] == composition]
                path = exact_path
                if composition == "S":
                    path = _sampled_path(problem, family, shared_draw("inner", 0, size), size, inner_steps, inner_lr)
                    path.objectives.update({k: v for k, v in exact_path.objectives.items() if k[1] == 0})

                def draw(role: Role, step: int, path: _Path = path, size: int = size) -> SampleT:
                    if step == 0 or path is exact_path:
                        return shared_draw(role, step, size)
                    return problem.draw(role, step, path.params[step], size)

                results.update(
                    _along(problem, path, draw, family, wanted, size=size, inner_steps=inner_steps, inner_lr=inner_lr)
                )
    return results


def _debiased(
    problem: Problem[SampleT], debias: Debias, estimators: list[Estimator], size: int, **settings: Any
) -> dict[tuple[str, str, int], Tensor]:
    """`decompose` for the parts of a sample, combined."""
    plain = [replace(estimator, debias=None) for estimator in estimators]
    try:
        terms = debias.terms(size)
    except ValueError as error:
        raise EstimatorError(f"estimator {estimators[0].name}: {error}") from error
    results: dict[tuple[str, str, int], Tensor] = {}
    drawn: dict[Role, Any] = {}
    split = problem.parts([parts for _, parts in terms]) if isinstance(problem, Splits) else None
    for i, (weight, parts) in enumerate(terms):
        chosen: Sequence[Problem[Any]] = [split[i]] if split else [_Part(problem, part, size, drawn) for part in parts]
        for part in chosen:
            found = decompose(part, plain, sample_sizes=[parts.shape[-1]], **settings)
            for (name, permutation, _), estimate in found.items():
                share = weight / len(chosen) * (estimate if split is None else estimate.mean(0))
                key = name, permutation, size
                results[key] = results[key] + share if key in results else share
    return results


def _along(
    problem: Problem[SampleT],
    path: _Path,
    draw: Callable[[Role, int], SampleT],
    family: list[Estimator],
    permutations: list[str],
    *,
    size: int,
    inner_steps: int,
    inner_lr: float,
) -> dict[tuple[str, str, int], Tensor]:
    """All wanted permutations of one path, for estimators with the same first derivative."""
    results: dict[tuple[str, str, int], Tensor] = {}
    outers: dict[str, Objective] = {}
    if any(p[2] == "E" for p in permutations):
        outers["E"] = path.exact(problem, "outer", inner_steps)
    if any(p[2] == "S" for p in permutations):
        theta = path.params[inner_steps]
        outers["S"] = problem.sampled("outer", family[0], draw("outer", inner_steps), theta)
    for hessian in sorted({p[1] for p in permutations}):
        wanted = [p for p in permutations if p[1] == hessian]
        ends = [outers[p[2]] for p in wanted]
        if hessian == "E":
            steps = [path.exact(problem, "inner", i) for i in range(inner_steps)]
            estimates = _backward(problem, steps, ends, inner_lr)
            for estimator in family:
                results.update({(estimator.name, p, size): e for p, e in zip(wanted, estimates, strict=True)})
            continue
        samples = [draw("hessian", i) for i in range(inner_steps)]
        for estimator in family:
            steps = [
                problem.sampled("hessian", estimator, sample, theta)
                for sample, theta in zip(samples, path.params, strict=False)
            ]
            scores = _scores(problem, estimator, path, ends) if estimator.correction and path.samples else ()
            estimates = _backward(problem, steps, ends, inner_lr, scores)
            results.update({(estimator.name, p, size): e for p, e in zip(wanted, estimates, strict=True)})
    return results


def _scores(
    problem: Problem[SampleT], estimator: Estimator, path: _Path, ends: Sequence[Objective]
) -> list[list[Objective]]:
    """The sampling correction of every inner step, for every outer objective."""
    values = [getattr(end, "value", None) for end in ends]
    for end, value in zip(ends, values, strict=True):
        if value is None:
            raise EstimatorError(
                f"estimator {estimator.name}: expected outer objectives with a value, got {type(end).__name__} without"
            )
    credited = [credit(estimator, value) for value in values if value is not None]
    return [
        [problem.sampled("inner", each, sample, theta) for each in credited]
        for sample, theta in zip(path.samples, path.params, strict=False)
    ]


def _backward(
    problem: Problem[SampleT],
    steps: Sequence[Objective],
    ends: Sequence[Objective],
    inner_lr: float,
    scores: Sequence[Sequence[Objective]] = (),
) -> Tensor:
    """∇φ of several outer objectives through the same steps, shape `[len(ends), *batch, *meta shape]`."""
    adjoint, meta = _stacked(ends)
    for i, step in reversed(list(enumerate(steps))):
        hessian_term, mixed_term = step.vjp(adjoint)
        if mixed_term is not None:
            meta = _plus(meta, inner_lr * mixed_term)
        adjoint = adjoint + inner_lr * hessian_term
        if scores:
            score, meta_score = _stacked(scores[i])
            adjoint, meta = adjoint + score, _plus(meta, meta_score)
    if problem.meta_is_params:
        return adjoint if meta is None else adjoint + meta
    if meta is None:
        raise ValueError("problem: expected objectives that depend on the meta-parameters, got none")
    return meta


def _stacked(objectives: Sequence[Objective]) -> tuple[Tensor, Tensor | None]:
    """∇θ and ∇φ of several objectives, the second `None` unless all depend on φ directly."""
    direct = [objective.meta_gradient for objective in objectives]
    present = [each for each in direct if each is not None]
    meta = torch.stack(present) if len(present) == len(direct) else None
    return torch.stack([objective.gradient for objective in objectives]), meta


def _plus(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    """The sum of what there is."""
    return y if x is None else x if y is None else x + y


def _exact_path(problem: Problem[SampleT], inner_steps: int, inner_lr: float) -> _Path:
    path = _Path([problem.params])
    for i in range(inner_steps):
        path.params.append(path.params[i] + inner_lr * path.exact(problem, "inner", i).gradient)
    return path


def _sampled_path(
    problem: Problem[SampleT], family: list[Estimator], first: SampleT, size: int, inner_steps: int, inner_lr: float
) -> _Path:
    path = _Path([problem.params])
    for i in range(inner_steps):
        theta = path.params[i]
        sample = problem.draw("inner", i, theta, size) if i > 0 else first
        step = problem.sampled("inner", family[0], sample, theta)
        path.params.append(theta + inner_lr * step.gradient)
        if any(estimator.correction for estimator in family):
            path.samples.append(sample)
    return path
