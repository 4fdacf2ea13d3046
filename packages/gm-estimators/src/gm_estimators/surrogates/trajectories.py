"""What a surrogate reads, and what is known of its derivatives."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

TrajectoriesT = TypeVar("TrajectoriesT", bound="Trajectories")


@dataclass(frozen=True)
class Trajectories:
    """What a surrogate may read of n trajectories of T steps, trajectories first and time last.

    Steps of discount zero, as those that pad a short episode, count nothing: what is NaN or infinite there is read as
    zero, a constant. Time-major tensors are refused by their shapes, unless T = n and the value was made for n × T.

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

    def __post_init__(self) -> None:
        _check_shapes(self)
        uncounted = self.discount == 0
        if possible(uncounted):
            self._blank(uncounted)

    def _blank(self, uncounted: Tensor) -> None:
        """Reads as zero what is not finite where nothing counts."""
        for name in ("log_prob", "reward", "value", "advantage"):
            x = getattr(self, name)
            object.__setattr__(self, name, blank(x, uncounted[..., : x.shape[-1]] & ~x.isfinite()))


def blank(x: Tensor, where: Tensor) -> Tensor:
    """Numbers become zero, a constant, there; a tensor without any stays the one that it is."""
    return x.masked_fill(where, 0) if possible(where) else x


def possible(condition: Tensor) -> bool:
    """Whether it holds somewhere; taken to do so where looking keeps a GPU waiting, or `torch.vmap` forbids it."""
    try:
        return condition.device.type != "cpu" or bool(condition.any())
    except RuntimeError:
        return True


def copied(trajectories: TrajectoriesT) -> TrajectoriesT:
    """The same trajectories in tensors of their own, so that who changes them in place changes no one else's."""
    tensors = {field.name: getattr(trajectories, field.name) for field in fields(trajectories)}
    return replace(trajectories, **{name: x.clone() for name, x in tensors.items() if isinstance(x, Tensor)})


def _check_shapes(read: Trajectories) -> None:
    shape, steps = tuple(read.log_prob.shape), read.log_prob.shape[-1] + 1
    expected = {"reward": shape, "value": (*shape[:-1], steps), "advantage": shape}
    for name, wanted in expected.items():
        if (came := tuple(getattr(read, name).shape)) != wanted:
            raise ValueError(f"{name}: expected shape {wanted} beside log_prob's {shape}, time last, got {came}")
    if read.discount.shape[-1:] != (steps,):
        raise ValueError(
            f"discount: expected {steps} time steps, one more than log_prob, got {tuple(read.discount.shape)}"
        )


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
"""What a surrogate has beside it where its derivatives are known."""


def mean_surrogate(surrogate: Surrogate, trajectories: Trajectories) -> Float[Tensor, "*batch"]:
    """The mean over trajectories is the objective whose derivatives are the estimates: (1/n) Σ_n f.

    Raises:
        ValueError: if the surrogate does not give one number per trajectory.

    Examples:
        >>> import torch
        >>> from gm_estimators.surrogates import Trajectories, ad, mean_surrogate
        >>> log_prob, reward, value = torch.tensor([[-0.5, -1.0]]), torch.ones(1, 2), torch.zeros(1, 3)
        >>> seen = Trajectories(log_prob, reward, value, torch.tensor([[2.0, 1.0]]), torch.ones(3))
        >>> mean_surrogate(ad, seen)
        tensor(-2.)
    """
    per_trajectory = surrogate(trajectories)
    expected = trajectories.log_prob.shape[:-1]
    shape = getattr(per_trajectory, "shape", None)
    if not isinstance(per_trajectory, torch.Tensor) or per_trajectory.shape != expected:
        came = f"a {type(per_trajectory).__name__}" if shape is None else f"shape {tuple(shape)}"
        raise ValueError(f"surrogate: expected one number per trajectory, shape {tuple(expected)}, got {came}")
    return per_trajectory.mean(-1)
