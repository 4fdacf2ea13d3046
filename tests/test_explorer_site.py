"""The explorer on the site: a page out of data that are kept, which are those of the submitted code."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import explore
import gm_lab
from gm_experiments.explore import page, settings

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "explorer.json"
HOOK = ROOT / "docs" / "hooks" / "explorer.py"
LIMIT = 3_000_000
NOT_THERE = ("numpy", "pandas", "matplotlib", "scipy", "torch", "tyro", "yaml", "rich", "wandb", "jinja2")


def test_the_hook_writes_the_page_of_the_data_that_are_kept(tmp_path):
    spec = importlib.util.spec_from_file_location("explorer_hook", HOOK)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    hook.on_post_build({"docs_dir": str(ROOT / "docs"), "site_dir": str(tmp_path)})
    written = (tmp_path / "explorer" / "page.html").read_text()
    assert written == page.rendered(json.loads(DATA.read_text()))
    assert len(written.encode()) < LIMIT


def test_the_page_is_written_without_the_numerical_libraries(tmp_path):
    """As where the site is built."""
    out = tmp_path / "page.html"
    absent = f"import sys; sys.modules.update(dict.fromkeys({NOT_THERE!r}))"
    code = f"{absent}; from pathlib import Path; from gm_experiments.explore import page"
    subprocess.run([sys.executable, "-c", f"{code}; page.write(Path({str(DATA)!r}), Path({str(out)!r}))"], check=True)
    assert out.read_text().startswith("<!DOCTYPE html>")


def values_at(data, **chosen):
    """The values of a part of the grid, by metric and place."""
    places = [()]
    for axis in data["axes"].values():
        places = [(*place, value) for place in places for value in axis]
    kept = [
        place for place in places if all(place[list(data["axes"]).index(axis)] in some for axis, some in chosen.items())
    ]
    return {metric: {place: values[places.index(place)] for place in kept} for metric, values in data["values"].items()}


def test_the_data_that_are_kept_are_those_of_the_code(tmp_path):
    """At one α and K, which are computed anew, and with the whole grid."""
    kept = json.loads(DATA.read_text())
    chosen = {"inner_lr": [10.0], "inner_steps": [1], "sample_size": [2, 4]}
    flags = ["--inner-lrs", "10", "--inner-steps", "1", "--sample-sizes", "2", "4", "--run-dir", str(tmp_path / "run")]
    assert gm_lab.main(explore.EXPERIMENT, [*flags, "--wandb", "disabled", "--workers", "1"]) == 0
    fresh = json.loads((tmp_path / "run" / "explorer.json").read_text())
    for metric, values in values_at(fresh, **chosen).items():
        found = values_at(kept, **chosen)[metric]
        assert found.keys() == values.keys()
        for place, interval in values.items():
            assert found[place] == pytest.approx(interval, rel=0.01, abs=1e-6)
    same = ("looks", "tiny", "metrics", "mdps", "repeats", "flags")
    assert {name: kept[name] for name in same} == {name: fresh[name] for name in same}
    grid = settings.GRID
    axes = {"inner_lr": grid.inner_lrs, "inner_steps": grid.inner_steps, "sample_size": grid.sample_sizes}
    assert {name: tuple(kept["axes"][name]) for name in axes} == axes
