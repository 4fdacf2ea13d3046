"""Parameters: one tensor, or several by name."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Params", "ParamsLike", "as_dict", "detached", "gradient", "like", "read_params"]

Params = Tensor | dict[str, Tensor]
"""One tensor, or several by name."""
ParamsLike = Params | torch.nn.Module | Iterable[tuple[str, Tensor]]
"""What `read_params` makes `Params` of: also a module, or its `named_parameters()`."""


def read_params(params: object, name: str = "params") -> Params:
    """Parameters come as a tensor, by name, or as a module or its `named_parameters()`, which are read by name.

    Raises:
        TypeError: if they are anything else, such as a list without names, or not floating-point tensors.

    Examples:
        >>> import torch
        >>> from gm_estimators.parameters import read_params
        >>> list(read_params(torch.nn.Linear(2, 1)))
        ['weight', 'bias']
    """
    if isinstance(params, Tensor):
        _require_float(params, name)
        return params
    pairs: Any = params.named_parameters() if isinstance(params, torch.nn.Module) else params
    pairs = pairs.items() if isinstance(pairs, Mapping) else pairs
    named = list(pairs) if isinstance(pairs, Iterable) else [pairs]
    if not all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in named):
        came = f"a {type(params).__name__}"
        raise TypeError(f"{name}: expected a tensor, or tensors by name as dict(module.named_parameters()), got {came}")
    for key, value in named:
        _require_float(value, f"{name}[{key!r}]")
    return params if isinstance(params, dict) else dict(named)


def _require_float(value: object, name: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got a {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a tensor of floating-point numbers, got {value.dtype}")


def as_dict(params: Params) -> dict[str, Tensor]:
    """Parameters are a dictionary of tensors; a single tensor goes under the empty name.

    Raises:
        TypeError: as `read_params`, which this is not: it takes no module.

    Examples:
        >>> import torch
        >>> from gm_estimators.parameters import as_dict
        >>> as_dict(torch.tensor([1.0]))
        {'': tensor([1.])}
    """
    if isinstance(params, dict):
        return params
    if not isinstance(params, Tensor):
        raise TypeError(f"params: expected a tensor or a dictionary of tensors, got a {type(params).__name__}")
    return {"": params}


def like(params: Params, values: dict[str, Tensor]) -> Params:
    """The values get the form of the parameters: the inverse of `as_dict`.

    Examples:
        >>> import torch
        >>> from gm_estimators.parameters import as_dict, like
        >>> params = torch.tensor([1.0])
        >>> like(params, {name: 2 * value for name, value in as_dict(params).items()})
        tensor([2.])
    """
    return values if isinstance(params, dict) else values[""]


def detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors lose their history.

    Examples:
        >>> import torch
        >>> from gm_estimators.parameters import detached
        >>> detached({"x": torch.tensor([1.0], requires_grad=True)})
        {'x': tensor([1.])}
    """
    return {name: tensor.detach() for name, tensor in tensors.items()}


def gradient(objective: Float[Tensor, "*batch"], params: Params, *, create_graph: bool = False) -> dict[str, Tensor]:
    """The summed objective has this gradient ∇θ J by name, zeros where it does not depend on a tensor.

    Examples:
        >>> import torch
        >>> from gm_estimators.parameters import gradient
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> gradient(x.square().sum(), {"x": x})
        {'x': tensor([6.])}
    """
    named = as_dict(params)
    if not objective.requires_grad:
        return {name: torch.zeros_like(value) for name, value in named.items()}
    grads = torch.autograd.grad(
        objective.sum(), list(named.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, grads, strict=True))
