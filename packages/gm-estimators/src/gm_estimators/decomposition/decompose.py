"""Every permutation of the estimators I, II and III on shared samples, for any problem.

All permutations together need one path of inner parameters with sampled and one with exact gradients; the
meta-gradient then runs backwards along a path (`adjoint`), so that nothing is differentiated that two permutations
share, and nothing drawn or evaluated twice (`path`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from gm_estimators.checks import integer
from gm_estimators.corrections import credit
from gm_estimators.debias import Debias
from gm_estimators.decomposition.adjoint import backward
from gm_estimators.decomposition.parts import Part
from gm_estimators.decomposition.path import Path, Station, walked
from gm_estimators.decomposition.problem import PERMUTATIONS, ROLES, Objective, Problem, Role, SampleT, Splits
from gm_estimators.decomposition.sizes import Size, Sizes, sizes_of
from gm_estimators.estimator import Estimator, EstimatorError, families


class Decomposition(dict[tuple[str, str, Size], Tensor]):
    """Estimates by (estimator name, permutation, size as it was given), each of shape `[*batch, *meta shape]`.

    Attributes:
        paths: where `decompose` was asked to keep them, paths by (estimator name, S or E of the inner gradient, size):
            of an estimator with `debias` that of the whole sample.
    """

    def __init__(self) -> None:
        super().__init__()
        self.paths: dict[tuple[str, str, Size], Path[Any]] = {}


@dataclass(frozen=True)
class _Request:
    """What is asked for beside estimators and sizes."""

    permutations: tuple[str, ...]
    inner_steps: int
    inner_lr: float
    keep_paths: bool

    def of(self, composition: str) -> tuple[str, ...]:
        """The permutations whose inner gradient is sampled (S) or exact (E)."""
        return tuple(p for p in self.permutations if p[0] == composition)

    def draws(self, composition: str, step: int, sizes: Sequence[Sizes]) -> dict[Role, int]:
        """The largest sample of each role that is drawn at a step of the sampled (S) or exact (E) path."""
        wanted = self.permutations if step == 0 else self.of(composition)
        own = [each.hessian for each in sizes if not each.shared]
        last = step == self.inner_steps
        found: dict[Role, int] = {}
        if not last and any(p[0] == "S" or (p[1] == "S" and len(own) < len(sizes)) for p in wanted):
            found["inner"] = max(each.inner for each in sizes)
        if not last and own and any(p[1] == "S" for p in wanted):
            found["hessian"] = max(own)
        if last and any(p[2] == "S" for p in wanted):
            found["outer"] = max(each.outer for each in sizes)
        return found


def exact_meta_gradient(problem: Problem[SampleT], *, inner_steps: int, inner_lr: float) -> Tensor:
    """Returns the permutation EEE: the exact meta-gradient (paper, Eq. 3), shape `[*batch, *meta shape]`."""
    path = _exact_path(problem, _Request((), inner_steps, inner_lr, False), (), inner_steps)
    ends = [path.stations[inner_steps].exact("outer")]
    return backward(path.inner, ends, inner_lr, meta_is_params=problem.meta_is_params)[0]


def decompose(
    problem: Problem[SampleT],
    estimators: Iterable[Estimator],
    *,
    permutations: Sequence[str] = PERMUTATIONS,
    sizes: Sequence[Size],
    inner_steps: int,
    inner_lr: float,
    keep_paths: bool = False,
) -> Decomposition:
    """Estimates the meta-gradient by every estimator, permutation and size on common random numbers (paper, G.1.2).

    An estimator with `correction` gets that term where I and II are sampled: it makes up for what the derivative of the
    sampled step lacks, that an exact Hessian has. With c = 1, the Hessian of `ad`, a critic that does not change with θ
    and one batch for I and II, the estimate is unbiased for ∇φ E_τ[J_Out(θᴷ(φ, τ))] over the K inner batches τ of n
    trajectories, for φ = θ⁰ or not. That differs by O(1/n) from `exact_meta_gradient`, which takes exact steps.

    Args:
        problem: the two-level problem; its batch axes are independent repeats.
        estimators: what estimates I, II and III where they are sampled; with `debias`, each part of a sample runs
            through all K steps on its own.
        permutations: some of `PERMUTATIONS`.
        sizes: |τ|, trajectories of each role; smaller samples are parts of larger ones.
        inner_steps: K.
        inner_lr: α.
        keep_paths: whether the paths are kept, with all that was drawn along them.

    Raises:
        ValueError: for an unknown permutation, or a size or number of steps below one.
        EstimatorError: if a user's estimator fails, the size does not suit its `debias`, or its `correction` meets
            outer objectives without a value.
    """
    for permutation in permutations:
        if permutation not in PERMUTATIONS:
            raise ValueError(f"expected a permutation of {', '.join(PERMUTATIONS)}, got {permutation!r}")
    inner_steps = integer("inner_steps", inner_steps, 1)
    request = _Request(tuple(permutations), inner_steps, inner_lr, keep_paths)
    estimates = Decomposition()
    plain: list[Estimator] = []
    debiased: dict[Debias, list[Estimator]] = {}
    for estimator in estimators:
        (plain if estimator.debias is None else debiased.setdefault(estimator.debias, [])).append(estimator)
    for debias, chosen in debiased.items():
        for size in sizes:
            _add_debiased(estimates, problem, debias, chosen, size, request)
    all_sizes = [sizes_of(size) for size in sizes]
    # with every inner gradient sampled, the exact path is only its first point
    exact_path = _exact_path(problem, request, all_sizes, inner_steps if request.of("E") else 0)
    for family in families(plain):
        for size, each in zip(sizes, all_sizes, strict=True):
            for composition in sorted({permutation[0] for permutation in permutations}):
                path = exact_path
                if composition == "S":
                    path = _sampled_path(problem, exact_path.stations[0], family, each, request)
                _add(estimates, problem, path, family, size, request, composition)
    return estimates


def _exact_path(
    problem: Problem[SampleT], request: _Request, sizes: Sequence[Sizes], inner_steps: int
) -> Path[SampleT]:

    def station(params: Tensor, step: int) -> Station[SampleT]:
        return Station(problem, params, step, request.draws("E", step, sizes))

    def move(at: Station[SampleT]) -> Objective:
        return at.exact("inner")

    return walked(station(problem.params, 0), move, station, inner_steps=inner_steps, inner_lr=request.inner_lr)


def _sampled_path(
    problem: Problem[SampleT], start: Station[SampleT], family: Sequence[Estimator], sizes: Sizes, request: _Request
) -> Path[SampleT]:
    """The path of sampled gradients, which estimators with one first derivative share."""
    # II of a shared batch is the same objective, with what it knows of φ
    role: Role = "hessian" if sizes.shared else "inner"
    return walked(
        start,
        lambda at: at.sampled(role, family[0], sizes),
        lambda params, step: Station(problem, params, step, request.draws("S", step, [sizes])),
        inner_steps=request.inner_steps,
        inner_lr=request.inner_lr,
    )


def _add(
    estimates: Decomposition,
    problem: Problem[SampleT],
    path: Path[SampleT],
    family: Sequence[Estimator],
    size: Size,
    request: _Request,
    composition: str,
) -> None:
    """Adds all wanted permutations of one path, for estimators with the same first derivative."""
    sizes, wanted = sizes_of(size), request.of(composition)
    ends = _ends(path, family[0], sizes, wanted)
    for hessian in sorted({p[1] for p in wanted}):
        chosen = [p for p in wanted if p[1] == hessian]
        outer = [ends[p[2]] for p in chosen]
        if hessian == "E":
            steps = [station.exact("inner") for station in path.stations[:-1]]
            values = backward(steps, outer, request.inner_lr, meta_is_params=problem.meta_is_params)
            estimates.update({(e.name, p, size): x for e in family for p, x in zip(chosen, values, strict=True)})
            continue
        for estimator in family:
            moved = composition == "S" and sizes.shared and estimator is family[0]
            steps = path.inner if moved else [s.sampled("hessian", estimator, sizes) for s in path.stations[:-1]]
            terms = _corrections(path, estimator, sizes, outer) if estimator.correction and composition == "S" else ()
            values = backward(steps, outer, request.inner_lr, meta_is_params=problem.meta_is_params, corrections=terms)
            estimates.update({(estimator.name, p, size): x for p, x in zip(chosen, values, strict=True)})
            if request.keep_paths:
                path.hessian[estimator.name] = steps
    if request.keep_paths:
        kept = replace(path, outer=ends.get("S"))
        estimates.paths.update({(estimator.name, composition, size): kept for estimator in family})


def _ends(path: Path[SampleT], estimator: Estimator, sizes: Sizes, permutations: Sequence[str]) -> dict[str, Objective]:
    """The outer objective at the end of a path, exact (E) and sampled (S) as the permutations want it."""
    last, letters = path.stations[-1], {p[2] for p in permutations}
    ends = {"E": last.exact("outer")} if "E" in letters else {}
    return ends | ({"S": last.sampled("outer", estimator, sizes)} if "S" in letters else {})


def _corrections(
    path: Path[SampleT], estimator: Estimator, sizes: Sizes, ends: Sequence[Objective]
) -> list[list[Objective]]:
    """The sampling correction of every inner step, for every outer objective."""
    values = [getattr(end, "value", None) for end in ends]
    for end, value in zip(ends, values, strict=True):
        if value is None:
            raise EstimatorError(
                f"estimator {estimator.name}: expected outer objectives with a value, got {type(end).__name__} without"
            )
    credited = [credit(estimator, value) for value in values if value is not None]
    return [[station.sampled("inner", each, sizes) for each in credited] for station in path.stations[:-1]]


def _add_debiased(
    estimates: Decomposition,
    problem: Problem[SampleT],
    debias: Debias,
    estimators: Sequence[Estimator],
    size: Size,
    request: _Request,
) -> None:
    """Adds what the parts of a sample give, combined."""
    plain = [replace(estimator, debias=None) for estimator in estimators]
    sizes = sizes_of(size)
    try:
        by_role = {role: debias.terms(sizes.of(role)) for role in ROLES}
    except ValueError as error:
        raise EstimatorError(f"estimator {estimators[0].name}: {error}") from error
    rows = [{role: by_role[role][i].parts for role in ROLES} for i in range(len(by_role["inner"]))]
    split = problem.parts(rows) if isinstance(problem, Splits) else None
    start: dict[Role, Any] = {}
    for i, of_term in enumerate(rows):
        inner, hessian, outer = (of_term[role].shape[-1] for role in ROLES)
        apart = [{role: of_term[role][j] for role in ROLES} for j in range(len(of_term["inner"]))]
        parts: list[Problem[Any]] = [Part(problem, numbers, sizes, start) for numbers in apart]
        if split is not None:
            parts = [split[i]]
        first = parts[0] if i == 0 else None
        for part in parts:
            values = decompose(
                part,
                plain,
                permutations=request.permutations,
                sizes=[Sizes(inner, hessian, outer, sizes.shared)],
                inner_steps=request.inner_steps,
                inner_lr=request.inner_lr,
                keep_paths=request.keep_paths and part is first,
            )
            for (name, permutation, _), estimate in values.items():
                share = by_role["inner"][i].weight / len(parts) * (estimate if split is None else estimate.mean(0))
                key = name, permutation, size
                estimates[key] = estimates[key] + share if key in estimates else share
            estimates.paths.update({(name, letter, size): path for (name, letter, _), path in values.paths.items()})
