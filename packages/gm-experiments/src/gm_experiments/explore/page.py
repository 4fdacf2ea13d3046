"""The explorer as one HTML file that needs no network and no Python, out of the data that a run wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gm_experiments.common.labels import estimator
from gm_experiments.explore import tiny
from gm_lab import pages

if TYPE_CHECKING:
    from gm_lab.analysis import Style

TITLE = "How biased is a meta-gradient?"


def data_of(points: Mapping[str, Any], looks: Mapping[str, "Style"]) -> dict[str, Any]:
    """All that the page reads: the points, how each estimator looks, and the tiny MDP."""
    return {**points, "looks": {name: _look(name, style) for name, style in looks.items()}, "tiny": tiny.as_data()}


def _look(name: str, style: "Style") -> dict[str, Any]:
    return {"label": estimator(name), **pages.look(style.colour, style.marker, style.dash)}


def rendered(data: Mapping[str, Any]) -> str:
    """The page that shows some data, as `data_of` made them or as explorer.json has them."""
    here = __package__
    scripts = [pages.part(name, here) for name in ("tiny.js", "explorer.js")]
    return pages.document(
        TITLE, pages.part("explorer.html", here), styles=[pages.part("explorer.css", here)], scripts=scripts, data=data
    )


def write(source: Path, out: Path) -> None:
    """Writes the page about the data of an explorer.json, as a site does that keeps these alone."""
    page = rendered(json.loads(source.read_text(encoding="utf-8")))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
