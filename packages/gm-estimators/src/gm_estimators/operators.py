"""Operators that change derivatives and leave values alone; ⊥ is stop-gradient, → is "evaluates to"."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["decomposed_step", "likelihood_ratio", "magic_box", "power_of_two_below"]


def magic_box(log_prob: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The magic box is one, and keeps the derivatives of exp: □(x) = exp(x − ⊥x) → 1, ∇□(x) = □(x) ∇x.

    Foerster et al. 2018, "DiCE: The Infinitely Differentiable Monte Carlo Estimator".

    Examples:
        >>> import torch
        >>> from gm_estimators.operators import magic_box
        >>> log_prob = torch.tensor(-0.7, requires_grad=True)
        >>> box = magic_box(3 * log_prob)
        >>> box.item(), torch.autograd.grad(box, log_prob)[0].item()
        (1.0, 3.0)
    """
    return torch.exp(log_prob - log_prob.detach())


def likelihood_ratio(
    log_prob: Float[Tensor, "*shape"], behaviour_log_prob: Float[Tensor, "*shape"] | None = None
) -> Float[Tensor, "*shape"]:
    """The likelihood ratio is π(a | s) / ⊥μ(a | s) = exp(log π − ⊥log μ); μ = π, the magic box, by default.

    Examples:
        >>> import torch
        >>> from gm_estimators.operators import likelihood_ratio
        >>> likelihood_ratio(torch.tensor(0.5).log(), torch.tensor(0.25).log())
        tensor(2.)
    """
    return torch.exp(log_prob - (log_prob if behaviour_log_prob is None else behaviour_log_prob).detach())


def decomposed_step(composition: Float[Tensor, "*shape"], hessian: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A decomposed step has the value of θ′_c and the derivatives of θ′_h: θ′ = ⊥θ′_c + θ′_h − ⊥θ′_h (paper, G.1.2).

    Examples:
        >>> import torch
        >>> from gm_estimators.operators import decomposed_step
        >>> value, slope = torch.tensor(1.0), torch.tensor(5.0, requires_grad=True)
        >>> step = decomposed_step(value, 2 * slope)
        >>> step.item(), torch.autograd.grad(step, slope)[0].item()
        (1.0, 2.0)
    """
    return composition.detach() + (hessian - hessian.detach())


def power_of_two_below(vectors: Float[Tensor, "*shape size"]) -> Float[Tensor, "*shape 1"]:
    """The power of two below a vector's largest entry, by which it can be scaled without loss; zero if it is zero.

    Examples:
        >>> import torch
        >>> from gm_estimators.operators import power_of_two_below
        >>> power_of_two_below(torch.tensor([[5.0, -9.0], [0.3, 0.1]]))
        tensor([[8.0000],
                [0.2500]])
    """
    largest = vectors.detach().abs().amax(-1, keepdim=True)
    return largest / (2 * torch.frexp(largest).mantissa.where(largest > 0, 1.0))
