"""Derivatives in the log-probabilities for a surrogate without a closed form."""

from dataclasses import replace

import torch
from torch import Tensor

from gm_estimators.surrogates.trajectories import (
    LogProbDerivatives,
    SignalCotangents,
    Surrogate,
    Trajectories,
    copied,
    mean_surrogate,
)


@torch.enable_grad()
def automatic_derivatives(surrogate: Surrogate, trajectories: Trajectories) -> LogProbDerivatives:
    """Automatic differentiation gives ∂f/∂ℓ and ∂²f/∂ℓ² of any surrogate f, ℓ being the log-probabilities.

    The surrogate reads a copy, so that one that changes its input in place changes no one else's.

    Raises:
        ValueError: if it gives another shape than one number per trajectory, does not depend on the
            log-probabilities, or has a gradient that is not finite.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, automatic_derivatives, lvc
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> automatic_derivatives(lvc, seen).first
        tensor([[2., 1.]])
    """
    leaf = trajectories.log_prob.detach().requires_grad_()
    mean = mean_surrogate(surrogate, copied(replace(trajectories, log_prob=leaf)))
    if not mean.requires_grad:
        raise ValueError("surrogate: expected a differentiable function of trajectories.log_prob, got a constant")
    total = mean.sum() * leaf.shape[-2]
    (first,) = torch.autograd.grad(total, leaf, create_graph=True)
    if not bool(first.isfinite().all()):
        raise ValueError("surrogate: expected a finite gradient in trajectories.log_prob, got NaN or infinity")

    def mixed(direction: Tensor) -> SignalCotangents:
        return _automatic_mixed(surrogate, trajectories, direction)

    if not first.requires_grad:
        return LogProbDerivatives(first, torch.zeros_like(first), mixed=mixed)

    @torch.enable_grad()
    def product(direction: Tensor) -> Tensor:
        (along,) = torch.autograd.grad(
            (first * direction).sum(), leaf, retain_graph=True, materialize_grads=True, allow_unused=True
        )
        return along

    return LogProbDerivatives(first.detach(), None, product, mixed)


@torch.enable_grad()
def _automatic_mixed(surrogate: Surrogate, trajectories: Trajectories, direction: Tensor) -> SignalCotangents:
    """∂⟨w, d⟩/∂(rewards, values, advantages) has a graph of its own, so that others need not carry it."""
    leaf = trajectories.log_prob.detach().requires_grad_()
    names = ("reward", "value", "advantage")
    signals = {name: getattr(trajectories, name).detach().requires_grad_() for name in names}
    total = mean_surrogate(surrogate, copied(replace(trajectories, log_prob=leaf, **signals))).sum() * leaf.shape[-2]
    (first,) = torch.autograd.grad(total, leaf, create_graph=True)
    if not first.requires_grad:
        return SignalCotangents()
    cotangents = torch.autograd.grad((first * direction).sum(), list(signals.values()), allow_unused=True)
    return SignalCotangents(*cotangents)
