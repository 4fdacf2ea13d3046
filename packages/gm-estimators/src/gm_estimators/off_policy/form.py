"""The off-policy form of any estimator."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from gm_estimators.estimator import Estimator, EstimatorError
from gm_estimators.off_policy.dice import off_policy_dice, off_policy_dice_derivatives
from gm_estimators.off_policy.trajectories import require_off_policy, weighted
from gm_estimators.off_policy.vtrace import vtrace
from gm_estimators.surrogates import DerivativesFunction, LogProbDerivatives, Surrogate, Trajectories, dice_derivatives

T = TypeVar("T")

OWN_FORMS: dict[DerivativesFunction | None, tuple[Surrogate, DerivativesFunction]] = {
    dice_derivatives: (off_policy_dice, off_policy_dice_derivatives)
}
"""Closed forms on-policy ↦ surrogate and closed form off-policy, for estimators that have one of their own."""


def off_policy(estimator: Estimator) -> Estimator:
    """An estimator, one's own included, has an off-policy form without mixed derivatives.

    It reads `OffPolicyTrajectories`. DiCE becomes `off_policy_dice`. Any other reads `weighted` trajectories; for `ad`,
    `lvc` and `loaded_dice` the mean of the weighted advantage given the past is ρ_t times that of the on-policy one, at
    λ = 1. An estimator with `ratio_clip` (`vtrace`, `loaded_dice+vtrace`) gets its `vtrace` form with ρ̄ = c̄ = that
    instead, one with `self_normalise` (`dice+selfnorm`) divides ratios by their mean whatever the trajectories say.

    Raises:
        EstimatorError: if it has a τ of its own.

    Examples:
        >>> import torch
        >>> from gm_estimators.off_policy import OffPolicyTrajectories, off_policy
        >>> log_prob, behaviour = torch.tensor([[0.8, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> reward, value, discount = torch.ones(1, 2), torch.zeros(1, 3), torch.ones(3)
        >>> seen = OffPolicyTrajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), discount, behaviour)
        >>> from gm_estimators import load
        >>> off_policy(load("lvc")).surrogate(seen)
        tensor([4.8000])
    """
    if estimator.gae_lambda is not None:
        raise EstimatorError(
            f"estimator {estimator.name}: expected advantages without a τ, which have λ = 1 off-policy"
        )
    if estimator.ratio_clip is not None:
        return vtrace(estimator, ratio_clip=estimator.ratio_clip, trace_clip=estimator.ratio_clip)
    surrogate, derivatives = OWN_FORMS.get(estimator.closed_form) or _on_weighted(estimator)
    kind = "off-policy"
    if estimator.self_normalise:
        surrogate, derivatives = _self_normalised(surrogate), _self_normalised(derivatives)
        kind = "self-normalised off-policy"
    return replace(
        estimator,
        name=f"off-policy {estimator.name}",
        surrogate=surrogate,
        gradient_family=f"{kind} {estimator.gradient_family}",
        closed_form=derivatives,
    )


def _on_weighted(estimator: Estimator) -> tuple[Surrogate, DerivativesFunction]:
    def surrogate(trajectories: Trajectories) -> Tensor:
        return estimator.surrogate(weighted(require_off_policy(trajectories)))

    def derivatives(trajectories: Trajectories) -> LogProbDerivatives:
        return replace(estimator.derivatives(weighted(require_off_policy(trajectories))), mixed=None)

    return surrogate, derivatives


def _self_normalised(function: Callable[[Trajectories], T]) -> Callable[[Trajectories], T]:
    return lambda trajectories: function(replace(require_off_policy(trajectories), self_normalise=True))
