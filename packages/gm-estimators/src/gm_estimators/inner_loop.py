"""K differentiable policy-gradient steps."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.operators import decomposed_step

Params = Tensor | dict[str, Tensor]


@runtime_checkable
class Objective(Protocol):
    """J(φ, θ) of inner step i, shape `[*batch]`; batch elements share no parameters, so that a sum separates them."""

    def __call__(self, meta_params: "Params", params: "Params", step: int, /) -> Tensor:
        """J(φ, θ)."""


@runtime_checkable
class Update(Protocol):
    """One step θ → θ′ of an optimiser that ascends; stateful ones (Adam) keep differentiable state in `state`."""

    def __call__(
        self, params: dict[str, Tensor], gradient: dict[str, Tensor], state: object, /
    ) -> tuple[dict[str, Tensor], object]:
        """(θ′, new state)."""


def ascent(inner_lr: float | Tensor) -> Update:
    """θ′ = θ + α g."""

    def update(
        params: dict[str, Tensor], gradient: dict[str, Tensor], state: object
    ) -> tuple[dict[str, Tensor], object]:
        return {name: value + inner_lr * gradient[name] for name, value in params.items()}, state

    return update


def as_dict(params: Params) -> dict[str, Tensor]:
    """A dictionary of tensors; a single tensor goes under the empty name."""
    return params if isinstance(params, dict) else {"": params}


def like(params: Params, values: dict[str, Tensor]) -> Params:
    """The inverse of `as_dict` for parameters of the form of `params`."""
    return values if isinstance(params, dict) else values[""]


def gradient(objective: Float[Tensor, "*batch"], params: Params, *, create_graph: bool = False) -> dict[str, Tensor]:
    """∇ of the summed objective with respect to every tensor; zeros where it does not depend on one."""
    named = as_dict(params)
    if not objective.requires_grad:
        return {name: torch.zeros_like(value) for name, value in named.items()}
    grads = torch.autograd.grad(
        objective.sum(), list(named.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, grads, strict=True))


def inner_loop(
    objective: Objective,
    meta_params: Params,
    params: Params,
    *,
    inner_steps: int,
    inner_lr: float | Tensor | None = None,
    hessian: Objective | None = None,
    update: Update | None = None,
    state: object = None,
    on_step: Callable[[int, Params], None] | None = None,
) -> Params:
    """θᴷ as a differentiable function of φ and θ⁰ (paper, Eq. 2 and G.1.2).

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

    Returns:
        θᴷ, in the form of `params`.

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
    """Names and tensors; a tensor without history gets a view of its own, so that the caller's is left as it was."""
    return [(name, value if value.requires_grad else value.detach()) for name, value in as_dict(params).items()]
