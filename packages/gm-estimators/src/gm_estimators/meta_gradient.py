"""The K-step meta-gradient by automatic differentiation, for any inner and outer objective."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, overload, runtime_checkable

import torch
from torch import Tensor

from gm_estimators.inner_loop import LearningRate, batch_axes, differentiating, inner_loop
from gm_estimators.optimisers import Update
from gm_estimators.parameters import Params, ParamsLike, as_dict, detached, like, read_params

__all__ = ["MetaGradient", "OuterObjective", "meta_gradient"]


@runtime_checkable
class OuterObjective(Protocol):
    """J_Out(φ, θᴷ), a number, or of the shape `[*batch]` where φ has these axes first, or `[task]`."""

    def __call__(self, meta_params: Params, params: Params, /) -> Tensor:
        """It gives J_Out(φ, θᴷ)."""


class MetaGradient(NamedTuple):
    """A meta-gradient with what it was computed on the way to; all of it is detached.

    Attributes:
        gradient: ∇φ J_Out, in the form of φ.
        outer: J_Out(φ, θᴷ), one for each task where there are tasks.
        path: θ⁰, θ¹ … θᴷ; with tasks one by one, a path for each.
    """

    gradient: Params
    outer: Tensor
    path: tuple[Any, ...]


@overload
def meta_gradient(
    meta_params: ParamsLike, params: ParamsLike | None = None, *, inner: Callable[..., Tensor],
    outer: Callable[..., Tensor], inner_steps: int, inner_lr: LearningRate | None = None,
    hessian: Callable[..., Tensor] | None = None, first_order: bool = False, update: Update | None = None,
    state: object = None, tasks: int | Sequence[object] | None = None, allow_unused: bool = False,
    parts: Literal[False] = False,
) -> Params: ...  # fmt: skip


@overload
def meta_gradient(
    meta_params: ParamsLike, params: ParamsLike | None = None, *, inner: Callable[..., Tensor],
    outer: Callable[..., Tensor], inner_steps: int, inner_lr: LearningRate | None = None,
    hessian: Callable[..., Tensor] | None = None, first_order: bool = False, update: Update | None = None,
    state: object = None, tasks: int | Sequence[object] | None = None, allow_unused: bool = False,
    parts: Literal[True],
) -> MetaGradient: ...  # fmt: skip


def meta_gradient(
    meta_params: ParamsLike,
    params: ParamsLike | None = None,
    *,
    inner: Callable[..., Tensor],
    outer: Callable[..., Tensor],
    inner_steps: int,
    inner_lr: LearningRate | None = None,
    hessian: Callable[..., Tensor] | None = None,
    first_order: bool = False,
    update: Update | None = None,
    state: object = None,
    tasks: int | Sequence[object] | None = None,
    allow_unused: bool = False,
    parts: bool = False,
) -> Params | MetaGradient:
    """The K-step meta-gradient is ∇φ J_Out(φ, θᴷ), all that θᴷ owes to φ included (paper, Eqs. 3 and 4).

        ∇φ Jᴷ = ∇φ J_Out(φ, θᴷ) + (∇φ θᴷ) ∇θᴷ J_Out(φ, θᴷ),
        ∇φ θ^{i+1} = ∇φ θ^i (I + α ∇²J_II(φ, θ^i)) + α ∇φ∇θ J_II(φ, θ^i)

    With exact objectives it is the exact meta-gradient, with surrogates of samples an estimate; roles I (`inner`), II
    (`hessian`) and III (`outer`) may differ. It is detached, in the form of φ, `meta_params`. θ⁰, `params`, is held
    fixed; `None` is for φ = θ⁰ (MAML). With `allow_unused` a tensor of φ may never enter, as part of a network may; its
    meta-gradient is zero. Other arguments are as in `inner_loop`.

    `tasks` that share φ and θ⁰ are a number of them: θ then has them as its first axis, objectives have the shape
    `[task]`, and J_Out is their mean. As a sequence they come one after the other, with less memory: each objective is
    given the task as a last argument, and is a number. With `parts` J_Out and the path θ⁰ … θᴷ come along.

    Raises:
        ValueError: as `inner_loop`; or if the outer objective is a constant or has a shape that φ has not first, a
            meta-parameter never enters, or there are no tasks.
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
    start = None if params is None else read_params(params)
    options: dict[str, Any] = {
        "inner_steps": inner_steps, "inner_lr": inner_lr, "first_order": first_order, "update": update, "state": state,
    }  # fmt: skip
    if tasks is None or isinstance(tasks, int):
        found = [_computed(given, start, inner, outer, hessian, tasks, options)]
    else:
        found = [
            _computed(
                given, start, partial(_told, inner, task), partial(_told, outer, task),
                None if hessian is None else partial(_told, hessian, task), None, options,
            ) for task in tasks
        ]  # fmt: skip
    if not found:
        raise ValueError("tasks: expected at least one, got none")
    unused = [name for name in as_dict(given) if all(each.grads[name] is None for each in found)]
    if unused and not allow_unused:
        which = "".join(f" {name!r}" for name in unused if name)
        raise ValueError(
            f"meta_params: expected all to enter, but{which or ' it'} has no part in the outer objective or the inner "
            "steps: these take it from their first argument; update knows only the caller's tensors; "
            "with allow_unused=True its meta-gradient is zero"
        )
    mean = like(given, {name: _mean([each.grads[name] for each in found], x) for name, x in as_dict(given).items()})
    if not parts:
        return mean
    if isinstance(tasks, Sequence):
        return MetaGradient(mean, torch.stack([each.outer for each in found]), tuple(each.path for each in found))
    return MetaGradient(mean, found[0].outer, found[0].path)


