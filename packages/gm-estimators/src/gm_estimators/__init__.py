"""Score-function surrogates and K-step meta-gradient estimators for reinforcement learning.

What most programs need stands here; everything else is in the room of its topic, such as `gm_estimators.metrics`.
"""

from gm_estimators import (
    attribution,
    corrections,
    critics,
    debias,
    decomposition,
    diagnose,
    estimator,
    metrics,
    names,
    off_policy,
    operators,
    optimisers,
    parameters,
    returns,
    surrogates,
)
from gm_estimators.decomposition import PERMUTATIONS, Sizes, decompose, exact_meta_gradient
from gm_estimators.estimator import Estimator, EstimatorError
from gm_estimators.inner_loop import inner_loop
from gm_estimators.meta_gradient import meta_gradient
from gm_estimators.names import load
from gm_estimators.optimisers import ascent
from gm_estimators.surrogates import Trajectories

__all__ = [
    "PERMUTATIONS", "Estimator", "EstimatorError", "Sizes", "Trajectories", "ascent", "attribution", "corrections",
    "critics", "debias", "decompose", "decomposition", "diagnose", "estimator", "exact_meta_gradient", "inner_loop",
    "load", "meta_gradient", "metrics", "names", "off_policy", "operators", "optimisers", "parameters", "returns",
    "surrogates",
]  # fmt: skip
