"""A claim is an entry of a table."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import gm_lab

EvidenceT = TypeVar("EvidenceT")


@dataclass(frozen=True)
class Claim(Generic[EvidenceT]):
    """One claim: it holds if all its comparisons do.

    Attributes:
        id: its name, such as "MAML-1".
        words: what it says.
        parts: what it consists of: each makes comparisons of the evidence.
        examples: how many comparisons the verdict quotes.
    """

    id: str
    words: str
    parts: tuple[Callable[[EvidenceT], Iterable[gm_lab.Comparison]], ...]
    examples: int = 2

    def verdict(self, evidence: EvidenceT) -> gm_lab.Verdict:
        """Whether it holds, with the numbers that decide it."""
        comparisons = [item for part in self.parts for item in part(evidence)]
        return gm_lab.decided(self.id, self.words, comparisons, self.examples)
