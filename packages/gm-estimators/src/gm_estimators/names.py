"""The grammar of estimators' names, such as `lvc+jackknife2.1`, and the way in for a user's own."""

import importlib
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from gm_estimators.debias import Jackknife
from gm_estimators.estimator import CATALOGUE, FAMILY, Estimator, EstimatorError, require_advantages, said_by
from gm_estimators.surrogates import loaded_dice, loaded_dice_derivatives
from gm_estimators.surrogates.trajectories import copied

__all__ = ["load"]


def load(name: str, *, suffixes: bool = True) -> Estimator:
    """A name stands for an estimator: one of `CATALOGUE` or `FAMILY`, or `package.module:function` for one's own.

    `loaded_dice@0.5` is Loaded-DiCE with that λ, `loaded_dice@0.5,0.9` with advantages of τ = 0.9, too, the λ of
    `returns.gae`, whatever the problem has for other estimators (Farquhar et al. 2019). Each may end in these, once
    each:

    - `+learnt` for a critic learnt from the same sample (`critics.learnt_values`);
    - `+jackknife`, `+jackknifeB` or `+jackknifeB.p` for `debias.Jackknife` of B blocks (2) and order p (1);
    - `+correction` or `+correction@c` for E-MAML's sampling correction with the coefficient c (1), see
      `corrections.sampling_correction`: `ad+correction` estimates the gain of adapting with n trajectories;
    - `+vtrace` or `+vtrace@clip` for an off-policy form with V-trace's ratios, clipped at that bound (1), see
      `off_policy.vtrace`; on-policy nothing changes. `vtrace` is `ad+vtrace`;
    - `+selfnorm` for an off-policy form with cumulative ratios that are divided by their mean, see
      `off_policy.cumulative_ratio`; on-policy nothing changes.

    Modules are looked for on the Python path and in the working directory. The function may carry the attribute
    `critic = False` to be given values of zero, as DiCE is. Without `suffixes`, where neither the critic nor the parts
    of a sample are at hand, a name has no τ and ends only in `+vtrace` or `+selfnorm`.

    Raises:
        EstimatorError: if there is none of that name, with what there is.

    Examples:
        >>> from gm_estimators import load
        >>> load("lvc").source
        'Rothfuss et al. 2019'
        >>> load("loaded_dice@0.5+jackknife").debias
        Jackknife(blocks=2, order=1)
    """
    plain, *endings = name.split("+")
    kinds = [_kind(ending) for ending in endings]
    if not suffixes:
        _refuse_tabular(name, endings, kinds)
    estimator = _without_endings(plain, suffixes)
    for ending, kind in zip(endings, kinds, strict=True):
        if kinds.count(kind) > 1 or (kind == plain == "vtrace"):
            raise EstimatorError(f"expected every ending at most once, got more than one +{kind} in {name!r}")
        if kind not in ENDINGS:
            raise _unknown_ending(name)
        varied = ENDINGS[kind].vary(estimator, ending.removeprefix(kind), name)
        estimator = replace(varied, name=name, source=f"{estimator.source}; {ENDINGS[kind].source}")
    return estimator


def _without_endings(name: str, suffixes: bool) -> Estimator:
    known = CATALOGUE | FAMILY
    if name in known:
        return known[name]
    if name.startswith("loaded_dice@"):
        return _loaded_dice(name, suffixes)
    module, colon, function = name.partition(":")
    if not (colon and module and function):
        raise _unknown_name(name, suffixes)
    return _own(name, module, function)


def _loaded_dice(name: str, suffixes: bool) -> Estimator:
    decay, *tau = (_number(given) for given in name.partition("@")[2].split(","))
    if len(tau) > 1 or not all(0 <= number <= 1 for number in (decay, *tau)):
        raise EstimatorError(f"expected loaded_dice@λ or loaded_dice@λ,τ, both between 0 and 1, got {name!r}")
    if tau and not suffixes:
        raise EstimatorError(f"expected loaded_dice@λ without τ, which only the tabular problems have, got {name!r}")
    estimator = replace(
        CATALOGUE["loaded_dice"],
        name=name,
        surrogate=partial(loaded_dice, decay=decay),
        closed_form=partial(loaded_dice_derivatives, decay=decay),
    )
    return replace(estimator, gae_lambda=tau[0], gradient_family=f"actor-critic τ {tau[0]}") if tau else estimator


