"""Operators that change derivatives and leave values alone; ⊥ is stop-gradient, → is "evaluates to"."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "decomposed_step",
    "likelihood_ratio",
    "magic_box",
]


def magic_box(log_prob: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The magic box is one, and keeps the derivatives of exp: □(x) = exp(x − ⊥x) → 1, ∇□(x) = □(x) ∇x.

    Foerster et al. 2018, "DiCE: The Infinitely Differentiable Monte Carlo Estimator".

    Args:
        log_prob: x, a (sum of) log-probabilities.

    Returns:
        Ones, whose derivatives of any order are those of the probability ratio.
    """
    return torch.exp(log_prob - log_prob.detach())


def likelihood_ratio(
    log_prob: Float[Tensor, "*shape"], behaviour_log_prob: Float[Tensor, "*shape"] | None = None
) -> Float[Tensor, "*shape"]:
    """The likelihood ratio is π(a | s) / ⊥μ(a | s) = exp(log π − ⊥log μ).

    Args:
        log_prob: log π, differentiable.
        behaviour_log_prob: log μ of the policy that drew the actions; μ = π, the magic box, if there is none.

    Returns:
        The ratio.
    """
    return torch.exp(log_prob - (log_prob if behaviour_log_prob is None else behaviour_log_prob).detach())


def decomposed_step(composition: Float[Tensor, "*shape"], hessian: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A decomposed step has the value of θ′_c and the derivatives of θ′_h: θ′ = ⊥θ′_c + θ′_h − ⊥θ′_h (paper, G.1.2).

    Args:
        composition: θ′_c, the step taken with estimator I.
        hessian: θ′_h, the step taken with estimator II.

    Returns:
        θ′ with θ′ → θ′_c and ∇θ′ = ∇θ′_h.
    """
    return composition.detach() + (hessian - hessian.detach())
