"""K differentiable policy-gradient steps."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from gm_estimators.operators import decomposed_step
from gm_estimators.optimisers import Update, ascent
from gm_estimators.parameters import Params, as_dict, gradient, like

__all__ = ["InnerObjective", "inner_loop"]


@runtime_checkable
class InnerObjective(Protocol):
    """J(φ, θ) of inner step i, shape `[*batch]`; batch elements share no parameters, so that a sum separates them."""

    def __call__(self, meta_params: Params, params: Params, step: int, /) -> Tensor:
        """It gives J(φ, θ)."""


def inner_loop(
    objective: InnerObjective,
    meta_params: Params,
    params: Params,
    *,
    inner_steps: int,
    inner_lr: float | Tensor | None = None,
    hessian: InnerObjective | None = None,
    update: Update | None = None,
    state: object = None,
    on_step: Callable[[int, Params], None] | None = None,
) -> Params:
    """K steps lead to θᴷ, a differentiable function of φ and θ⁰ (paper, Eq. 2 and G.1.2).

        θ^{i+1} = ⊥θ_c + θ_h − ⊥θ_h,   θ_c = θ^i + α ∇J_I(φ, θ^i),   θ_h = θ^i + α ∇J_II(φ, θ^i),   i = 0 … K−1

    Args:
        objective: J_I, which decides where the step goes.
        meta_params: φ.
        params: θ⁰; differentiate through it too by passing φ itself or a function of it.
        inner_steps: K.
        inner_lr: α; leave it out if `update` is given.
        hessian: J_II, which decides the step's Jacobian; J_I by default.
        update: another rule than gradient ascent.
        state: the initial state of `update`.
        on_step: called with (i, θ^{i}) for i = 1 … K.

    Raises:
        ValueError: if K is below one or not exactly one of `inner_lr` and `update` is given.
    """
    if inner_steps < 1:
        raise ValueError(f"inner_steps: expected at least 1, got {inner_steps}")
    if (inner_lr is None) == (update is None):
        raise ValueError("inner_lr, update: expected exactly one of the two")
    step = update if update is not None else ascent(inner_lr if inner_lr is not None else 0.0)
    current = {name: value if value.requires_grad else value.requires_grad_() for name, value in _tracked(params)}
    for i in range(inner_steps):
        at = like(params, current)
        if hessian is None:
            grads = gradient(objective(meta_params, at, i), at, create_graph=True)
            current, state = step(current, grads, state)
        else:
            value_grads = gradient(objective(meta_params, at, i), at)
            jacobian_grads = gradient(hessian(meta_params, at, i), at, create_graph=True)
            composed = {name: decomposed_step(value_grads[name], jacobian_grads[name]) for name in current}
            current, state = step(current, composed, state)
        if on_step is not None:
            on_step(i + 1, like(params, current))
    return like(params, current)


def _tracked(params: Params) -> list[tuple[str, Tensor]]:
    """A tensor without history gets a view of its own, so that the caller's is left as it was."""
    return [(name, value if value.requires_grad else value.detach()) for name, value in as_dict(params).items()]
