"""Verdicts on claims, for the terminal and for claims.json."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

VERDICTS = {True: "holds", False: "does not hold", None: "not enough data"}
COLOURS = {True: "green", False: "red", None: "yellow"}


@dataclass(frozen=True)
class Verdict:
    """What was measured about one claim.

    Args:
        id: The claim's name, such as "MAML-1".
        claim: The claim in words.
        holds: None if there is not enough data to tell.
        measured: The numbers that decide it.
    """

    id: str
    claim: str
    holds: bool | None
    measured: str

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        return VERDICTS[self.holds]


def every(outcomes: Iterable[bool | None]) -> bool | None:
    """Whether all hold: False if one doesn't, else None if one can't be told or there is none, else True."""
    seen = list(outcomes)
    if any(outcome is False for outcome in seen):
        return False
    return True if seen and all(seen) else None


def as_json(verdicts: Sequence[Verdict]) -> str:
    """The text of claims.json: a list of objects with id, claim, verdict and measured."""
    records = [
        {"id": item.id, "claim": item.claim, "verdict": item.verdict, "measured": item.measured} for item in verdicts
    ]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def as_table(verdicts: Sequence[Verdict]) -> "Table":
    """The verdicts as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table("claim", "in words", "verdict", "measured", title="Claims", title_justify="left")
    for item in verdicts:
        verdict = Text(item.verdict, style=COLOURS[item.holds])
        table.add_row(Text(item.id, no_wrap=True), Text(item.claim), verdict, Text(item.measured))
    return table
