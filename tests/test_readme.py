"""README.md: short, its examples run and print what it says, its links lead somewhere, its two commands stand first."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_prints_what_it_says(example):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "README.md", "exec"), {})
    promised = re.findall(r"# → (.*)", example)
    assert promised
    assert printed.getvalue().splitlines() == promised


def test_a_visitor_can_read_all_of_it():
    assert len(README.splitlines()) <= 150
    headings = re.findall(r"^## (.*)", README, re.MULTILINE)
    wanted = ["Quick start", "How biased is my estimator?", "What was found", "Packages", "Limits", "Cite, contribute"]
    assert headings == wanted


def test_the_first_screen_says_what_it_is_shows_it_and_says_why():
    first = README.partition("## Quick start")[0]
    assert len(re.findall(r"!\[[^\]]+\]\(", first)) == 1
    assert "docs/images/headline.png" in first
    assert "**Why.**" in first
    for term in ("AD", "DiCE", "Loaded-DiCE", "LVC", "I, II, III", "S, E"):
        assert re.search(rf"^\| \[?{term}\b", first, re.MULTILINE), term


def test_no_line_of_code_scrolls():
    """A README is shown 830 px wide: room for 98 characters."""
    blocks = re.findall(r"```\w*\n(.*?)```", README, re.DOTALL)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 98] == []


def test_decimals_have_one_form():
    prose = re.sub(r"```.*?```|`[^`]*`", "", README, flags=re.DOTALL)
    assert re.findall(r"(?<![\w.)])\.\d", prose) == []


def test_links_lead_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target.partition("#")[0]).exists()] == []


def test_the_quick_start_is_two_commands():
    block = re.search(r"## Quick start\n+```sh\n(.*?)```", README, re.DOTALL)
    assert block is not None
    assert block[1].splitlines() == ["pip install uv && uv run apps/maml_tabular.py", "uv run nox"]


def test_the_experiment_in_gm_labs_readme_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "packages/gm-lab/README.md").read_text(), re.DOTALL)
    (tmp_path / "settle.py").write_text(code)
    flags = ["--run-dir", "run", "--workers", "1", "--wandb", "disabled"]
    subprocess.run([sys.executable, "settle.py", *flags], cwd=tmp_path, check=True, timeout=120)
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 1 + 10 * 6
    assert "MEAN-1" in (tmp_path / "run" / "claims.json").read_text()
    assert (tmp_path / "run" / "figures" / "error.png").exists()
