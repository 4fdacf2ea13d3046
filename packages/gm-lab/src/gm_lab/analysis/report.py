"""Run directories as one HTML page that needs nothing else: figures, verdicts, settings, speed, how to reproduce."""

import base64
import html
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gm_lab.analysis.figures import DPI, PNG_HEADER, PNG_WORDS, words
from gm_lab.analysis.tables import read_results
from gm_lab.run.errors import BadInput
from gm_lab.run.provenance import sessions
from gm_lab.run.store import CONFIG, allowed_to

if TYPE_CHECKING:
    import pandas as pd

# a drawing larger than this is shown as a picture instead
SVG_BYTES = 1_000_000
# one wider than this, as drawn, is not shrunk to a phone's width but scrolled
WIDE_POINTS = 552.0
MARKS = {"holds": "✓", "does not hold": "✗", "not enough data": "?"}


@dataclass(frozen=True)
class Figure:
    """A figure as a data URL, what it shows in words, and whether it is too wide for a phone."""

    name: str
    data: str
    alt: str
    wide: bool


@dataclass(frozen=True)
class Run:
    """What a run directory holds for readers; `finished` says whether figures and verdicts are of the whole run."""

    path: Path
    app: str
    run_id: str
    settings: dict[str, Any]
    finished: bool
    done: int
    cells: int | None
    claims: list[dict[str, str]]
    summary: "pd.DataFrame | None"
    figures: list[Figure]
    sessions: list[dict[str, Any]]

    @property
    def begun(self) -> dict[str, Any]:
        """The session that began the run; empty if the run is older than such records."""
        return next((line for line in self.sessions if line.get("event") == "begun"), {})

    @property
    def computed(self) -> list[dict[str, Any]]:
        """Every session's cells and seconds of computing."""
        return [line for line in self.sessions if line.get("event") == "computed" and line.get("computed")]

    @property
    def verdicts(self) -> Counter[str]:
        """How many claims have each verdict."""
        return Counter(claim["verdict"] for claim in self.claims)


def load(path: Path) -> Run:
    """Reads a run directory, finished or not; raises BadInput if it is none or a file in it is damaged."""
    import yaml

    if not (path / CONFIG).is_file():
        what = "has no config.yaml" if path.is_dir() else "is no folder" if path.exists() else "doesn't exist"
        raise BadInput(f"expected a run directory, got {path}, which {what}")
    try:
        with allowed_to("read", path):
            config = yaml.safe_load((path / CONFIG).read_bytes())
            app, run_id, settings = str(config["app"]), str(config["run_id"]), dict(config["settings"])
            claims = claims_of(path / "claims.json") if (path / "claims.json").exists() else []
            summary = read_results(path / "summary.csv") if (path / "summary.csv").exists() else None
            stems = {file.with_suffix("") for file in (path / "figures").glob("[!.]*.[ps][nv]g")}
            figures = [_figure(app, stem) for stem in sorted(stems)]
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        raise BadInput(f"expected a run directory as the apps write it, got {path} with a damaged file") from None
    lines = sessions(path)
    done = len(list((path / "cells").glob("[!.]*.json")))
    known = [line["cells"] for line in lines if isinstance(line.get("cells"), int)]
    finished = any(line.get("event") == "done" for line in lines) or (not lines and bool(figures))
    return Run(
        path, app, run_id, settings, finished, done, known[-1] if known else None, claims, summary, figures, lines
    )


def claims_of(file: Path) -> list[dict[str, str]]:
    """Reads the verdicts; raises ValueError or OSError if the file holds none."""
    claims = json.loads(file.read_bytes())
    if not isinstance(claims, list):
        raise ValueError(f"expected a list, got {type(claims).__name__}")
    return [{name: str(claim[name]) for name in ("id", "claim", "verdict", "measured")} for claim in claims]


def _figure(app: str, stem: Path) -> Figure:
    vectors, pixels = (
        file.read_bytes() if file.exists() else b""
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
        texts = json.loads(rest[:length]) if rest else []
    alt = f"{stem.name} of {app}" + (f": {'; '.join(texts)}" if texts else "")
    return Figure(stem.name, data, alt, points > WIDE_POINTS)


def number(value: Any) -> str:
    """A table's value as text, numbers with three significant digits."""
    return value if isinstance(value, str) else f"{value:.3g}"


def rendered(runs: Sequence[Run], command: str) -> str:
    """Returns the page about some runs; `command` is what writes it again."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["number"] = number
    source = Path(__file__).with_name("report.html.jinja").read_text()
    total = sum((run.verdicts for run in runs), Counter[str]())
    named = {"runs": runs, "titles": titles(runs), "total": total, "marks": MARKS, "command": command}
    return environment.from_string(source).render(named)


def titles(runs: Sequence[Run]) -> list[str]:
    """What to call each run: the app's name, and the folder's if there are several of that app."""
    times = Counter(run.app for run in runs)
    return [f"{run.app}: {run.path.absolute().name}" if times[run.app] > 1 else run.app for run in runs]
