"""How actions are distributed, given the numbers that a network makes of a state."""

import contextlib
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@runtime_checkable
class Distribution(Protocol):
    """π(·|s) as a function of a network's outputs; all of it but `sample` is differentiable, also twice."""

    def outputs(self, actions: int) -> int:
        """How many numbers of a state it takes, for so many actions, or dimensions of one."""

    def sample(
        self, outputs: Float[Tensor, "*batch outputs"], generator: torch.Generator
    ) -> Shaped[Tensor, "*batch_and_action"]:
        """Actions a ~ π(·|s); −1 or NaN where the outputs aren't numbers."""

    def log_prob(
        self, outputs: Float[Tensor, "*batch outputs"], action: Shaped[Tensor, "*batch_and_action"]
    ) -> Float[Tensor, "*batch"]:
        """ℓ = log π(a|s), of a density where actions are continuous."""

    def entropy(self, outputs: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch"]:
        """H(π(·|s)) in nat."""


@dataclass(frozen=True)
class Categorical:
    """One of n actions, which outputs x give as logits: π(a|s) = exp(x_a) / Σ_b exp(x_b).

    `normalised` outputs are log π already, as `Network` gives them, and aren't normalised again.

    Examples:
        >>> import torch
        >>> from gm_mgrl_atari import Categorical
        >>> print(f"{Categorical().entropy(torch.zeros(4)):.4f}")  # log 4
        1.3863
    """

    normalised: bool = False

    def outputs(self, actions: int) -> int:
        """One for each action."""
        return actions

    def sample(self, outputs: Float[Tensor, "batch outputs"], generator: torch.Generator) -> Integer[Tensor, "batch"]:
        """Actions from 0 to n − 1; −1 where probabilities are NaN or infinite."""
        probability = self._log_probs(outputs).exp()
        if not probability.is_cuda:
            with contextlib.suppress(RuntimeError):  # which says that some aren't finite, and draws nothing
                return torch.multinomial(probability, 1, generator=generator).squeeze(-1)
        # on a GPU `multinomial` would end the process; marked, NaN is told by the one transfer that there is
        finite = probability.isfinite().all(-1)
        drawn = torch.multinomial(probability.where(finite.unsqueeze(-1), 1), 1, generator=generator)
        return drawn.squeeze(-1).where(finite, -1)

    def log_prob(
        self, outputs: Float[Tensor, "*batch outputs"], action: Integer[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """ℓ = log π(a|s)."""
        return self._log_probs(outputs).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self, outputs: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch"]:
        """−Σ_a π(a|s) log π(a|s)."""
        log_probs = self._log_probs(outputs)
        return -(log_probs.exp() * log_probs).sum(-1)

    def _log_probs(self, outputs: Tensor) -> Tensor:
        return outputs if self.normalised else outputs.log_softmax(-1)


@dataclass(frozen=True)
class Normal:
    """Independent normal numbers: of 2 d outputs the first d are the mean μ, the others log σ.

        log π(a|s) = −Σ_i (½ ((a_i − μ_i) / σ_i)² + log σ_i + ½ log 2π)

    It is the density of the action as it was drawn; what is clipped to an environment's bounds is what is played.

    Examples:
        >>> import torch
        >>> from gm_mgrl_atari import Normal
        >>> print(f"{Normal().log_prob(torch.tensor([0.0, 0.0]), torch.tensor([1.0])):.4f}")  # −½ − ½ log 2π
        -1.4189
    """

    def outputs(self, actions: int) -> int:
        """Mean and log σ of each dimension."""
        return 2 * actions

    def sample(
        self, outputs: Float[Tensor, "*batch outputs"], generator: torch.Generator
    ) -> Float[Tensor, "*batch action"]:
        """μ + σ ε, ε ~ N(0, 1)."""
        mean, log_std = outputs.chunk(2, -1)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return torch.addcmul(mean, log_std.exp(), noise)

    def log_prob(
        self, outputs: Float[Tensor, "*batch outputs"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch"]:
        """Of the density, summed over dimensions."""
        mean, log_std = outputs.chunk(2, -1)
        scaled = (action.to(mean) - mean) * (-log_std).exp()
        return -(0.5 * scaled.square() + log_std + HALF_LOG_TAU).sum(-1)

    def entropy(self, outputs: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch"]:
        """Σ_i (log σ_i + ½ log 2πe)."""
        _, log_std = outputs.chunk(2, -1)
        return (log_std + (HALF_LOG_TAU + 0.5)).sum(-1)
