"""Puts the explorer's page into the site, out of docs/explorer.json, which a run of apps/explore.py measured."""

import sys
from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).parents[2] / "packages"


def on_post_build(config: Any) -> None:
    """Writes explorer/page.html, which explorer.md shows; it needs of the packages nothing but their sources."""
    sys.path += [str(PACKAGES / package / "src") for package in ("gm-lab", "gm-experiments")]
    from gm_experiments.explore import page

    page.write(Path(config["docs_dir"], "explorer.json"), Path(config["site_dir"], "explorer", "page.html"))
