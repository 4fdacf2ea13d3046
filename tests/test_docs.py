"""The documentation: its code runs and prints what it says, its links lead somewhere, its flags exist."""

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gm_lab.settings import parse

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in (ROOT / "docs").rglob("*.md")}
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [(page, *match) for page, text in PAGES.items() for match in BLOCK.findall(text)]
PYTHON = [(page, code) for page, kind, _, code in BLOCKS if kind == "python"]
SHELL = [(page, code) for page, kind, _, code in BLOCKS if kind in ("sh", "bash")]
RUN = sorted({page for page, kind, _, _ in BLOCKS if kind == "bash"})
COMMANDS = sorted(
    {found for _, code in SHELL for found in re.findall(r"uv run apps/(\w+)\.py *(.*)", code.replace("\\\n", " "))}
)


def test_every_block_is_of_a_kind_that_is_tested():
    kinds = {kind for _, kind, _, _ in BLOCKS}
    assert kinds <= {"python", "sh", "bash"}
    assert len(PYTHON) >= 3
    assert RUN


@pytest.mark.parametrize(("page", "code"), PYTHON)
def test_an_example_prints_what_it_says(page, code):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), {})
    assert printed.getvalue().splitlines() == re.findall(r"# → (.*)", code)


@pytest.mark.parametrize("page", RUN)
def test_the_bash_blocks_of_a_page_run(page, tmp_path):
    """Those that only show full-scale commands are marked sh: their syntax and flags are tested below."""
    for kind, title, code in BLOCK.findall(PAGES[page]):
        if named := re.search(r'title="([^"]+)"', title):
            (tmp_path / named[1]).write_text(code)
        if kind != "bash":
            continue
        script = code.replace("uv run apps/", f"{sys.executable} {ROOT}/apps/")
        done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        wanted = re.findall(r"--run-dir (\S+)", code)
        assert [name for name in wanted if not (tmp_path / name / "results.csv").exists()] == []


@pytest.mark.parametrize(("page", "code"), SHELL)
def test_every_shell_block_is_one(page, code):
    done = subprocess.run(["bash", "-n", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("app", "flags"), COMMANDS)
def test_the_apps_know_the_flags(app, flags):
    module = importlib.import_module(app)
    if hasattr(module, "EXPERIMENT"):
        parse(module.EXPERIMENT.settings, app, shlex.split(flags.split("#")[0]))
    else:
        done = subprocess.run([sys.executable, ROOT / "apps" / f"{app}.py", "--help"], capture_output=True, check=False)
        assert done.returncode == 0


def test_links_lead_somewhere():
    for page, text in PAGES.items():
        folder = (ROOT / "docs" / page).parent
        targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
        assert [target for target in targets if target and not (folder / target).exists()] == []


def test_every_package_and_every_app_has_a_page():
    packages = {path.parent.name for path in (ROOT / "packages").glob("*/pyproject.toml")}
    assert {Path(page).stem for page in PAGES if page.startswith("packages/")} == packages
    nav = (ROOT / "mkdocs.yml").read_text()
    assert [page for page in PAGES if page not in nav] == []
    mentioned = {app for app, _ in COMMANDS}
    apps = {path.stem for path in (ROOT / "apps").glob("*.py") if "EXPERIMENT = gm_lab.Experiment(" in path.read_text()}
    assert apps - mentioned == set()


def test_the_cluster_pages_flags_exist():
    from gm_lab import RunSettings

    flags = re.findall(r"^\| `--([\w-]+)`", PAGES["cluster.md"], re.MULTILINE)
    assert len(flags) == 4
    assert all(hasattr(RunSettings(), flag.replace("-", "_")) for flag in flags)
