"""K differentiable policy-gradient steps."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gm_estimators.checks import integer
from gm_estimators.operators import decomposed_step
from gm_estimators.optimisers import BatchedUpdate, Update, ascent
from gm_estimators.parameters import Params, ParamsLike, as_dict, detached, gradient, like, read_params

__all__ = ["InnerObjective", "LearningRate", "inner_loop"]


LearningRate = float | Tensor | Callable[[Params], Tensor | dict[str, Tensor]]
"""α, or what makes it of φ."""


@runtime_checkable
class InnerObjective(Protocol):
    """J(φ, θ) of inner step i, shape `[*batch]`, where θ has these axes first.

    Batch elements, such as tasks, share no parameters, so that a sum separates them.
    """

    def __call__(self, meta_params: Params, params: Params, step: int, /) -> Tensor:
        """It gives J(φ, θ)."""


def inner_loop(
    objective: InnerObjective,
    meta_params: ParamsLike,
    params: ParamsLike,
    *,
    inner_steps: int,
    inner_lr: LearningRate | None = None,
    hessian: InnerObjective | None = None,
    first_order: bool = False,
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
        inner_lr: α, or a function of φ that gives it, as in Meta-SGD (Li et al. 2017), where θ's tensors each have one:
            a dictionary by name; leave it out if `update` is given.
        hessian: J_II, which decides the step's Jacobian; J_I by default.
        first_order: whether every gradient counts as a constant, so that θᴷ owes to θ⁰ that alone (first-order MAML,
            Finn et al. 2017).
        update: another rule than gradient ascent; `ascent` and `adam` clip each batch element's gradient by itself.
        state: the initial state of `update`.
        on_step: called with (i, θ^{i}) for i = 1 … K.

    φ and θ are tensors, or tensors by name, see `parameters.read_params`. Under `torch.no_grad()` the steps are the
    same and θᴷ has no history.

    Raises:
        ValueError: if K is below one, not exactly one of `inner_lr` and `update` is given, the objective has a shape
            that θ has not first, or in `torch.inference_mode()`.
        TypeError: if φ or θ is something else, or K no integer.

    Examples:
        >>> import torch
        >>> from gm_estimators.inner_loop import inner_loop
        >>> target, start = torch.tensor([2.0]), torch.tensor([0.0])
        >>> inner_loop(
        ...     lambda phi, theta, step: -0.5 * (theta - phi).square().sum(), target, start, inner_steps=2, inner_lr=0.5
        ... )
        tensor([1.5000], grad_fn=<AddBackward0>)
    """
    inner_steps = integer("inner_steps", inner_steps, 1)
    if (inner_lr is None) == (update is None):
        raise ValueError("inner_lr, update: expected exactly one of the two")
    if first_order and hessian is not None:
        raise ValueError("first_order: expected no hessian beside it, whose derivatives it would leave out")
    phi, start = read_params(meta_params, "meta_params"), read_params(params)
    with differentiating():
        step = update if update is not None else _ascending(inner_lr, phi)
        current = {name: value if value.requires_grad else value.requires_grad_() for name, value in _tracked(start)}
        for i in range(inner_steps):
            at = like(start, current)
            value = objective(phi, at, i)
            axes = batch_axes("the inner objective", value, at, "params")
            grads = gradient(value, at, create_graph=hessian is None and not first_order)
            if hessian is not None:
                value = hessian(phi, at, i)
                batch_axes("hessian", value, at, "params")
                jacobian_grads = gradient(value, at, create_graph=True)
                grads = {name: decomposed_step(grads[name], jacobian_grads[name]) for name in current}
            current, state = (step.batched(axes) if isinstance(step, BatchedUpdate) else step)(current, grads, state)
            if on_step is not None:
                on_step(i + 1, like(start, current))
    return like(start, current if torch.is_grad_enabled() else detached(current))


def _ascending(inner_lr: LearningRate | None, phi: Params) -> Update:
    """Gradient ascent with α, whatever that is known from."""
    rate = inner_lr(phi) if callable(inner_lr) else inner_lr
    if not isinstance(rate, dict):
        return ascent(rate if rate is not None else 0.0)

    def by_name(params: dict[str, Tensor], grads: dict[str, Tensor], state: object) -> tuple[dict[str, Tensor], object]:
        if set(rate) != set(params):
            raise ValueError(f"inner_lr: expected one for each of {', '.join(params)}, got {', '.join(rate) or 'none'}")
        return {name: value + rate[name] * grads[name] for name, value in params.items()}, state

    return by_name


def batch_axes(name: str, objective: Tensor, params: Params, params_name: str) -> int:
    """The number of axes that an objective has, which every tensor of parameters has first.

    Raises:
        ValueError: if one has not, so that batch elements share it and a sum would not separate them.
    """
    if not isinstance(objective, Tensor):
        raise TypeError(f"{name}: expected a tensor, got a {type(objective).__name__}")
    shape = objective.shape
    if objective.numel() == 1:
        return 0
    for key, value in as_dict(params).items():
        if value.shape[: len(shape)] != shape:
            raise ValueError(
                f"{name}: expected a number, or a shape that {params_name}{f'[{key!r}]' if key else ''} has first, "
                f"{tuple(value.shape)}, so that each element has parameters of its own, got {tuple(shape)}; "
                "take its mean or sum where they are shared"
            )
    return len(shape)


def differentiating() -> torch.enable_grad:
    """Gradients are on, whatever the caller has switched off for derivatives of its own.

    Raises:
        ValueError: in `torch.inference_mode()`, whose tensors have no derivatives.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("torch.inference_mode: expected gradients, which this mode forbids; torch.no_grad is fine")
    return torch.enable_grad()


def _tracked(params: Params) -> list[tuple[str, Tensor]]:
    """A tensor without history gets a view of its own, so that the caller's is left as it was."""
    return [(name, value if value.requires_grad else value.detach()) for name, value in as_dict(params).items()]
