"""Parameters: one tensor, or several by name."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Params", "as_dict", "detached", "gradient", "like"]

Params = Tensor | dict[str, Tensor]


def as_dict(params: Params) -> dict[str, Tensor]:
    """Parameters are a dictionary of tensors; a single tensor goes under the empty name."""
    return params if isinstance(params, dict) else {"": params}


def like(params: Params, values: dict[str, Tensor]) -> Params:
    """The values get the form of the parameters: the inverse of `as_dict`."""
    return values if isinstance(params, dict) else values[""]


def detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors lose their history."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def gradient(objective: Float[Tensor, "*batch"], params: Params, *, create_graph: bool = False) -> dict[str, Tensor]:
    """The summed objective has this gradient ∇θ J by name, zeros where it does not depend on a tensor."""
    named = as_dict(params)
    if not objective.requires_grad:
        return {name: torch.zeros_like(value) for name, value in named.items()}
    grads = torch.autograd.grad(
        objective.sum(), list(named.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, grads, strict=True))
