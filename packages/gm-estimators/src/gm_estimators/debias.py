"""Estimates without the bias of composition: the jackknife over parts of a sample, and multilevel Monte Carlo.

A meta-gradient estimated from m trajectories per role and step is a smooth function of their means, so that

    E g_m = g_∞ + c₁/m + c₂/m² + …

with c₁ half the Hessian of that function contracted with the covariance of one trajectory. Both remedies are linear
combinations of g at parts of the sample whose weights cancel powers of 1/m. They ask nothing of g: neither of K, nor
of the surrogate, nor of whether φ = θ⁰, nor of which batches are shared, as long as every evaluation is g of the
part's trajectories alone, in each role and at each step. What was drawn at a θ that depends on the part (steps after
the first, the outer sample) has to be drawn for each part anew, see `trajectories_drawn`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["Debias", "Jackknife", "Levels", "Term", "combine", "jackknife", "multilevel", "trajectories_drawn"]

MOST_PARTS = 100_000
"""Of a jackknife: each is a meta-gradient of its own."""


class Term(NamedTuple):
    """A weight times the mean of g over parts of a sample, all of one size m, as the numbers of their trajectories."""

    weight: float
    parts: Int[Tensor, "part trajectory"]


@runtime_checkable
class Debias(Protocol):
    """A linear combination of an estimator's values at parts of its sample."""

    def terms(self, size: int, /) -> list[Term]:
        """It gives the combination for n trajectories."""


@dataclass(frozen=True)
class Jackknife:
    """The jackknife of order p over B blocks, whose bias is O(1/n^{p+1}).

        Σ_j w_j mean{g(all but j blocks)},   w_j = (−1)^j (B − j)^p / (j! (p − j)!),   j = 0 … p

    Quenouille 1956, "Notes on bias in estimation"; Schucany, Gray and Owen 1971, "On bias reduction in estimation":
    w solves Σ_j w_j = 1 and Σ_j w_j (B − j)^{−k} = 0, k = 1 … p. What is linear in a sample that all parts share stays
    as it was. p = 1: B g(all) − (B − 1) mean g(all but one); two blocks are the cheapest, 2 g(all) − (g(first half) +
    g(second half)) / 2.

    Attributes:
        blocks: B, at least 2; has to divide the number of trajectories.
        order: p, from 1 to B − 1.

    Raises:
        ValueError: if they are out of range, or there are more than `MOST_PARTS` parts, Σ_j B! / (j! (B − j)!).
    """

    blocks: int = 2
    order: int = 1

    def __post_init__(self) -> None:
        if self.blocks < 2:
            raise ValueError(f"blocks: expected at least 2, got {self.blocks}")
        if not 1 <= self.order < self.blocks:
            raise ValueError(f"order: expected 1 to {self.blocks - 1}, less than the blocks, got {self.order}")
        parts = 0
        for out in range(self.order + 1):
            parts += math.comb(self.blocks, out)
            if parts > MOST_PARTS:
                raise ValueError(
                    f"blocks, order: expected at most {MOST_PARTS} parts, got more with {self.blocks} blocks and order "
                    f"{self.order}"
                )

    def terms(self, size: int) -> list[Term]:
        """The combination for n trajectories.

        Raises:
            ValueError: if the blocks do not divide n.
        """
        if size < 1 or size % self.blocks:
            raise ValueError(f"sample size: expected a multiple of the jackknife's {self.blocks} blocks, got {size}")
        blocks = torch.arange(size).reshape(self.blocks, -1)
        terms = []
        for out in range(self.order + 1):
            weight = (self.blocks - out) ** self.order / (math.factorial(out) * math.factorial(self.order - out))
            kept = combinations(range(self.blocks), self.blocks - out)
            terms.append(Term((-1) ** out * weight, torch.stack([blocks[list(rows)].flatten() for rows in kept])))
        return terms


