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
        self_normalise: whether its off-policy form divides cumulative ratios by their mean over the trajectories.
        gae_lambda: λ of the advantages that it reads in a `TabularProblem`; `None` for the problem's.
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
    self_normalise: bool = False
    gae_lambda: float | None = None

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
        replace(CATALOGUE["ad"], name="vtrace", source="Finn et al. 2017; Espeholt et al. 2018", ratio_clip=1.0),
    )
}
"""Estimators beside those that the paper compares."""

_ENDINGS = {
    "learnt": ("+learnt", "Sutton and Barto 2018"),
    "jackknife": ("+jackknife[B[.p]]", "Schucany, Gray and Owen 1971"),
    "correction": ("+correction[@c]", "Stadie et al. 2018"),
    "vtrace": ("+vtrace[@clip]", "Espeholt et al. 2018"),
    "selfnorm": ("+selfnorm", "Owen 2013"),
}
"""What a name may end in: how it is written, and where it comes from."""
_OFF_POLICY = ("vtrace", "selfnorm")


def load(name: str, *, suffixes: bool = True) -> Estimator:
    """The estimator of a name: one of `CATALOGUE`, or `package.module:function` for a surrogate of one's own.

    Other names are in `FAMILY`; `loaded_dice@0.5` is Loaded DiCE with that λ, `loaded_dice@0.5,0.9` with advantages of
    τ = 0.9, too, the λ of `returns.gae`, whatever the problem has for other estimators (Farquhar et al. 2019). Each may
    end in these, once each:

    - `+learnt` for a critic learnt from the same sample (`critics.learnt_values`);
    - `+jackknife`, `+jackknifeB` or `+jackknifeB.p` for `debias.Jackknife` of B blocks (2) and order p (1);
    - `+correction` or `+correction@c` for E-MAML's sampling correction with the coefficient c (1), see
      `corrections.sampling_correction`: `ad+correction` estimates the gain of adapting with n trajectories;
    - `+vtrace` or `+vtrace@clip` for an off-policy form with V-trace's ratios, clipped at that bound (1), see
      `off_policy.vtrace`; on-policy nothing changes. `vtrace` is `ad+vtrace`;
    - `+selfnorm` for an off-policy form with cumulative ratios that are divided by their mean, see
      `off_policy.cumulative_ratio`; on-policy nothing changes.

    Modules are looked for on the Python path and in the working directory. The function may carry the attribute
    `critic = False` to be given values of zero, as DiCE is.

    Args:
        name: the name.
        suffixes: whether a name may have a τ and end in any `+…`; where neither the critic nor the parts of a sample
            are at hand, only in `+vtrace` or `+selfnorm`.

    Returns:
        The estimator.

    Raises:
        EstimatorError: if there is none of that name, with what there is.
    """
    plain, *endings = name.split("+")
    kinds = [_kind(ending) for ending in endings]
    if not suffixes and (tabular := [e for e, kind in zip(endings, kinds, strict=True) if kind not in _OFF_POLICY]):
        raise EstimatorError(
            f"expected an estimator without +{tabular[-1]}, which only the tabular problems have, got {name!r}"
        )
    found = _plain(plain, suffixes)
    for ending, kind in zip(endings, kinds, strict=True):
        if kinds.count(kind) > 1 or (kind == "vtrace" and plain == "vtrace"):
            raise EstimatorError(f"expected every ending at most once, got more than one +{kind} in {name!r}")
        varied = _varied(found, kind, ending, name)
        found = replace(varied, name=name, source=f"{found.source}; {_ENDINGS[kind][1]}")
    return found


def _kind(ending: str) -> str:
    """What kind of ending it is, without its numbers."""
    return "jackknife" if ending.startswith("jackknife") else ending.partition("@")[0]


def _plain(name: str, suffixes: bool) -> Estimator:
    """The estimator of a name without its endings."""
    if name in CATALOGUE | FAMILY:
        return (CATALOGUE | FAMILY)[name]
    if name.startswith("loaded_dice@"):
        return _loaded_dice(name, suffixes)
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        others = ", ".join((*FAMILY, "loaded_dice@λ", *(["loaded_dice@λ,τ"] if suffixes else [])))
        endings = ", ".join(usage for kind, (usage, _) in _ENDINGS.items() if suffixes or kind in _OFF_POLICY)
        raise EstimatorError(
            f"expected one of {', '.join(CATALOGUE)} or package.module:function, or of {others}, "
            f"each perhaps with {endings}, got {name!r}"
        )
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
    return Estimator(name, function, bool(getattr(function, "critic", True)), name, None, module_name)


def _varied(estimator: Estimator, kind: str, ending: str, name: str) -> Estimator:
    """The estimator with what an ending says."""
    if ending == "learnt":
        return replace(estimator, critic="learnt", gradient_family=f"{estimator.gradient_family} learnt")
    if kind in _OFF_POLICY and (estimator.self_normalise or estimator.ratio_clip is not None):
        raise EstimatorError(
            f"expected +vtrace, with ratios of single steps, or +selfnorm, with cumulative ones, got both in {name!r}"
        )
    if ending == "selfnorm":
        # no longer the very function `dice`, of which games have sums with ratios that are not normalised
        return replace(estimator, surrogate=partial(estimator.surrogate), self_normalise=True)
    _, at, given = ending.partition("@")
    number = _number(given) if at else 1.0
    if kind == "correction":
        if not 0 <= number < math.inf:
            raise EstimatorError(f"expected +correction@c with a finite c of at least 0, got {name!r}")
        return replace(estimator, correction=number)
    if kind == "vtrace":
        if not number > 0:
            raise EstimatorError(f"expected +vtrace@clip with a bound above 0, got {name!r}")
        return replace(reads_advantages(estimator), ratio_clip=number)
    found = re.fullmatch(r"jackknife(?:(\d+)(?:\.(\d+))?)?", ending)
    if found is None:
        usages = ", ".join(usage for usage, _ in _ENDINGS.values())
        raise EstimatorError(f"expected one of {usages} at the end, got {name!r}")
    try:
        return replace(estimator, debias=Jackknife(*(int(x) for x in found.groups() if x is not None)))
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


def _loaded_dice(name: str, suffixes: bool) -> Estimator:
    """Loaded DiCE with a λ, perhaps with a τ."""
    decay, *tau = (_number(given) for given in name.partition("@")[2].split(","))
    if len(tau) > 1 or not all(0 <= number <= 1 for number in (decay, *tau)):
        raise EstimatorError(f"expected loaded_dice@λ or loaded_dice@λ,τ, both between 0 and 1, got {name!r}")
    if tau and not suffixes:
        raise EstimatorError(f"expected loaded_dice@λ without τ, which only the tabular problems have, got {name!r}")
    found = replace(
        CATALOGUE["loaded_dice"],
        name=name,
        surrogate=partial(surrogates.loaded_dice, decay=decay),
        closed_form=partial(derivatives.loaded_dice_derivatives, decay=decay),
    )
    return replace(found, gae_lambda=tau[0], gradient_family=f"actor-critic τ {tau[0]}") if tau else found


def families(estimators: Iterable[Estimator]) -> list[list[Estimator]]:
    """The estimators grouped by their first derivative, in order of appearance."""
    groups: dict[str, list[Estimator]] = {}
    for estimator in estimators:
        groups.setdefault(estimator.gradient_family, []).append(estimator)
    return list(groups.values())
