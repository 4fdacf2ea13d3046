"""Run directories as one HTML page that needs nothing else: figures, verdicts, settings, speed, how to reproduce."""

import base64
import contextlib
import html
import math
import numbers
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gm_lab import pages
from gm_lab.analysis.charts import charts
from gm_lab.analysis.figures import DPI, PNG_HEADER, PNG_WORDS, words
from gm_lab.analysis.tables import read_results
from gm_lab.run import reading
from gm_lab.run.errors import BadInput
from gm_lab.run.output import refuse_links_out
from gm_lab.run.provenance import sessions
from gm_lab.run.store import CONFIG, allowed_to, kinds_of_machine

if TYPE_CHECKING:
    import pandas as pd

# a drawing larger than this is shown as a picture instead
SVG_BYTES = 1_000_000
# one wider than this, as drawn, is not shrunk to a phone's width but scrolled
WIDE_POINTS = 552.0
MAIN = "headline"
"""The picture that sums up the others, where a run has one."""
MOST_SECONDS = 1e12  # a file may say anything
MARKS = {"supported": "✓", "contradicted": "✗", "undecided": "?", "not measured": "–"}


@dataclass(frozen=True)
class Figure:
    """A figure as a data URL, what it shows in words, and whether it is too wide for a phone.

    `finding` is its title in a sentence, `caption` says what is drawn; empty where nobody has said so.
    """

    name: str
    data: str
    alt: str
    wide: bool
    finding: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Run:
    """What a run directory holds for readers; `finished` says whether figures and verdicts are of the whole run.

    `kinds` counts the cells that each kind of machine computed; `charts` are the curves that people may touch. Figures
    come in the order in which the run tells of them, the main one first.
    """

    path: Path
    app: str
    run_id: str
    settings: dict[str, Any]
    finished: bool
    done: int
    cells: int | None
    claims: list[dict[str, Any]]
    summary: "pd.DataFrame | None"
    figures: list[Figure]
    sessions: list[dict[str, Any]]
    kinds: dict[str, int]
    charts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """What the run's main picture shows, in a sentence; empty if no picture has one."""
        return next((figure.finding for figure in self.figures if figure.finding), "")

    @property
    def begun(self) -> dict[str, Any]:
        """The session that began the run; empty if the run is older than such records."""
        return next((line for line in self.sessions if line.get("event") == "begun"), {})

    @property
    def foreword(self) -> list[str]:
        """What readers need to know first."""
        return [str(sentence) for sentence in self.begun.get("foreword", [])]

    @property
    def computed(self) -> list[dict[str, Any]]:
        """Every session's cells and seconds of computing."""
        lines = [line for line in self.sessions if line.get("event") == "computed" and line.get("computed")]
        return [line for line in lines if 0 <= line["seconds"] < MOST_SECONDS]

    @property
    def lost(self) -> bool:
        """Whether cells of the finished run are no longer there."""
        return self.finished and self.cells is not None and self.done < self.cells

    @property
    def verdicts(self) -> Counter[str]:
        """How many claims have each verdict."""
        return Counter(claim["verdict"] for claim in self.claims)


def load(path: Path) -> Run:
    """Reads a run directory, finished or not; raises BadInput if it is none or a file in it is not as we write it."""
    with allowed_to("read", path):
        if not (path / CONFIG).exists():
            what = "has no config.yaml" if path.is_dir() else "is no folder" if path.exists() else "doesn't exist"
            raise BadInput(f"expected a run directory, got {path}, which {what}")
    refuse_links_out(path)
    with _as_we_write(path / CONFIG) as file:
        config = reading.read_yaml(file)
        app, run_id, settings = str(config["app"]), str(config["run_id"]), dict(config["settings"])
    with _as_we_write(path / "claims.json") as file:
        claims = claims_of(file) if file.exists() else []
    with _as_we_write(path / "summary.csv") as file:
        summary = read_results(file) if file.exists() else None
    figures = _figures(app, path / "figures")
    lines = sessions(path)
    done = len(list((path / "cells").glob("[!.]*.json")))
    known = [line["cells"] for line in lines if isinstance(line.get("cells"), int)]
    finished = any(line.get("event") == "done" for line in lines) or (not lines and bool(figures))
    cells, kinds = known[-1] if known else None, kinds_of_machine(path)
    drawn = _charts(path / "results.csv", lines) if finished else []
    return Run(path, app, run_id, settings, finished, done, cells, claims, summary, figures, lines, kinds, drawn)