@dataclass(frozen=True)
class Levels:
    """Multilevel Monte Carlo with a random level, unbiased at finite expected cost.

        Z = mean{g(m₀ trajectories)} + [l > 0] Δ_l / p_l,   Δ_l = g(n) − (g(first half) + g(second half)) / 2,

    with n = m₀ 2^l and P(l) = p_l ∝ 2^{−ra l}: the expectations of Δ_l telescope to g_∞ − E g_{m₀}. Rhee and Glynn
    2015, "Unbiased estimation with square root convergence for SDE models"; antithetic halves as in Blanchet and Glynn
    2015, "Unbiased Monte Carlo for optimization and functions of expectations". The expected number of trajectories is
    finite for ra > 1, the variance where Σ_l E|Δ_l|² 2^{ra l} is. How fast E|Δ_l|² falls depends on what else the parts
    share than θ⁰:

    - K = 1 and an exact outer gradient: they share all trajectories, g is smooth in their means and what is left is of
      second order, E|Δ_l|² = O(4^{−l}). ra < 2.
    - K > 1 or a sampled outer gradient, on common random numbers (as a `TabularProblem` has): θ¹ of the parts differ by
      O(2^{−l/2}), and with a probability of that order a later trajectory of one part is another one in the other.
      Such jumps do not cancel; their mean over n trajectories has E|Δ_l|² = O(2^{−l/2} / 2^l) = O(2^{−3l/2}). ra < 3/2.
    - new random numbers for each part: the noise of their later trajectories is all there, E|Δ_l|² = O(2^{−l}). That
      takes ra < 1, so that variance and cost are not finite at once.

    The default suits the first two.

    Attributes:
        base: m₀, trajectories at level 0.
        rate: ra, between 1 and 2.
        highest: the last level; `None` for no end. With one, the expectation is that of g at its size.
    """

    base: int = 1
    rate: float = 1.25
    highest: int | None = None

    def __post_init__(self) -> None:
        if self.base < 1:
            raise ValueError(f"base: expected at least 1 trajectory, got {self.base}")
        if not 1 < self.rate < 2:
            raise ValueError(f"rate: expected a number between 1 and 2, got {self.rate}")
        if self.highest is not None and self.highest < 0:
            raise ValueError(f"highest: expected a level of at least 0, got {self.highest}")

    def probability(self, level: int) -> float:
        """A level has the probability p_l."""
        if level < 0 or (self.highest is not None and level > self.highest):
            return 0.0
        ratio = math.exp2(-self.rate)
        total = 1.0 if self.highest is None else 1 - ratio ** (self.highest + 1)
        return (1 - ratio) * ratio**level / total

    def size(self, level: int) -> int:
        """A level has m₀ 2^l trajectories."""
        return self.base << level

    @property
    def expected_size(self) -> float:
        """The expected number of trajectories is Σ_l p_l m₀ 2^l."""
        if self.highest is not None:
            return sum(self.probability(level) * self.size(level) for level in range(self.highest + 1))
        return self.base * (1 - math.exp2(-self.rate)) / (1 - math.exp2(1 - self.rate))

    def draw(self, generator: torch.Generator, *shape: int) -> Int[Tensor, "*shape"]:
        """Levels are drawn by inverting P(level ≥ l)."""
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
        total = 1.0 if self.highest is None else 1 - math.exp2(-self.rate * (self.highest + 1))
        level = (torch.log2(1 - uniform * total) / -self.rate).floor().long()
        return level if self.highest is None else level.clamp(max=self.highest)

    def at(self, level: int) -> "Level":
        """The combination of one level.

        Raises:
            ValueError: if that level has probability zero.
        """
        if self.probability(level) == 0:
            raise ValueError(f"level: expected 0 to {self.highest}, got {level}")
        return Level(self, level)


