"""Claims: the verdict on what each compares, for the terminal and for claims.json."""

import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gm_lab.analysis.comparisons import Comparison, Outcome
from gm_lab.analysis.decisions import ERROR, Judged, judge

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

SHADES: dict[str, str] = {"supported": "green", "contradicted": "red", "undecided": "yellow", "not measured": "dim"}
OPENNESS: tuple[Outcome, ...] = ("contradicted", "undecided", "not measured", "supported")
"""Which comparisons are quoted first."""
NOTHING_MEASURED = "none of it was measured"
PLURALS = {"mdp": "MDPs", "seed": "seeds", "rule": "rules", "task": "tasks"}


@dataclass(frozen=True)
class Verdict:
    """What was found about one claim, in words and, if comparisons decided it, with each of them.

    `needs` is what has to be measured in more units as long as the claim is undecided, in the experiment's own terms.
    """

    id: str
    claim: str
    verdict: Outcome
    measured: str
    comparisons: tuple[Judged, ...] = ()
    needs: frozenset[Any] = field(default=frozenset(), compare=False)

    @property
    def counts(self) -> dict[str, int]:
        """How many comparisons have each outcome."""
        return dict(Counter[str](item.outcome for item in self.comparisons))

    @property
    def units(self) -> int:
        """How many units there were at the last look that was taken."""
        return max((item.interval.count for item in self.comparisons if item.interval), default=0)

    @property
    def is_open(self) -> bool:
        """Whether more units would decide it, sooner or later."""
        return self.verdict == "undecided" and any(item.outcome == "undecided" for item in self.comparisons)

    @property
    def needed(self) -> float | None:
        """With how many units it would be decided if the means stay what they are; `None` if it is, or nobody knows."""
        waiting = [item for item in self.comparisons if item.outcome == "undecided"]
        if not self.is_open or any(item.needed is None for item in waiting):
            return None
        expected = [(float(item.needed or 0), against(item)) for item in waiting]
        refuted = [units for units, contradicts in expected if contradicts]
        return min(refuted) if refuted else max(units for units, _ in expected)


def against(judged: Judged) -> bool:
    """Whether more units would contradict a comparison that is undecided, if the mean stays what it is."""
    interval = judged.interval
    assert interval is not None
    point = type(interval)(interval.mean, interval.mean, interval.mean, interval.count)
    return math.isfinite(judged.needed or 0) and judged.comparison.outcome(point) == "contradicted"


def decided(claim_id: str, claim: str, comparisons: Sequence[Comparison], examples: int = 2) -> Verdict:
    """Returns the verdict on a claim: supported if all its comparisons are, contradicted if one is.

    All are judged together, with an error of at most 5% for any wrong decision: see `gm_lab.analysis.decisions`. The
    words quote some comparisons, those that contradict it first.

    Examples:
        >>> import pandas as pd
        >>> lvc, ad = pd.Series([0.9, 0.8, 0.7]), pd.Series([0.5, 0.6, 0.4])
        >>> from gm_lab.analysis import Metric, above, decided
        >>> compared = above("LVC > AD", lvc, ad, Metric("accuracy", 0.05, 0.0))
        >>> decided("MINE-1", "LVC is more accurate than AD", [compared]).verdict
        'undecided'
    """
    judged = judge(comparisons)
    found = Verdict(claim_id, claim, together([item.outcome for item in judged]), "", tuple(judged))
    return Verdict(claim_id, claim, found.verdict, in_words(found, examples), found.comparisons)


def together(outcomes: Collection[Outcome]) -> Outcome:
    """The verdict on a claim from the outcomes of its comparisons."""
    if "contradicted" in outcomes:
        return "contradicted"
    if set(outcomes) <= {"not measured"}:
        return "not measured"
    return "supported" if set(outcomes) == {"supported"} else "undecided"


def in_words(verdict: Verdict, examples: int) -> str:
    """The counts, how many units would do if it is undecided, and some of the comparisons with their intervals."""
    if verdict.verdict == "not measured":
        return NOTHING_MEASURED
    counted = ", ".join(f"{verdict.counts.get(name, 0)} {name}" for name in ("supported", "contradicted", "undecided"))
    parts = [counted + (f", {count} not measured" if (count := verdict.counts.get("not measured")) else "")]
    if verdict.is_open:
        parts.append(wanted(verdict))
    quoted = sorted(verdict.comparisons, key=lambda item: OPENNESS.index(item.outcome))[:examples]
    return "; ".join([*parts, *map(sentence, quoted)])


