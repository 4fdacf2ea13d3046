"""The meta-gradient backwards along a path (paper, Eq. 4, from right to left).

    λ_K = ∇θ J_Out(φ, θᴷ),   λ_i = λ_{i+1} + α ∇²θ J_In(φ, θ^i) λ_{i+1},
    ∇φ Jᴷ = ∇φ J_Out(φ, θᴷ) + α Σ_i ∇φ∇θ J_In(φ, θ^i) λ_{i+1}  [+ λ_0 if φ = θ⁰]

The sampling correction of an estimator that has one adds c (J_Out(θᴷ) − b) Σ_n Σ_t ∇ log π of the batch that moved θ^i
to λ_i, and its ∇φ to ∇φ Jᴷ.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gm_estimators.decomposition.problem import Objective


def backward(
    steps: Sequence[Objective],
    ends: Sequence[Objective],
    inner_lr: float,
    *,
    meta_is_params: bool,
    corrections: Sequence[Sequence[Objective]] = (),
) -> Tensor:
    """Returns ∇φ of several outer objectives through the same steps, shape `[len(ends), *batch, *meta shape]`.

    `steps` are J_In at θ⁰ … θ^{K−1}, `ends` the outer objectives at θᴷ, `corrections` for each step the terms of the
    sampling correction, one for each outer objective.

    Raises:
        ValueError: if no objective depends on φ.
    """
    adjoint, meta = _stacked(ends)
    for i, step in reversed(list(enumerate(steps))):
        hessian_term, mixed_term = step.vjp(adjoint)
        if mixed_term is not None:
            meta = _plus(meta, inner_lr * mixed_term)
        adjoint = adjoint + inner_lr * hessian_term
        if corrections:
            score, meta_score = _stacked(corrections[i])
            adjoint, meta = adjoint + score, _plus(meta, meta_score)
    if meta_is_params:
        return adjoint if meta is None else adjoint + meta
    if meta is None:
        raise ValueError("problem: expected objectives that depend on the meta-parameters, got none")
    return meta


def _stacked(objectives: Sequence[Objective]) -> tuple[Tensor, Tensor | None]:
    """Stacks ∇θ and ∇φ of several objectives, the second `None` unless all depend on φ directly."""
    direct = [objective.meta_gradient for objective in objectives]
    present = [each for each in direct if each is not None]
    meta = torch.stack(present) if len(present) == len(direct) else None
    return torch.stack([objective.gradient for objective in objectives]), meta


def _plus(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return y if x is None else x if y is None else x + y
