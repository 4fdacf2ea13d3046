"""What an estimator is, and those that there are."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from gm_estimators.debias import Debias
from gm_estimators.surrogates import (
    DerivativesFunction,
    LogProbDerivatives,
    Surrogate,
    Trajectories,
    ad,
    ad_derivatives,
    automatic_derivatives,
    dice,
    dice_derivatives,
    loaded_dice,
    loaded_dice_derivatives,
    lvc,
    lvc_derivatives,
    tmaml,
    tmaml_derivatives,
)

__all__ = ["CATALOGUE", "FAMILY", "Estimator", "EstimatorError", "families", "require_advantages", "said_by"]


class EstimatorError(ValueError):
    """An estimator that cannot be found, or does not do what an estimator must; the message is one line."""


@dataclass(frozen=True)
class Estimator:
    """A surrogate with what an experiment has to know about it.

    Attributes:
        name: as on the command line; for a user's own `package.module:function`.
        surrogate: the function.
        critic: whether the paper's tabular experiments give it a critic, or "learnt" for one that is learnt from the
            sample; without one its values are zeros.
        gradient_family: estimators of one family have the same first derivative on the same samples, so that their
            sampled inner steps are shared.
        closed_form: its derivatives in the log-probabilities; had by automatic differentiation if `None`.
        source: where it comes from.
        debias: what `decompose` does against the bias of composition; `None` for the plain estimate.
        correction: the coefficient c of the sampling correction (`corrections.sampling_correction`) that `decompose`
            adds where I and II are sampled; 0 for none.
        ratio_clip: the bounds ρ̄ = c̄ of the V-trace that its off-policy form is (`off_policy.vtrace`); `None` if that
            weighs with cumulative ratios.
        self_normalise: whether its off-policy form divides cumulative ratios by their mean over the trajectories.
        gae_lambda: λ of the advantages that it reads in a tabular problem; `None` for the problem's.
        reads: whether its surrogate reads advantages, as a user's own is taken to do, or rewards and values.
        takes_values: whether it can be given a critic's values at all; `False` only for a user's own that says so.
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
    reads: Literal["advantages", "rewards"] = "advantages"
    takes_values: bool = True

    def derivatives(self, trajectories: Trajectories) -> LogProbDerivatives:
        """The surrogate has these derivatives ∂f/∂ℓ and ∂²f/∂ℓ², in closed form or else by automatic differentiation.

        Raises:
            EstimatorError: if the surrogate raises or gives a wrong shape, type or a value that is not finite.
        """
        if self.closed_form is not None:
            return self.closed_form(trajectories)
        try:
            return automatic_derivatives(self.surrogate, trajectories)
        except Exception as error:
            detail = said_by(error) or type(error).__name__
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise EstimatorError(f"estimator {self.name}: {kind}{detail}") from error


def said_by(error: Exception, length: int = 500) -> str:
    """What an exception says, on one line of at most `length` characters; nothing if its own text can't be had.

    Examples:
        >>> from gm_estimators.estimator import said_by
        >>> said_by(ValueError("two   words"))
        'two words'
    """
    try:
        text = " ".join(str(error).split())
    except Exception:
        return ""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _by_name(*estimators: Estimator) -> dict[str, Estimator]:
    return {estimator.name: estimator for estimator in estimators}


CATALOGUE = _by_name(
    Estimator("ad", ad, True, "actor-critic", ad_derivatives, "Finn et al. 2017"),
    Estimator("dice", dice, False, "dice", dice_derivatives, "Foerster et al. 2018", reads="rewards"),
    Estimator("loaded_dice", loaded_dice, True, "actor-critic", loaded_dice_derivatives, "Farquhar et al. 2019"),
    Estimator("lvc", lvc, True, "actor-critic", lvc_derivatives, "Rothfuss et al. 2019"),
)
"""Estimators that the paper compares."""

FAMILY = _by_name(
    Estimator("tmaml", tmaml, True, "tmaml", tmaml_derivatives, "Liu, Socher and Xiong 2019", reads="rewards"),
    replace(CATALOGUE["ad"], name="vtrace", source="Finn et al. 2017; Espeholt et al. 2018", ratio_clip=1.0),
)
"""Estimators beside those that the paper compares."""


def families(estimators: Iterable[Estimator]) -> list[list[Estimator]]:
    """Estimators with one first derivative form a group; groups are in order of appearance.

    Examples:
        >>> from gm_estimators import load
        >>> from gm_estimators.estimator import families
        >>> [[estimator.name for estimator in group] for group in families(map(load, ["ad", "dice", "lvc"]))]
        [['ad', 'lvc'], ['dice']]
    """
    groups: dict[str, list[Estimator]] = {}
    for estimator in estimators:
        groups.setdefault(estimator.gradient_family, []).append(estimator)
    return list(groups.values())


def require_advantages(estimator: Estimator) -> Estimator:
    """Returns the estimator itself.

    Raises:
        EstimatorError: if it reads rewards, for which V-trace has no weights.

    Examples:
        >>> from gm_estimators import load
        >>> from gm_estimators.estimator import require_advantages
        >>> require_advantages(load("lvc")).name
        'lvc'
    """
    if estimator.reads != "advantages":
        raise EstimatorError(
            f"estimator {estimator.name}: V-trace weighs advantages, expected an estimator that reads these, "
            "as ad, lvc and loaded_dice do"
        )
    return estimator