@dataclass(frozen=True)
class Level:
    """Z of `Levels` given the level."""

    levels: Levels
    level: int

    def terms(self, size: int) -> list[Term]:
        """The combination for a sample of the level's size.

        Raises:
            ValueError: if it has another.
        """
        expected = self.levels.size(self.level)
        if size != expected:
            raise ValueError(f"sample size: expected {expected} trajectories at level {self.level}, got {size}")
        every = torch.arange(size)
        start = Term(1.0, every.reshape(-1, self.levels.base))
        if self.level == 0:
            return [start]
        weight = 1 / self.levels.probability(self.level)
        return [start, Term(weight, every.reshape(1, -1)), Term(-weight, every.reshape(2, -1))]


def combine(estimate: Callable[[Tensor], Tensor], terms: Sequence[Term], *, batched: bool = False) -> Tensor:
    """The combination is Σ over terms of weight · mean over parts of g(part).

    `estimate` is g, from the numbers of a part's trajectories, `[m]`, to a tensor; if `batched`, from those of several
    parts, `[part, m]`, to their values along a new first axis.

    Examples:
        >>> import torch
        >>> from gm_estimators.debias import Jackknife, combine
        >>> draws = torch.tensor([1.0, 2.0, 3.0, 6.0])
        >>> combine(lambda numbers: draws[numbers].mean().square(), Jackknife(blocks=2, order=1).terms(4))
        tensor(6.7500)
    """
    total: Tensor | None = None
    for weight, parts in terms:
        values = estimate(parts) if batched else torch.stack([estimate(part) for part in parts])
        total = weight * values.mean(0) if total is None else total + weight * values.mean(0)
    if total is None:
        raise ValueError("terms: expected at least one, got none")
    return total


def jackknife(
    estimate: Callable[[Tensor], Tensor], size: int, *, blocks: int = 2, order: int = 1, batched: bool = False
) -> Tensor:
    """The `Jackknife` takes a function of a sample: an inner step, a look-ahead, or a whole meta-gradient.

    `estimate` is as in `combine`, of some of n = `size` trajectories; where there are several batches, of several steps
    or roles, it takes the same numbers of each.

    Raises:
        ValueError: as `Jackknife`.

    Examples:
        >>> import torch
        >>> from gm_estimators.debias import jackknife
        >>> draws = torch.tensor([1.0, 2.0, 3.0, 6.0])
        >>> draws.mean().square()
        tensor(9.)
        >>> jackknife(lambda numbers: draws[numbers].mean().square(), 4)
        tensor(6.7500)
    """
    return combine(estimate, Jackknife(blocks, order).terms(size), batched=batched)


def multilevel(estimate: Callable[[Tensor], Tensor], levels: Levels, level: int, *, batched: bool = False) -> Tensor:
    """Multilevel Monte Carlo takes a function, as in `jackknife`, of `levels.size(level)` trajectories.

    Raises:
        ValueError: as `Levels.at`.

    Examples:
        >>> import torch
        >>> from gm_estimators.debias import Levels, multilevel
        >>> draws = torch.tensor([1.0, 2.0, 3.0, 6.0])
        >>> print(f"{multilevel(lambda numbers: draws[numbers].mean().square(), Levels(base=2), level=1):.2f}")
        2.02
    """
    return combine(estimate, levels.at(level).terms(levels.size(level)), batched=batched)


def trajectories_drawn(debias: Debias | None, size: int) -> tuple[int, int]:
    """A sample costs n trajectories at θ⁰, where all parts share it, and more at a θ that depends on the part.

    That is the sum of the parts' sizes: n if plain (`None`), 2n with a jackknife of two blocks.

    Examples:
        >>> from gm_estimators.debias import Jackknife, trajectories_drawn
        >>> trajectories_drawn(None, 16), trajectories_drawn(Jackknife(blocks=2, order=1), 16)
        ((16, 16), (16, 32))
    """
    if debias is None:
        return size, size
    return size, sum(term.parts.numel() for term in debias.terms(size))