@dataclass(frozen=True)
class _Computed:
    """∇φ J_Out by name, `None` where φ doesn't enter, with J_Out and the path."""

    grads: dict[str, Tensor | None]
    outer: Tensor
    path: tuple[Params, ...]


def _computed(
    given: Params, start: Params | None, inner: Any, outer: Any, hessian: Any, tasks: int | None,
    options: dict[str, Any],
) -> _Computed:  # fmt: skip
    with differentiating():
        phi = {name: value.detach().requires_grad_() for name, value in as_dict(given).items()}
        meta = like(given, phi)
        # a view, so that ∇θ of an objective at θ⁰ = φ leaves out its direct dependence on φ
        viewed = {name: value.view_as(value) for name, value in phi.items()}
        first = like(given, viewed) if start is None else start
        if tasks is not None:
            first = _for_each(first, tasks)
        path = [_detached(first)]
        theta = inner_loop(
            inner, meta, first, hessian=hessian, on_step=lambda _, at: path.append(_detached(at)), **options
        )
        objective = outer(meta, theta)
        if tasks is None:
            batch_axes("outer", objective, meta, "meta_params")
        elif not isinstance(objective, Tensor) or objective.shape != (tasks,):
            came = tuple(objective.shape) if isinstance(objective, Tensor) else f"a {type(objective).__name__}"
            raise ValueError(f"outer: expected one number for each task, shape {(tasks,)}, got {came}")
        if not objective.requires_grad:
            raise ValueError(
                "outer: expected an objective that depends on the parameters or meta-parameters, got a constant"
            )
        total = objective.sum() / (tasks or 1)
        grads = torch.autograd.grad(total, list(phi.values()), allow_unused=True) if phi else ()
    return _Computed(dict(zip(phi, grads, strict=True)), objective.detach(), tuple(path))


def _told(objective: Callable[..., Tensor], task: object, *arguments: object) -> Tensor:
    """An objective that is given the task as a last argument."""
    return objective(*arguments, task)


def _for_each(params: Params, tasks: int) -> Params:
    if tasks < 1:
        raise ValueError(f"tasks: expected at least one, got {tasks}")
    return like(params, {name: value.expand(tasks, *value.shape) for name, value in as_dict(params).items()})


def _detached(params: Params) -> Params:
    return like(params, detached(as_dict(params)))


def _mean(grads: Sequence[Tensor | None], form: Tensor) -> Tensor:
    """The mean over tasks, of which a tensor may enter some alone."""
    there = [grad for grad in grads if grad is not None]
    return torch.stack(there).sum(0) / len(grads) if there else torch.zeros_like(form)
