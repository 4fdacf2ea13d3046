import numpy as np
import pytest

from gm_estimators.checks import integer


def test_integers_of_any_kind_are_plain_ones():
    assert [type(integer("n", value)) for value in (3, np.int64(3))] == [int, int]
    assert integer("n", 3, 3) == 3


@pytest.mark.parametrize("value", [1.0, "1", None, True, [1]])
def test_anything_else_is_refused(value):
    with pytest.raises(TypeError, match=r"^n: expected an integer, got "):
        integer("n", value)


def test_so_are_small_ones():
    with pytest.raises(ValueError, match=r"^n: expected at least 3, got 2$"):
        integer("n", 2, 3)