def _own(name: str, module_name: str, function_name: str) -> Estimator:
    """A user's function is an estimator whose derivatives are automatic."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {said_by(error)}".removesuffix(": ")
        raise EstimatorError(f"cannot import {module_name!r} of {name!r}: {reason}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        came = "nothing" if function is None else f"a {type(function).__name__}"
        raise EstimatorError(f"expected a function {function_name!r} in module {module_name!r}, got {came}")
    critic = bool(getattr(function, "critic", True))
    return Estimator(
        name, lambda trajectories: function(copied(trajectories)), critic, name, None, module_name, takes_values=critic
    )


def _learnt(estimator: Estimator, argument: str, name: str) -> Estimator:
    if argument:
        raise _unknown_ending(name)
    return replace(estimator, critic="learnt", gradient_family=f"{estimator.gradient_family} learnt")


def _jackknife(estimator: Estimator, argument: str, name: str) -> Estimator:
    numbers = re.fullmatch(r"(?:(\d+)(?:\.(\d+))?)?", argument)
    if numbers is None:
        raise _unknown_ending(name)
    try:
        return replace(estimator, debias=Jackknife(*(int(x) for x in numbers.groups() if x is not None)))
    except ValueError as error:
        raise EstimatorError(f"estimator {name}: {error}") from error


def _correction(estimator: Estimator, argument: str, name: str) -> Estimator:
    coefficient = _number(argument[1:]) if argument else 1.0
    if not 0 <= coefficient < math.inf:
        raise EstimatorError(f"expected +correction@c with a finite c of at least 0, got {name!r}")
    return replace(estimator, correction=coefficient)


def _vtrace(estimator: Estimator, argument: str, name: str) -> Estimator:
    _refuse_two_forms(estimator, name)
    clip = _number(argument[1:]) if argument else 1.0
    if not clip > 0:
        raise EstimatorError(f"expected +vtrace@clip with a bound above 0, got {name!r}")
    return replace(require_advantages(estimator), ratio_clip=clip)


def _selfnorm(estimator: Estimator, argument: str, name: str) -> Estimator:
    _refuse_two_forms(estimator, name)
    if argument:
        raise _unknown_ending(name)
    return replace(estimator, self_normalise=True)


@dataclass(frozen=True)
class _Ending:
    """What a name may end in: how it is written, where it comes from, and what it makes of an estimator."""

    usage: str
    source: str
    vary: Callable[[Estimator, str, str], Estimator]
    off_policy: bool = False


ENDINGS = {
    "learnt": _Ending("+learnt", "Sutton and Barto 2018", _learnt),
    "jackknife": _Ending("+jackknife[B[.p]]", "Schucany, Gray and Owen 1971", _jackknife),
    "correction": _Ending("+correction[@c]", "Stadie et al. 2018", _correction),
    "vtrace": _Ending("+vtrace[@clip]", "Espeholt et al. 2018", _vtrace, off_policy=True),
    "selfnorm": _Ending("+selfnorm", "Owen 2013", _selfnorm, off_policy=True),
}


def _kind(ending: str) -> str:
    """An ending's kind is what it is without its numbers."""
    return "jackknife" if ending.startswith("jackknife") else ending.partition("@")[0]


def _number(text: str) -> float:
    """NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_off_policy(kind: str) -> bool:
    return kind in ENDINGS and ENDINGS[kind].off_policy


def _refuse_tabular(name: str, endings: list[str], kinds: list[str]) -> None:
    tabular = [ending for ending, kind in zip(endings, kinds, strict=True) if not _is_off_policy(kind)]
    if tabular:
        raise EstimatorError(
            f"expected an estimator without +{tabular[-1]}, which only the tabular problems have, got {name!r}"
        )


def _refuse_two_forms(estimator: Estimator, name: str) -> None:
    if estimator.self_normalise or estimator.ratio_clip is not None:
        raise EstimatorError(
            f"expected +vtrace, with ratios of single steps, or +selfnorm, with cumulative ones, got both in {name!r}"
        )


def _unknown_name(name: str, suffixes: bool) -> EstimatorError:
    others = ", ".join((*FAMILY, "loaded_dice@λ", *(["loaded_dice@λ,τ"] if suffixes else [])))
    usages = ", ".join(ending.usage for ending in ENDINGS.values() if suffixes or ending.off_policy)
    return EstimatorError(
        f"expected one of {', '.join(CATALOGUE)} or package.module:function, or of {others}, "
        f"each perhaps with {usages}, got {name!r}{_meant(name)}"
    )


def _meant(name: str) -> str:
    """Asks whether a name that is close was meant; empty if none is."""
    plain, plus, endings = name.partition("+")
    close = get_close_matches(plain.lower().replace("-", "_"), (*CATALOGUE, *FAMILY), 1)
    return f" (did you mean {close[0]}{plus}{endings}?)" if close else ""


def _unknown_ending(name: str) -> EstimatorError:
    usages = ", ".join(ending.usage for ending in ENDINGS.values())
    unknown = next((ending for ending in name.split("+")[1:] if _kind(ending) not in ENDINGS), "")
    close = get_close_matches(unknown, ENDINGS, 1)
    hint = f" (did you mean +{close[0]}?)" if close else ""
    return EstimatorError(f"expected one of {usages} at the end, got {name!r}{hint}")
