"""CONTRIBUTING.md, followed step by step in a copy of the house: what it says to write does what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from layering import circle, module_graph, modules_of
from test_claims_registry import REGISTRY
from test_layering import faults_of_an_app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
FENCE = re.compile(r'^( *)```(\w+) title="([^"]+)"\n(.*?)^ *```', re.DOTALL | re.MULTILINE)
BLOCKS = {title: textwrap.dedent(code) for _, _, title, code in FENCE.findall(PAGE)}


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """The two packages with what the page adds to them: new files are written, old ones go on."""
    folder = tmp_path_factory.mktemp("house")
    for package in ("gm-estimators", "gm-experiments"):
        shutil.copytree(ROOT / "packages" / package, folder / "packages" / package)
    (folder / "apps").mkdir()
    for title, code in BLOCKS.items():
        path = folder / title
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(code)
    return folder


def run(house: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """A program that sees the copied packages first, and what checks shapes in tests."""
    paths = [str(house / "packages" / package / "src") for package in ("gm-estimators", "gm-experiments")]
    paths.append(str(ROOT / "tests"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *command], cwd=house, env=environment, capture_output=True, text=True, check=False
    )


def test_the_map_shows_every_package_and_every_room():
    tree = PAGE.partition("```\n")[2].partition("```")[0]
    for package in ROOT.glob("packages/*/pyproject.toml"):
        assert f"{package.parent.name}/" in tree
    for line in ("run/", "launch/", "track/", "analysis/"):
        assert line in tree
        assert (ROOT / "packages/gm-lab/src/gm_lab" / line).is_dir()


def test_a_new_estimator_is_held_to_its_closed_form(house):
    tests = house / "packages" / "gm-estimators" / "tests" / "test_closed_forms.py"
    pytest_of = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(tests), "-k", "squared"]
    done = run(house, *pytest_of)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout)

    surrogate = house / "packages/gm-estimators/src/gm_estimators/surrogates/squared.py"
    right = surrogate.read_text()
    surrogate.write_text(right.replace("2 * weight", "3 * weight"))
    assert run(house, *pytest_of, "-x").returncode == 1  # at the first: the search for small examples takes long
    surrogate.write_text(right)


def test_a_new_experiment_runs_and_decides_its_claim(house, tmp_path):
    done = run(house, "apps/settle.py", "--run-dir", str(tmp_path / "run"), "--workers", "1", "--wandb", "disabled")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 1 + 10 * 6
    (verdict,) = json.loads((tmp_path / "run" / "claims.json").read_text())
    assert verdict["id"] == "MEAN-1"
    help_ = run(house, "apps/settle.py", "--help")
    assert "Independent problems; the intervals are over these." in " ".join(help_.stdout.replace("│", " ").split())
    wrong = run(house, "apps/settle.py", "--problems", "0")
    assert (wrong.returncode, wrong.stderr) == (2, "settle: --problems: expected an integer of at least 1, got 0\n")


def test_what_the_page_adds_keeps_the_rules_of_the_house(house):
    app = (house / "apps" / "settle.py").read_text()
    assert faults_of_an_app("settle", app, {"settle"}) == []
    sources = modules_of(house / "packages" / "gm-experiments" / "src")
    assert circle(module_graph(sources)) == []


def test_the_entry_of_a_claim_has_what_the_registry_asks_for():
    (entry,) = tomllib.loads(BLOCKS["docs/claims.toml"])["claims"].values()
    assert set(entry) == set(REGISTRY["claims"]["MAML-1"])
