"""Score-function surrogates and K-step meta-gradient estimators for reinforcement learning.

What most programs need stands here; everything else is in the room of its topic, such as `gm_estimators.metrics`.
"""

import importlib
from typing import Any

from gm_estimators import (
    attribution,
    corrections,
    critics,
    debias,
    decomposition,
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
    "PERMUTATIONS",
    "Estimator",
    "EstimatorError",
    "Sizes",
    "Trajectories",
    "ascent",
    "attribution",
    "corrections",
    "critics",
    "debias",
    "decompose",
    "decomposition",
    "estimator",
    "exact_meta_gradient",
    "inner_loop",
    "load",
    "meta_gradient",
    "metrics",
    "names",
    "off_policy",
    "operators",
    "optimisers",
    "parameters",
    "returns",
    "surrogates",
]

_OLD_NAMES = {
    "attribution": "attribute clipped shapley",
    "corrections": "sampling_correction",
    "critics": "learnt_values",
    "debias": "Debias Jackknife Levels combine jackknife multilevel",
    "estimator": "CATALOGUE FAMILY",
    "metrics": "accuracy bias_sq bias_sq_interval correlation mean_interval mse paired_difference relative_bias "
    "std_sum summary variance",
    "off_policy": "OffPolicyTrajectories cumulative_ratio effective_sample_size off_policy_dice vtrace",
    "operators": "decomposed_step likelihood_ratio magic_box",
    "decomposition": "Decomposition ExactObjective sampled_path",
    "returns": "gae lambda_returns returns_to_go",
    "surrogates": "ad dice loaded_dice lvc mean_surrogate tmaml",
}


def __getattr__(name: str) -> Any:
    """Old names, without their rooms, still lead there."""
    for room, moved in _OLD_NAMES.items():
        if name in moved.split():
            return getattr(importlib.import_module(f"gm_estimators.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
