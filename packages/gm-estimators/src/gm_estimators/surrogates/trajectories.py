"""What a surrogate reads, and what is known of its derivatives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Trajectories:
    """What a surrogate may read of n trajectories of T steps.

    Attributes:
        log_prob: log π_θ(a_t | s_t), differentiable in θ.
        reward: r_t.
        value: critic V(s_0) … V(s_T); zeros without a critic.
        advantage: A_t, constant in θ.
        discount: γᵗ (zero after an episode's end), broadcasts to `log_prob`; `[T + 1]` last, so that γᵀ weights V(s_T).
    """

    log_prob: Float[Tensor, "*batch trajectory time"]
    reward: Float[Tensor, "*batch trajectory time"]
    value: Float[Tensor, "*batch trajectory time_plus_1"]
    advantage: Float[Tensor, "*batch trajectory time"]
    discount: Float[Tensor, "*any time_plus_1"]


@runtime_checkable
class Surrogate(Protocol):
    """A function from `Trajectories` to one number per trajectory, shape `[*batch, n]`."""

    def __call__(self, trajectories: Trajectories, /) -> Tensor:
        """It gives one number per trajectory."""


@dataclass(frozen=True)
class SignalCotangents:
    """∂⟨w, d⟩/∂x for what a surrogate reads beside log-probabilities; `None` where x does not enter."""

    reward: Float[Tensor, "*batch trajectory time"] | None = None
    value: Float[Tensor, "*batch trajectory time_plus_1"] | None = None
    advantage: Float[Tensor, "*batch trajectory time"] | None = None


@dataclass(frozen=True)
class LogProbDerivatives:
    """The first and second derivatives w and F of n surrogates in their own log-probabilities.

    Attributes:
        first: w_t.
        diagonal: F_tt if F is diagonal; otherwise `None`.
        product: d ↦ F d if F is not diagonal.
        mixed: d ↦ ∂⟨w, d⟩/∂(rewards, values, advantages).
    """

    first: Float[Tensor, "*batch trajectory time"]
    diagonal: Float[Tensor, "*batch trajectory time"] | None
    product: Callable[[Tensor], Tensor] | None = None
    mixed: Callable[[Tensor], SignalCotangents] | None = None


DerivativesFunction = Callable[[Trajectories], LogProbDerivatives]


def mean_surrogate(surrogate: Surrogate, trajectories: Trajectories) -> Float[Tensor, "*batch"]:
    """The mean over trajectories is the objective whose derivatives are the estimates: (1/n) Σ_n f.

    Raises:
        ValueError: if the surrogate does not give one number per trajectory.
    """
    per_trajectory = surrogate(trajectories)
    expected = trajectories.log_prob.shape[:-1]
    shape = getattr(per_trajectory, "shape", None)
    if not isinstance(per_trajectory, torch.Tensor) or per_trajectory.shape != expected:
        came = f"a {type(per_trajectory).__name__}" if shape is None else f"shape {tuple(shape)}"
        raise ValueError(f"surrogate: expected one number per trajectory, shape {tuple(expected)}, got {came}")
    return per_trajectory.mean(-1)
