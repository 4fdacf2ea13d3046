"""Names for estimators, and the way in for a user's own."""

import importlib
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from gm_estimators import derivatives, surrogates
from gm_estimators.debias import Debias, Jackknife
from gm_estimators.derivatives import DerivativesFunction, LogProbDerivatives, automatic_derivatives
from gm_estimators.surrogates import Surrogate, Trajectories


class EstimatorError(ValueError):
    """An estimator that cannot be found, or does not do what an estimator must; the message is one line."""


@dataclass(frozen=True)
class Estimator:
    """A surrogate with what an experiment has to know about it.

    Attributes:
        name: as on the command line; for a user's own `package.module:function`.
        surrogate: the function.
        critic: whether the paper's experiments give it a critic, or "learnt" for one that is learnt from the sample;
            without one its values are zeros.
        gradient_family: estimators of one family have the same first derivative on the same samples, so that their
            sampled inner steps are shared.
        closed_form: its derivatives in the log-probabilities; found by automatic differentiation if `None`.
        source: where it comes from.
        debias: what `decompose` does against the bias of composition; `None` for the plain estimate.
        correction: the coefficient c of the sampling correction (`corrections.sampling_correction`) that `decompose`
            adds where I and II are sampled; 0 for none.
        ratio_clip: the bounds ρ̄ = c̄ of the V-trace that its off-policy form is (`off_policy.vtrace`); `None` if that
            weighs with cumulative ratios.
    """

    name: str
    surrogate: Surrogate
    critic: bool | Literal["learnt"]
    gradient_family: str
    closed_form: DerivativesFunction | None
    source: str
    debias: Debias | None = None
    correction: float = 0.0
    ratio_clip: float | None = None

    def derivatives(self, trajectories: Trajectories) -> LogProbDerivatives:
        """∂f/∂ℓ and ∂²f/∂ℓ² at the given trajectories.

        Raises:
            EstimatorError: if the surrogate raises or gives a wrong shape, type or a value that is not finite.
        """
        if self.closed_form is not None:
            return self.closed_form(trajectories)
        try:
            return automatic_derivatives(self.surrogate, trajectories)
        except Exception as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise EstimatorError(f"estimator {self.name}: {kind}{detail}") from error


CATALOGUE: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (
        Estimator("ad", surrogates.ad, True, "actor-critic", derivatives.ad_derivatives, "Finn et al. 2017"),
        Estimator("dice", surrogates.dice, False, "dice", derivatives.dice_derivatives, "Foerster et al. 2018"),
        Estimator(
            "loaded_dice",
            surrogates.loaded_dice,
            True,
            "actor-critic",
            derivatives.loaded_dice_derivatives,
            "Farquhar et al. 2019",
        ),
        Estimator("lvc", surrogates.lvc, True, "actor-critic", derivatives.lvc_derivatives, "Rothfuss et al. 2019"),
    )
}


FAMILY: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (
        Estimator(
            "tmaml", surrogates.tmaml, True, "tmaml", derivatives.tmaml_derivatives, "Liu, Socher and Xiong 2019"
        ),
        replace(CATALOGUE["ad"], name="vtrace", source="Espeholt et al. 2018", ratio_clip=1.0),
    )
}
"""Estimators beside those that the paper compares."""


