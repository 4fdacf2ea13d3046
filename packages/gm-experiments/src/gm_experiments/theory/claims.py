"""The claims of the paper's theory, as docs/claims.toml says they are decided."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gm_experiments.common.claims import DISTANCE, EXPONENT, LOG_BOUND, Claim
from gm_experiments.common.labels import estimator
from gm_experiments.theory.figures import rows
from gm_experiments.theory.settings import AXES, GRIDS, HESSIAN_ERRORS, ROUNDING
from gm_lab import analysis
from gm_lab.analysis import Comparison, at_least, at_most, check, log_ratio, near, per_unit, ratio_above, within

if TYPE_CHECKING:
    import pandas as pd

FROM_ELSEWHERE = {"global": "proved constants", "other": "constants of other samples"}
"""Bounds that do not hold by arithmetic alone: those of the same samples' constants do, and are a check of the code."""
GROWTH = {"theory_steps": "K", "theory_rate": "α"}


def _values_of(study: str, axis: str) -> tuple[float, ...]:
    """What a study has for a column of results.csv."""
    grid = GRIDS[study]
    return {"sample_size": grid.sample_sizes, "inner_steps": grid.inner_steps, "inner_lr": grid.inner_lrs}[axis]


class Studies:
    """The rows of theory's studies; `asked` notes every study that was looked up, as evidence of figures does."""

    def __init__(self, frame: "pd.DataFrame") -> None:
        self._rows = rows(frame)
        self.asked = set[Any]()

    def __call__(self, study: str, **where: Any) -> "pd.DataFrame":
        """The rows of a study where column=value, perhaps none."""
        grid = GRIDS[study]
        self.asked |= {(study, name, permutation, ()) for name in grid.estimators for permutation in grid.permutations}
        found = self._rows[self._rows["figure"] == study]
        for axis in ("inner_steps", "inner_lr"):  # what flags add is not what the claims are about
            found = found[found[axis].isin(_values_of(study, axis))]
        for column, value in where.items():
            found = found[found[column] == value]
        return found

    def by_mdp(self, study: str, value: str, **where: Any) -> "pd.Series[float]":
        """One number for each MDP at one point of a study."""
        return per_unit(self(study, **where), value, "mdp")


def slopes(studies: Studies) -> Iterator[Comparison]:
    """The slope of log E‖θ̂ᴷ − θᴷ‖ over log |τ|, MDP by MDP."""
    import numpy as np
    import pandas as pd

    sizes = GRIDS["theory_size"].sample_sizes
    for name in GRIDS["theory_size"].estimators:
        chosen = studies("theory_size", estimator=name)
        # what is NaN or missing stays so, and decides nothing
        table = chosen.pivot_table(index="mdp", columns="sample_size", values="measured", dropna=False)
        logs = np.log(table.reindex(columns=list(sizes)).to_numpy(dtype=float))
        centred = np.log(sizes) - np.mean(np.log(sizes))
        by_mdp = pd.Series(logs @ centred / (centred @ centred), index=table.index, dtype=float)
        yield near(f"exponent of |τ| with {estimator(name)} ≈ −½", by_mdp, -0.5, EXPONENT)


def grows(studies: Studies) -> Iterator[Comparison]:
    """E‖θ̂ᴷ − θᴷ‖ is larger at the largest K or α than at the smallest."""
    for study, unit in GROWTH.items():
        for name in GRIDS[study].estimators:
            (least, low), (most, high) = (_at_end(studies, study, end, name, "measured") for end in (0, -1))
            label = f"distance with {estimator(name)}: {unit} = {most:g} > {least:g}"
            yield ratio_above(label, high, low, DISTANCE)


def distance_under_its_bound(studies: Studies) -> Iterator[Comparison]:
    """Lemma 4.4 at the largest |τ|, K and α, with constants that know nothing of the samples measured."""
    for study in ("theory_size", *GROWTH):
        for name in GRIDS[study].estimators:
            for kind, words in FROM_ELSEWHERE.items():
                point, measured = _at_end(studies, study, -1, name, "measured")
                _, bound = _at_end(studies, study, -1, name, f"bound_{kind}")
                where = {"theory_size": "|τ|", **GROWTH}[study]
                label = f"distance with {estimator(name)} at {where} = {point:g}, {words}"
                yield at_least(label, log_ratio(bound, measured), 0.0, LOG_BOUND)


def _at_end(studies: Studies, study: str, end: int, name: str, value: str) -> "tuple[float, pd.Series[float]]":
    """The smallest or largest value of what a study varies, and a column there."""
    axis = AXES[study]
    point = _values_of(study, axis)[end]
    return float(point), studies.by_mdp(study, value, estimator=name, **{axis: point})


def split_under_its_bound(quantity: str, measured: str, studies: Studies) -> Iterator[Comparison]:
    """Theorem 4.5 with inner gradient and Hessian sampled, by the upper end of a bias, which itself may be zero."""
    for name in GRIDS["theory_split"].estimators:
        where = {"quantity": quantity, "estimator": name, "permutation": "SSE"}
        for kind, words in FROM_ELSEWHERE.items():
            columns = (f"bound_{kind}", measured)
            bound, value = (studies.by_mdp("theory_split", column, **where) for column in columns)
            label = f"{quantity} of {estimator(name)} SSE, {words}"
            yield at_least(label, log_ratio(bound, value), 0.0, LOG_BOUND)


