"""What is diagnosed, and how."""

from dataclasses import dataclass

from gm_estimators.attribution import subsets
from gm_estimators.diagnose.loop import Loop
from gm_estimators.diagnose.sources import Config, config_of, sources_of
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

    @property
    def configs(self) -> tuple[Config, ...]:
        """Every estimate that a repeat makes: of each estimator with each set of sources as in practice."""
        loop = self.loop
        return tuple(dict.fromkeys(
            config_of(loop, each, some) for each in self.estimators for some in subsets(sources_of(loop, each)) if some
        ))  # fmt: skip
