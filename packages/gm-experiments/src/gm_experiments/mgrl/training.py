"""What the experiments of `gm_mgrl_atari` share: its algorithms, and the training that flags describe."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import gm_lab

if TYPE_CHECKING:
    import gm_mgrl_atari as mgrl

Algorithm = Literal["a2c", "mgrl", "mgrl-lvc"]
NAMES = ("gamma", "gae_lambda", "value_coef", "entropy_coef")
"""The coefficients that are learnt, as `gm_mgrl_atari` names them."""


def described(settings: Any, algorithm: str, updates: int, envs: int) -> "mgrl.Training":
    """Returns what an algorithm's runs depend on besides the seed; raises `BadInput` if a flag is out of range.

    A flag of the same name as a field of `Training` is that field, but `--estimator` is none of A2C's.
    """
    import gm_mgrl_atari as mgrl

    shared = {
        field.name: getattr(settings, field.name) for field in fields(mgrl.Training) if hasattr(settings, field.name)
    }
    own = {"estimator": None} if algorithm == "a2c" else {}
    training = mgrl.Training(**(shared | own | {"algorithm": algorithm, "updates": updates, "envs": envs}))
    try:
        training.check()
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise gm_lab.BadInput(f"--{name.replace('_', '-')}:{rest}") from error
    return training


def require_different(settings: Any) -> None:
    """Raises `BadInput` if `--estimator` makes two of the algorithms the same."""
    different = settings.estimator is None or not {"mgrl", "mgrl-lvc"} <= {*settings.algorithms}
    gm_lab.require(settings, "estimator", "one of mgrl and mgrl-lvc beside it, which it makes the same", different)