def noise_under_its_bound(studies: Studies) -> Iterator[Comparison]:
    """The variance under the largest error of the Hessian and the most steps."""
    steps = GRIDS["theory_hessian"].inner_steps[-1]
    for algorithm in ("maml", "lirpg"):
        where = {"algorithm": algorithm, "inner_steps": steps, "hessian_error": HESSIAN_ERRORS[-1]}
        for kind, words in FROM_ELSEWHERE.items():
            columns = (f"bound_{kind}", "measured")
            bound, value = (studies.by_mdp("theory_hessian", x, quantity="variance", **where) for x in columns)
            label = f"variance of {algorithm} at K = {steps}, δ = {HESSIAN_ERRORS[-1]:g}, {words}"
            yield at_least(label, log_ratio(bound, value), 0.0, LOG_BOUND)


def checked(quantity: str, chosen: Sequence[str], studies: Studies) -> Iterator[Comparison]:
    """At every point: under the bound of its own samples, as arithmetic has it, and not surely above the proved one."""
    for study in chosen:
        for algorithm, points in studies(study, quantity=quantity).groupby("algorithm"):
            for kind, column in (("local", "measured"), ("global", "measured_low")):
                yield _every_point(f"{study} {algorithm} {quantity}", kind, column, points)


def _every_point(label: str, kind: str, column: str, points: "pd.DataFrame") -> Comparison:
    """Whether a column is under a bound everywhere; unknown if one is not finite, since that says nothing."""
    import numpy as np

    words = {"local": "constants of the same samples (a check of the code)", "global": "proved constants"}[kind]
    limit = points[f"bound_{kind}"] * (1 + 1e-9) + ROUNDING
    under = int((points[column] <= limit).sum())
    detail = f"{under} of {len(points)} points, bound / measured at least {points[f'tightness_{kind}'].min():.3g}"
    told = np.isfinite(limit).all() and points[column].notna().all()
    holds = under == len(points) if told or (points[column] > limit).any() else None
    return check(f"{label} at every point, {words}", holds, detail)


def degrees(studies: Studies) -> Iterator[Comparison]:
    """The exponent of the bias in δ between the two largest errors: it approaches the degree from below."""
    import numpy as np

    (less, most), grid = HESSIAN_ERRORS[-2:], GRIDS["theory_hessian"]
    for algorithm in ("maml", "lirpg"):
        for steps in grid.inner_steps:
            degree = steps - (algorithm == "lirpg")
            where = {"quantity": "bias", "algorithm": algorithm, "inner_steps": steps}
            if degree == 0:
                yield _no_bias(f"{algorithm} K = {steps}: no bias", studies("theory_hessian", **where)["measured"])
                continue
            points = ({"hessian_error": error} for error in (most, less))
            first, second = (studies.by_mdp("theory_hessian", "measured", **where, **point) for point in points)
            exponent = log_ratio(first, second) / float(np.log(most / less))
            label = f"exponent of δ for {algorithm}, K = {steps}"
            # δ: the bias of a linear one is exactly linear, and no interval lies below what it is
            yield at_most(f"{label}: at most {degree}", exponent, degree + EXPONENT.delta, EXPONENT)
            yield at_least(f"{label}: above {degree - 1}", exponent, degree - 1, EXPONENT)


def _no_bias(label: str, measured: "pd.Series[float]") -> Comparison:
    if measured.empty:
        return check(label, None, "no data")
    largest = float(measured.max(skipna=False))
    return within(label, largest, ROUNDING, f"at most {largest:.1e}")


CLAIMS: tuple[Claim[Studies], ...] = (
    Claim("THEORY-1", "E‖θ̂ᴷ − θᴷ‖ falls as |τ|^−½", (slopes,)),
    Claim("THEORY-2", "it grows with α and K no faster than Lemma 4.4 says",
        (distance_under_its_bound, partial(checked, "distance", ("theory_size", *GROWTH)))),
    Claim("THEORY-3", "the bias stays under Eq. 44 and is a polynomial of degree K − 1 in the Hessian's error",
        (partial(split_under_its_bound, "bias", "measured_high"), degrees,
         partial(checked, "bias", ("theory_split", "theory_hessian")))),
    Claim("THEORY-4", "the variance stays under Eq. 57",
        (partial(split_under_its_bound, "variance", "measured"), noise_under_its_bound,
         partial(checked, "variance", ("theory_split", "theory_hessian")))),
    Claim("THEORY-5", "E‖θ̂ᴷ − θᴷ‖ grows with K and α", (grows,)),
)  # fmt: skip


def claims(frame: "pd.DataFrame") -> list[analysis.Verdict]:
    """The verdicts on THEORY-1 to THEORY-5."""
    studies = Studies(frame)
    return [claim.verdict(studies) for claim in CLAIMS]