def _charts(file: Path, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The charts of results.csv for the curves that the first session tells of, as far as they are as we write them."""
    told: list[Any] = next((line.get("curves", []) for line in lines if line.get("event") == "begun"), [])
    kinds = [kind for kind in told if _is_of_curves(kind)]
    if not kinds or not file.exists():
        return []
    with _as_we_write(file):
        return charts(kinds, read_results(file))


def _is_of_curves(kind: Any) -> bool:
    def names(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)

    if not isinstance(kind, dict) or not all(names(kind.get(part)) for part in ("by", "y", "figures")):
        return False
    return isinstance(kind.get("x"), str) and all(isinstance(kind.get(part), str | None) for part in ("over", "alone"))


def _figures(app: str, folder: Path) -> list[Figure]:
    """The pictures of a run with their findings and captions: the main one, those of captions.json, others by name."""
    file = folder / "captions.json"
    with _as_we_write(file):
        told = _captions(reading.read_json(file)) if file.exists() else {}
    drawn = {file.with_suffix("") for file in folder.glob("[!.]*") if file.suffix in (".png", ".svg")}
    order = sorted(told, key=lambda name: name != MAIN)
    figures = []
    for stem in sorted(drawn, key=lambda stem: (order.index(stem.name) if stem.name in told else len(order), stem)):
        with _as_we_write(stem):
            finding, caption = told.get(stem.name, ("", ""))
            figures.append(replace(_figure(app, stem), finding=finding, caption=caption))
    return figures


def _captions(told: Any) -> dict[str, tuple[str, str]]:
    if not isinstance(told, dict) or not all(isinstance(words, dict) for words in told.values()):
        raise ValueError("expected findings and captions by picture")

    def text(value: Any) -> str:
        return " ".join(str(value or "").split())

    return {name: (text(words.get("finding")), text(words.get("caption"))) for name, words in told.items()}


@contextlib.contextmanager
def _as_we_write(file: Path) -> Iterator[Path]:
    """Yields a file to read in the block; what is wrong with it becomes a line that names it."""
    try:
        with allowed_to("read", file):
            yield file
    except reading.Unreadable as error:
        raise BadInput(f"expected {file} as the apps write it, got one that {error}") from None
    except (ValueError, KeyError, TypeError, OverflowError):
        raise BadInput(f"expected {file} as the apps write it, got another or a damaged file") from None


def claims_of(file: Path) -> list[dict[str, Any]]:
    """Reads the verdicts, each with a picture of its comparisons; raises ValueError or OSError if there are none."""
    claims = reading.read_json(file)
    if not isinstance(claims, list):
        raise ValueError(f"expected a list, got {type(claims).__name__}")
    return [claim_of(claim) for claim in claims]


def claim_of(claim: Mapping[str, Any]) -> dict[str, Any]:
    """A claim of claims.json as the page shows it."""
    named = {name: str(claim[name]) for name in ("id", "claim", "verdict", "measured")}
    forest = forest_of(claim.get("comparisons", []))
    return (
        named | {"budget": str(claim.get("budget", "")), "forest": forest} | _in_short(named["measured"], bool(forest))
    )


def _in_short(measured: str, folds: bool) -> dict[str, str]:
    """What was measured as `claims.in_words` says it: the counts with what would decide it, and the examples."""
    count, *rest = measured.split("; ") if folds else [measured]
    told = [count, *(part for part in rest[:1] if "would decide it" in part)]
    return {"brief": "; ".join(told), "examples": "; ".join(rest[len(told) - 1 :])}


ROW, LABELS, PLOT = 18, 330, 300
"""Sizes in a picture of comparisons: a row's height, the widths of the labels and of the plot."""


def forest_of(comparisons: Any) -> dict[str, Any]:
    """Where a picture has the intervals of some comparisons and the bands of differences that don't matter.

    Comparisons without an interval have a row with a label only. Empty if there are none.
    """
    if not isinstance(comparisons, list) or not all(isinstance(item, dict) for item in comparisons):
        raise ValueError("expected a list of comparisons")
    if not comparisons:
        return {}
    rows = [
        {name: _number(item.get(name)) for name in ("low", "mean", "high", "delta", "bound")} for item in comparisons
    ]
    ends = [row["delta"] for row in rows] + [-(row["delta"] or 0.0) for row in rows]
    ends += [row[name] for row in rows for name in ("low", "high", "bound")]
    known = [0.0, *(end for end in ends if end is not None)]
    low, high = min(known), max(known)
    scale = PLOT / (high - low) if high > low else 0.0

    def at(value: float) -> float:
        return round(LABELS + (value - low) * scale, 1)

    drawn = []
    for place, (item, row) in enumerate(zip(comparisons, rows, strict=True)):
        middle, delta = row["bound"] or 0.0, row["delta"] or 0.0
        drawn.append(
            {"label": str(item["label"]), "outcome": str(item["outcome"]), "y": place * ROW, "row": row}
            | {"band": (at(middle - delta), max(1.5, round(2 * delta * scale, 1)))}
            | {name: None if row[name] is None else at(row[name] or 0.0) for name in ("low", "mean", "high")}
        )
    names = ", ".join(dict.fromkeys(str(item["metric"]) for item in comparisons if item.get("metric")))
    ticks = [(at(end), end) for end in dict.fromkeys((low, 0.0, high)) if end == 0 or abs(end) > 0.15 * (high - low)]
    return {"rows": drawn, "height": len(drawn) * ROW, "zero": at(0.0), "metrics": names, "ticks": ticks}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _figure(app: str, stem: Path) -> Figure:
    vectors, pixels = (
        reading.read_bytes(file) if file.exists() else b""
        for file in (stem.with_name(f"{stem.name}.{ending}") for ending in ("svg", "png"))
    )
    kind, content = ("svg+xml", vectors) if vectors and (len(vectors) <= SVG_BYTES or not pixels) else ("png", pixels)
    data = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    if vectors:
        drawing = vectors.decode()
        width = re.search(r'<svg [^>]*?\bwidth="([\d.]+)pt"', drawing)
        points = float(width[1]) if width else math.inf
        # Matplotlib leaves each text as a comment
        texts = words([html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", drawing)])
    else:
        points = int.from_bytes(pixels[16:20], "big") * 72 / DPI
        _, _, rest = pixels.partition(PNG_WORDS)
        length = int.from_bytes(pixels[PNG_HEADER : PNG_HEADER + 4], "big") + 4 - len(PNG_WORDS)
        texts = reading.parsed_json(rest[:length]) if rest else []
    alt = f"{stem.name} of {app}" + (f": {'; '.join(texts)}" if texts else "")
    return Figure(stem.name, data, alt, points > WIDE_POINTS)


def number(value: Any) -> str:
    """A table's value as text, numbers with three significant digits, a dash for what is not there."""
    if value != value:
        return "–"
    with contextlib.suppress(OverflowError):
        return f"{value:.3g}" if isinstance(value, numbers.Real) else str(value)
    return str(value)


def exactly(value: Any) -> str:
    """A value as tables are sorted by: a number in full."""
    with contextlib.suppress(OverflowError):
        return repr(float(value)) if isinstance(value, numbers.Real) else str(value)
    return str(value)


def rendered(runs: Sequence[Run], command: str) -> str:
    """Returns the page about some runs; `command` is what writes it again."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "exactly": exactly}
    total = sum((run.verdicts for run in runs), Counter[str]())
    words = [name for name in MARKS if total[name]]
    counted = ", ".join(f"{total[name]} {name}" for name in words)
    apps = ", ".join(dict.fromkeys(run.app for run in runs))
    named = {
        "apps": apps,
        "counted": counted,
        "sizes": {"row": ROW, "labels": LABELS, "plot": PLOT},
        "runs": runs,
        "headings": titles(runs) if len(runs) > 1 else [f"Run {runs[0].path.absolute().name}"],
        "total": total,
        "marks": MARKS,
        "command": command,
    }
    here = __package__
    body = environment.from_string(pages.part("report.html.jinja", here)).render(named)
    return pages.document(
        f"{apps} – report", body, styles=[pages.part("report.css", here)], scripts=[pages.part("report.js", here)],
        data=[run.charts for run in runs],
    )  # fmt: skip


def verdict_table(runs: Sequence[Run]) -> str:
    """The verdicts of some runs as a Markdown table: those of the first with what was measured, beside them the others.

    A claim that is undecided elsewhere comes with how many units would do, where its words say so.
    """
    first, *others = runs
    beside = [{claim["id"]: claim for claim in run.claims} for run in others]
    budgets = [next((claim["budget"] for claim in run.claims), "") for run in others]
    lines = [["claim", "verdict", "measured", *(budget or "another run" for budget in budgets)]]
    for claim in first.claims:
        words = [_briefly(verdicts[claim["id"]]) if claim["id"] in verdicts else "" for verdicts in beside]
        lines.append([f"{claim['id']}: {claim['claim']}", f"**{claim['verdict']}**", claim["measured"], *words])
    rows = [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]]) + "\n"


def _briefly(claim: dict[str, Any]) -> str:
    verdict: str = claim["verdict"]
    needed = re.search(r"about [\d,]+ \w+ would decide it", claim["measured"])
    return verdict + (f": {needed[0]}" if needed and verdict == "undecided" else "")


def titles(runs: Sequence[Run]) -> list[str]:
    """What to call each run: the app's name, and the folder's if there are several of that app."""
    times = Counter(run.app for run in runs)
    return [f"{run.app}: {run.path.absolute().name}" if times[run.app] > 1 else run.app for run in runs]