def load(name: str, *, suffixes: bool = True) -> Estimator:
    """The estimator of a name: one of `CATALOGUE`, or `package.module:function` for a surrogate of one's own.

    Other names are in `FAMILY`; `loaded_dice@0.5` is Loaded DiCE with that λ. Each may end in

    - `+learnt` for a critic learnt from the same sample (`critics.learnt_values`);
    - `+jackknife`, `+jackknifeB` or `+jackknifeB.p` for `debias.Jackknife` of B blocks (2) and order p (1);
    - `+correction` or `+correction@c` for E-MAML's sampling correction with the coefficient c (1), see
      `corrections.sampling_correction`: `ad+correction` estimates the gain of adapting with n trajectories;
    - `+vtrace` or `+vtrace@clip` for an off-policy form with V-trace's ratios, clipped at that bound (1), see
      `off_policy.vtrace`; on-policy nothing changes. `vtrace` is `ad+vtrace`.

    Modules are looked for on the Python path and in the working directory. The function may carry the attribute
    `critic = False` to be given values of zero, as DiCE is.

    Args:
        name: the name.
        suffixes: whether a name may end in any `+…`; where neither the critic nor the parts of a sample are at hand,
            only in `+vtrace`.

    Returns:
        The estimator.

    Raises:
        EstimatorError: if there is none of that name, with what there is.
    """
    plain, plus, suffix = name.rpartition("+")
    if plus and not suffixes and not suffix.startswith("vtrace"):
        raise EstimatorError(
            f"expected an estimator without +{suffix}, which only the tabular problems have, got {name!r}"
        )
    if plus:
        return _varied(load(plain, suffixes=suffixes), suffix, name)
    if name in CATALOGUE | FAMILY:
        return (CATALOGUE | FAMILY)[name]
    if name.startswith("loaded_dice@"):
        return _loaded_dice(name)
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise EstimatorError(f"expected one of {', '.join(CATALOGUE)} or package.module:function, got {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise EstimatorError(f"cannot import {module_name!r} of {name!r}: {type(error).__name__}: {reason}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "nothing" if function is None else f"a {type(function).__name__}"
        raise EstimatorError(f"expected a function {function_name!r} in module {module_name!r}, got {found}")
    return Estimator(name, function, bool(getattr(function, "critic", True)), name, None, f"{module_name}")


def _varied(estimator: Estimator, suffix: str, name: str) -> Estimator:
    if suffix == "learnt":
        return replace(estimator, name=name, critic="learnt", gradient_family=f"{estimator.gradient_family} learnt")
    kind, at, given = suffix.partition("@")
    number = _number(given) if at else 1.0
    if kind == "correction":
        if not 0 <= number < math.inf:
            raise EstimatorError(f"expected +correction@c with a finite c of at least 0, got {name!r}")
        return replace(estimator, name=name, correction=number)
    if kind == "vtrace":
        if not number > 0:
            raise EstimatorError(f"expected +vtrace@clip with a bound above 0, got {name!r}")
        return replace(reads_advantages(estimator), name=name, ratio_clip=number)
    found = re.fullmatch(r"jackknife(?:(\d+)(?:\.(\d+))?)?", suffix)
    if found is None:
        raise EstimatorError(
            "expected +learnt, +jackknife, +jackknifeB, +jackknifeB.p, +correction[@c] or +vtrace[@clip] "
            f"at the end, got {name!r}"
        )
    try:
        return replace(estimator, name=name, debias=Jackknife(*(int(x) for x in found.groups() if x is not None)))
    except ValueError as error:
        raise EstimatorError(f"estimator {name}: {error}") from error


def reads_advantages(estimator: Estimator) -> Estimator:
    """The estimator itself.

    Raises:
        EstimatorError: if it reads rewards, for which V-trace has no weights.
    """
    if estimator.surrogate in (surrogates.dice, surrogates.tmaml):
        raise EstimatorError(
            f"estimator {estimator.name}: V-trace weighs advantages, expected an estimator that reads these, "
            "as ad, lvc and loaded_dice do"
        )
    return estimator


def _number(text: str) -> float:
    """NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _loaded_dice(name: str) -> Estimator:
    decay = _number(name.partition("@")[2])
    if not 0 <= decay <= 1:
        raise EstimatorError(f"expected loaded_dice@λ with a λ between 0 and 1, got {name!r}")
    return replace(
        CATALOGUE["loaded_dice"],
        name=name,
        surrogate=partial(surrogates.loaded_dice, decay=decay),
        closed_form=partial(derivatives.loaded_dice_derivatives, decay=decay),
    )


def families(estimators: Iterable[Estimator]) -> list[list[Estimator]]:
    """The estimators grouped by their first derivative, in order of appearance."""
    groups: dict[str, list[Estimator]] = {}
    for estimator in estimators:
        groups.setdefault(estimator.gradient_family, []).append(estimator)
    return list(groups.values())
