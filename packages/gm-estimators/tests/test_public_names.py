"""What `import gm_estimators` offers: few names, and every room says what is in it."""

import importlib
import pkgutil

import pytest

import gm_estimators

MODULES = {module.name for module in pkgutil.iter_modules(gm_estimators.__path__)}
FUNCTIONS = {"inner_loop", "meta_gradient"}
"""Modules of one function, which has their name."""
ROOMS = sorted(MODULES & set(gm_estimators.__all__) - FUNCTIONS)


def test_the_public_names_are_few_and_exist():
    assert len(gm_estimators.__all__) <= 26
    assert all(hasattr(gm_estimators, name) for name in gm_estimators.__all__)
    assert len(ROOMS) >= 10


@pytest.mark.parametrize("room", [*ROOMS, *sorted(FUNCTIONS)])
def test_a_room_says_what_is_in_it(room):
    module = importlib.import_module(f"gm_estimators.{room}")
    assert module.__all__
    assert all(hasattr(module, name) for name in module.__all__)


def test_a_name_that_does_not_exist_is_no_name():
    with pytest.raises(AttributeError, match="module 'gm_estimators' has no attribute 'nothing'"):
        gm_estimators.nothing  # noqa: B018