def wanted(verdict: Verdict) -> str:
    """How many units would decide a claim that is open."""
    units = verdict.needed
    if units is None or math.isinf(units):
        return "no number of units would decide it if the means stay what they are"
    return f"about {amount(units, verdict.comparisons)} would decide it"


def amount(units: float, comparisons: Sequence[Judged]) -> str:
    """A number of the units of some comparisons."""
    name = unit_of(comparisons)
    return f"{units:,.0f} {name.removesuffix('s') if round(units) == 1 else name}"


def unit_of(comparisons: Sequence[Judged]) -> str:
    """What the units of some comparisons are called."""
    names = (item.comparison.values.index.name for item in comparisons if item.comparison.values is not None)
    return PLURALS.get(str(next(names, "")), "units")


def sentence(judged: Judged) -> str:
    """A comparison with its outcome, its interval and the number of units."""
    item, interval = judged.comparison, judged.interval
    if interval is None:
        return f"{item.label}: {judged.outcome}{f', {item.detail}' if item.detail else ''}"
    numbers = f"{item.metric.name} {item.shown(interval)}".strip()
    return f"{item.label}: {judged.outcome}, {numbers} with {amount(interval.count, [judged])}"


def as_record(judged: Judged) -> dict[str, Any]:
    """A comparison as claims.json has it: numbers with six digits, `null` for what is not there or infinite."""
    item = judged.comparison
    shown = item.shown(judged.interval) if judged.interval else None
    record: dict[str, Any] = {"label": item.label, "relation": item.relation, "outcome": judged.outcome}
    if item.relation == "check":
        return record | {"detail": item.detail}
    region = item.region()
    return record | {
        "metric": item.metric.name,
        "delta": None if region is None else _digits(item.metric.delta),
        "reach": _digits(item.metric.reach),
        "bound": None if region is not None and item.offset == 0 else _digits(item.offset),
        "mean": shown and _digits(shown.mean),
        "low": shown and _digits(shown.low),
        "high": shown and _digits(shown.high),
        "units": shown and shown.count,
        "look": judged.look,
        "needed": None if judged.needed is None else _digits(judged.needed),
    }


def _digits(number: float) -> float | None:
    return float(f"{number:.6g}") if math.isfinite(number) else None


def as_json(verdicts: Sequence[Verdict], budget: str = "") -> str:
    """The text of claims.json: a list of objects with the verdict in words and numbers, and every comparison."""
    records = [
        {"id": item.id, "claim": item.claim, "verdict": item.verdict, "measured": item.measured}
        | {"budget": budget, "error": ERROR}
        | {"units": item.units, "needed": None if item.needed is None else _digits(item.needed)}
        | {"counts": item.counts, "comparisons": [as_record(judged) for judged in item.comparisons]}
        for item in verdicts
    ]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def as_list(
    verdicts: Sequence[Verdict], budget: str = "", of_paper: bool = False, measured_by: str = ""
) -> "RenderableType":
    """The verdicts for the terminal, under a line on the budget, perhaps the paper's, that gave them.

    A last line counts the claims that were not measured, and says what would measure them.
    """
    from rich.console import Group
    from rich.text import Text

    judged = [item for item in verdicts if item.verdict != "not measured"]
    left_out = [item for item in verdicts if item.verdict == "not measured"]
    parts: list[RenderableType] = [Text(" ".join(filter(None, ["Claims", budget])), style="bold")] if judged else []
    for item in judged:
        words = item.verdict + " at the paper's budget" * (of_paper and item.verdict == "undecided")
        parts.append(Text.assemble((item.id, "bold"), "  ", (words, SHADES[item.verdict]), overflow="fold"))
        parts.append(Indented(f"{item.claim}\n{item.measured}"))
    return Group(*parts, *([Text(not_measured(left_out, measured_by), overflow="fold")] if left_out else []))


@dataclass(frozen=True)
class Indented:
    """A text four spaces from the left, without the spaces on the right that a `Padding` has.

    `first` stands before the first line.
    """

    text: str
    first: str = "    "

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        lines = Text(self.text).wrap(console, max(options.max_width - 4, 1), overflow="fold")
        for number, line in enumerate(lines):
            line.rstrip()
            yield Text("    " if number else self.first) + line


def not_measured(verdicts: Sequence[Verdict], measured_by: str) -> str:
    """Says how many claims were not measured, and what would measure them: flags, and what the verdicts say."""
    counted = "1 claim was" if len(verdicts) == 1 else f"{len(verdicts)} claims were"
    reasons = dict.fromkeys(item.measured for item in verdicts if item.measured != NOTHING_MEASURED)
    return "; ".join([f"{counted} not measured with these settings", *filter(None, [measured_by]), *reasons])
