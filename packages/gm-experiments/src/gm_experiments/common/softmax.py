"""The objective of a tabular softmax policy as a sample shows it.

The policy's part of the chain rule in `gm_estimators.surrogates` is cheap here: with c = s·A + a, ∇ log π(a|s) only
touches row s, so that a sample enters a gradient through Σ_t w_t [c_t = c], one number per (s, a), and a Hessian-vector
product through one more.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gm_estimators import Trajectories
from gm_estimators.surrogates import LogProbDerivatives, discounted_return


class SoftmaxObjective:
    """An objective estimated from a sample of a tabular softmax policy θ, by a surrogate's log-prob derivatives.

    With W_c = (1/n) Σ_t w_t [c_t = c], ṽ = v − Σ_b π_b v_b and U_c the same sum of (F d)_t, d_t = ṽ_{c_t}:

        ∇J = W − π Σ_b W_b,   ∇²J v = U − π Σ_b U_b − (Σ_b W_b) π ṽ

    For diagonal F, U_c is ṽ_c times the sum of F_tt: the trajectories are read only once, whatever the number of
    vectors.

    Args:
        policy: π(a|s) at θ.
        cell: of the sample.
        derivatives: w and F of its trajectories.
        trajectories: what they are derivatives at.
        mixed: d ↦ ∇φ ⟨w, d⟩ averaged over the trajectories; `None` if J does not depend on φ directly, or φ = θ.
    """

    meta_gradient = None

    def __init__(
        self,
        policy: Float[Tensor, "*batch state action"],
        cell: Int[Tensor, "*batch trajectory time"],
        derivatives: LogProbDerivatives,
        trajectories: Trajectories,
        mixed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._policy = policy
        self._mixed = mixed
        self._cell = flat(cell)
        self._like = cell
        self._derivatives = derivatives
        self._trajectories = trajectories
        self._weight = self._table(derivatives.first)

    @cached_property
    def value(self) -> Float[Tensor, "*batch"]:
        """J: the mean return, bootstrapped if there is a critic."""
        return discounted_return(self._trajectories).mean(-1)

    @cached_property
    def gradient(self) -> Float[Tensor, "*batch state action"]:
        """∇J."""
        return self._tangent(self._weight)

    def vjp(
        self, cotangent: Float[Tensor, "*extra state action"]
    ) -> tuple[Float[Tensor, "*extra state action"], Float[Tensor, "*extra state action"] | None]:
        """(∇²J v, ∇φ ⟨∇J, v⟩) for every v along the extra leading axis."""
        centred = cotangent - (self._policy * cotangent).sum(-1, keepdim=True)
        if self._derivatives.diagonal is not None:
            curvature = self._diagonal * centred
        else:
            curvature = torch.stack([self._product(vector) for vector in centred])
        hessian_term = self._tangent(curvature) - self._weight.sum(-1, keepdim=True) * self._policy * centred
        if self._mixed is None:
            return hessian_term, None
        return hessian_term, torch.stack([self._mixed(self._score(vector)) for vector in centred])

    @cached_property
    def _diagonal(self) -> Tensor:
        diagonal = self._derivatives.diagonal
        return self._weight if diagonal is self._derivatives.first or diagonal is None else self._table(diagonal)

    def _product(self, centred: Tensor) -> Tensor:
        assert self._derivatives.product is not None  # set whenever `diagonal` is not
        return self._table(self._derivatives.product(self._score(centred)))

    def _score(self, centred: Tensor) -> Tensor:
        """d_t = ∇ log π(a_t|s_t)ᵀ v."""
        return unflat(centred.reshape(-1).index_select(0, self._cell), self._like)

    def _table(self, weights: Tensor) -> Tensor:
        """(1/n) Σ over the trajectories' steps at each (s, a)."""
        return scattered(flat(weights), self._cell, self._policy) / self._like.shape[-2]

    def _tangent(self, table: Tensor) -> Tensor:
        return table - self._policy * table.sum(-1, keepdim=True)


def scattered(weights: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Adds weights up at their places in a table of the shape and type of another."""
    table = torch.zeros(like.numel(), dtype=like.dtype, device=like.device)
    return table.scatter_add_(0, index, weights.to(table.dtype)).reshape(like.shape)


def flat(x: Tensor) -> Tensor:
    """Joins all axes, time first: no copy if the trajectories are stored so, as rollouts are."""
    return x.movedim((-1, -2), (0, 1)).reshape(-1)


def unflat(entries: Tensor, like: Tensor) -> Tensor:
    """Undoes `flat`, in the shape of another tensor."""
    return entries.reshape(like.movedim((-1, -2), (0, 1)).shape).movedim((0, 1), (-1, -2))


def look_up(table: Tensor, cell: Tensor) -> Tensor:
    """Returns the entries of a flat table at the places of every step."""
    return unflat(table.index_select(0, flat(cell)), cell)
