"""What is diagnosed, and how."""

from dataclasses import dataclass

from gm_estimators.diagnose.loop import Loop
from gm_estimators.estimator import Estimator


@dataclass(frozen=True)
class Plan:
    """What is diagnosed, and how.

    Attributes:
        loop: the user's.
        estimators: the surrogates that are compared.
        seed: from which all seeds are derived.
        blocks: B.
    """

    loop: Loop
    estimators: tuple[Estimator, ...]
    seed: int
    blocks: int
