"""The K-step meta-gradient by automatic differentiation, for any inner and outer objective."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gm_estimators.inner_loop import InnerObjective, batch_axes, differentiating, inner_loop
from gm_estimators.optimisers import Update
from gm_estimators.parameters import Params, ParamsLike, as_dict, like, read_params

__all__ = ["OuterObjective", "meta_gradient"]


@runtime_checkable
class OuterObjective(Protocol):
    """J_Out(φ, θᴷ), a number, or of the shape `[*batch]` where φ has these axes first."""

    def __call__(self, meta_params: Params, params: Params, /) -> Tensor:
        """It gives J_Out(φ, θᴷ)."""


def meta_gradient(
    meta_params: ParamsLike,
    params: ParamsLike | None = None,
    *,
    inner: InnerObjective,
    outer: OuterObjective,
    inner_steps: int,
    inner_lr: float | Tensor | None = None,
    hessian: InnerObjective | None = None,
    update: Update | None = None,
    state: object = None,
    allow_unused: bool = False,
) -> Params:
    """The K-step meta-gradient is ∇φ J_Out(φ, θᴷ), all that θᴷ owes to φ included (paper, Eqs. 3 and 4).

        ∇φ Jᴷ = ∇φ J_Out(φ, θᴷ) + (∇φ θᴷ) ∇θᴷ J_Out(φ, θᴷ),
        ∇φ θ^{i+1} = ∇φ θ^i (I + α ∇²J_II(φ, θ^i)) + α ∇φ∇θ J_II(φ, θ^i)

    With exact objectives it is the exact meta-gradient, with surrogates of samples an estimate; roles I (`inner`), II
    (`hessian`) and III (`outer`) may differ. It is detached, in the form of φ, `meta_params`. θ⁰, `params`, is held
    fixed; `None` is for φ = θ⁰ (MAML). With `allow_unused` a tensor of φ may never enter, as part of a network may; its
    meta-gradient is zero. Other arguments are as in `inner_loop`.

    Raises:
        ValueError: as `inner_loop`; or if the outer objective is a constant or has a shape that φ has not first, or a
            meta-parameter never enters.
        TypeError: as `inner_loop`.

    Examples:
        >>> import torch
        >>> from gm_estimators import meta_gradient
        >>> meta_gradient(
        ...     torch.tensor([2.0]),
        ...     torch.tensor([0.0]),
        ...     inner=lambda phi, theta, step: -0.5 * (theta - phi).square().sum(),
        ...     outer=lambda phi, theta: theta.sum(),
        ...     inner_steps=2,
        ...     inner_lr=0.5,
        ... )
        tensor([0.7500])
    """
    given = read_params(meta_params, "meta_params")
    with differentiating():
        phi = {name: value.detach().requires_grad_() for name, value in as_dict(given).items()}
        meta = like(given, phi)
        # a view, so that ∇θ of an objective at θ⁰ = φ leaves out its direct dependence on φ
        viewed = {name: value.view_as(value) for name, value in phi.items()}
        theta = inner_loop(
            inner, meta, like(given, viewed) if params is None else params, inner_steps=inner_steps,
            inner_lr=inner_lr, hessian=hessian, update=update, state=state,
        )  # fmt: skip
        objective = outer(meta, theta)
        batch_axes("outer", objective, meta, "meta_params")
        if not objective.requires_grad:
            raise ValueError(
                "outer: expected an objective that depends on the parameters or meta-parameters, got a constant"
            )
        grads = torch.autograd.grad(objective.sum(), list(phi.values()), allow_unused=True) if phi else ()
    unused = [name for name, grad in zip(phi, grads, strict=True) if grad is None]
    if unused and not allow_unused:
        which = "".join(f" {name!r}" for name in unused if name)
        raise ValueError(
            f"meta_params: expected all to enter, but{which or ' it'} has no part in the outer objective or the inner "
            "steps: these take it from their first argument; inner_lr and update know only the caller's tensors; "
            "with allow_unused=True its meta-gradient is zero"
        )
    found = {name: torch.zeros_like(phi[name]) if g is None else g for name, g in zip(phi, grads, strict=True)}
    return like(given, found)
