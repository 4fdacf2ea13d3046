"""Score-function surrogates and K-step meta-gradient estimators for reinforcement learning."""

from gm_estimators.attribution import Adam, attribute, attribution, clipped, shapley
from gm_estimators.catalogue import CATALOGUE, FAMILY, Estimator, EstimatorError, load
from gm_estimators.corrections import sampling_correction
from gm_estimators.critics import learnt_values
from gm_estimators.debias import Debias, Jackknife, Levels, combine, jackknife, multilevel
from gm_estimators.decomposition import (
    PERMUTATIONS,
    Decomposition,
    ExactObjective,
    Sizes,
    decompose,
    exact_meta_gradient,
    sampled_path,
)
from gm_estimators.inner_loop import ascent, inner_loop
from gm_estimators.meta_gradient import meta_gradient
from gm_estimators.metrics import (
    accuracy,
    bias_sq,
    bias_sq_interval,
    correlation,
    mean_interval,
    mse,
    paired_difference,
    relative_bias,
    std_sum,
    summary,
    variance,
)
from gm_estimators.off_policy import (
    OffPolicyTrajectories,
    cumulative_ratio,
    effective_sample_size,
    off_policy,
    off_policy_dice,
    vtrace,
)
from gm_estimators.operators import decomposed_step, likelihood_ratio, magic_box
from gm_estimators.returns import gae, lambda_returns, returns_to_go
from gm_estimators.study import Grid, measure
from gm_estimators.surrogates import Trajectories, ad, dice, loaded_dice, lvc, mean_surrogate, tmaml

__all__ = [
    "CATALOGUE",
    "FAMILY",
    "PERMUTATIONS",
    "Adam",
    "Debias",
    "Decomposition",
    "Estimator",
    "EstimatorError",
    "ExactObjective",
    "Grid",
    "Jackknife",
    "Levels",
    "OffPolicyTrajectories",
    "Sizes",
    "Trajectories",
    "accuracy",
    "ad",
    "ascent",
    "attribute",
    "attribution",
    "bias_sq",
    "bias_sq_interval",
    "clipped",
    "combine",
    "correlation",
    "cumulative_ratio",
    "decompose",
    "decomposed_step",
    "dice",
    "effective_sample_size",
    "exact_meta_gradient",
    "gae",
    "inner_loop",
    "jackknife",
    "lambda_returns",
    "learnt_values",
    "likelihood_ratio",
    "load",
    "loaded_dice",
    "lvc",
    "magic_box",
    "mean_interval",
    "mean_surrogate",
    "measure",
    "meta_gradient",
    "mse",
    "multilevel",
    "off_policy",
    "off_policy_dice",
    "paired_difference",
    "relative_bias",
    "returns_to_go",
    "sampled_path",
    "sampling_correction",
    "shapley",
    "std_sum",
    "summary",
    "tmaml",
    "variance",
    "vtrace",
]
