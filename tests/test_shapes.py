"""Whose shapes are checked in tests."""

import pytest
import torch
from jaxtyping import Float, jaxtyped
from torch import Tensor

from shapes import checked


@jaxtyped(typechecker=checked)
def outside(values: Tensor) -> Tensor:
    return values


def inside():
    """A function that names a shape, and one that names none."""

    @jaxtyped(typechecker=checked)
    def shaped(values: Float[Tensor, "n n"]) -> Tensor:
        return values

    @jaxtyped(typechecker=checked)
    def plain(values: Tensor) -> Tensor:
        return values

    return shaped, plain


def test_shapes_are_checked_wherever_they_are_named_and_other_types_outside_of_functions():
    shaped, plain = inside()
    assert shaped(torch.zeros(2, 2)).shape == (2, 2)
    with pytest.raises(TypeError):
        shaped(torch.zeros(2, 3))
    with pytest.raises(TypeError):
        outside(1.0)
    assert plain(1.0) == 1.0
