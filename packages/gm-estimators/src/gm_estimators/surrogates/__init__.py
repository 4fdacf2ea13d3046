"""Score-function surrogates: functions whose derivatives estimate those of the expected return.

Every surrogate f maps `Trajectories` to one number per trajectory; an estimate is the mean over trajectories of its
derivative with respect to the policy parameters. A_t is the advantage, ⊥ stop-gradient, and
□_{≤t} = exp(Σ_{u≤t} log π_u − ⊥Σ_{u≤t} log π_u). On the same samples the gradients of `ad`, `lvc` and `loaded_dice` are
equal, Σ_t γᵗ A_t ∇log π_t; only their Hessians differ.

A surrogate depends on θ through the log-probabilities ℓ_t = log π(a_t | s_t) alone, so that the chain rule splits its
derivatives into a part that every policy class shares and one that knows the policy:

    ∇f = Σ_t w_t ∇ℓ_t,                     w_t = ∂f/∂ℓ_t
    ∇²f v = Σ_t (F d)_t ∇ℓ_t + Σ_t w_t ∇²ℓ_t v,   F_tu = ∂²f/∂ℓ_t∂ℓ_u,  d_t = ∇ℓ_tᵀ v

Each surrogate of this package stands in a file of its own beside w and F in closed form (`lvc`, `lvc_derivatives`); any
other gets them by automatic differentiation. Where rewards, values and advantages depend on meta-parameters φ, the same
split gives the mixed derivative from

    ∇φ ⟨∇f, v⟩ = Σ_x (∂⟨w, d⟩/∂x) ∇φ x,   x = rewards, values, advantages
"""

from gm_estimators.surrogates.ad import ad, ad_derivatives
from gm_estimators.surrogates.automatic import automatic_derivatives
from gm_estimators.surrogates.dice import dice, dice_derivatives
from gm_estimators.surrogates.loaded_dice import loaded_dice, loaded_dice_derivatives
from gm_estimators.surrogates.lvc import lvc, lvc_derivatives
from gm_estimators.surrogates.shared import decayed_cumsum, discounted_return, reward_to_go
from gm_estimators.surrogates.tmaml import tmaml, tmaml_derivatives
from gm_estimators.surrogates.trajectories import (
    DerivativesFunction,
    LogProbDerivatives,
    SignalCotangents,
    Surrogate,
    Trajectories,
    mean_surrogate,
)

__all__ = [
    "DerivativesFunction", "LogProbDerivatives", "SignalCotangents", "Surrogate", "Trajectories", "ad",
    "ad_derivatives", "automatic_derivatives", "decayed_cumsum", "dice", "dice_derivatives", "discounted_return",
    "loaded_dice", "loaded_dice_derivatives", "lvc", "lvc_derivatives", "mean_surrogate", "reward_to_go", "tmaml",
    "tmaml_derivatives",
]  # fmt: skip
