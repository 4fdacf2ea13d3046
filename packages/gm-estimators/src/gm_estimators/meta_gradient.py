"""The K-step meta-gradient by automatic differentiation, for any inner and outer objective."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gm_estimators.inner_loop import InnerObjective, inner_loop
from gm_estimators.optimisers import Update
from gm_estimators.parameters import Params, as_dict, like

__all__ = ["OuterObjective", "meta_gradient"]


@runtime_checkable
class OuterObjective(Protocol):
    """J_Out(φ, θᴷ), shape `[*batch]`."""

    def __call__(self, meta_params: Params, params: Params, /) -> Tensor:
        """It gives J_Out(φ, θᴷ)."""


def meta_gradient(
    meta_params: Params,
    params: Params | None = None,
    *,
    inner: InnerObjective,
    outer: OuterObjective,
    inner_steps: int,
    inner_lr: float | Tensor | None = None,
    hessian: InnerObjective | None = None,
    update: Update | None = None,
    state: object = None,
) -> Params:
    """The K-step meta-gradient is ∇φ J_Out(φ, θᴷ), all that θᴷ owes to φ included (paper, Eqs. 3 and 4).

        ∇φ Jᴷ = ∇φ J_Out(φ, θᴷ) + (∇φ θᴷ) ∇θᴷ J_Out(φ, θᴷ),
        ∇φ θ^{i+1} = ∇φ θ^i (I + α ∇²J_II(φ, θ^i)) + α ∇φ∇θ J_II(φ, θ^i)

    With exact objectives it is the exact meta-gradient, with surrogates of samples an estimate; roles I (`inner`), II
    (`hessian`) and III (`outer`) may differ. It is detached, in the form of φ, `meta_params`. θ⁰, `params`, is held
    fixed; `None` is for φ = θ⁰ (MAML). Other arguments are as in `inner_loop`.

    Raises:
        ValueError: as `inner_loop`; or if the outer objective does not depend on φ.
    """
    phi = {name: value.detach().requires_grad_() for name, value in as_dict(meta_params).items()}
    meta = like(meta_params, phi)
    # a view, so that ∇θ of an objective at θ⁰ = φ leaves out its direct dependence on φ
    start = like(meta_params, {name: value.view_as(value) for name, value in phi.items()}) if params is None else params
    theta = inner_loop(
        inner, meta, start, inner_steps=inner_steps, inner_lr=inner_lr, hessian=hessian, update=update, state=state
    )
    objective = outer(meta, theta)
    if not objective.requires_grad:
        raise ValueError(
            "outer: expected an objective that depends on the parameters or meta-parameters, got a constant"
        )
    grads = torch.autograd.grad(objective.sum(), list(phi.values()), allow_unused=True, materialize_grads=True)
    return like(meta_params, dict(zip(phi, grads, strict=True)))
