"""What a fresh clone relies on: sessions, the CI's matrix, .ci/run, the pinned resolution."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
README = """# Title
```
not this one
```
## Quick start
```bash
# a remark
first command

checks --all
third command
```
"""


def listed_sessions(*args: str) -> list[str]:
    command = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), "--list", "--json", *args]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return [session["session"] for session in json.loads(listing)]


def test_the_root_project_depends_on_every_member():
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(PACKAGES) == {re.split(r"[^\w-]", requirement)[0] for requirement in root["project"]["dependencies"]}
    assert {name for name, source in root["tool"]["uv"]["sources"].items() if source == {"workspace": True}} == set(
        PACKAGES
    )


def test_nox_checks_every_package_on_every_python():
    expected = {f"tests-{python}({package})" for python in ("3.11", "3.12", "3.13") for package in PACKAGES}
    expected |= {f"lowest({package})" for package in PACKAGES}
    assert expected | {"lint", "types", "docs", "apps", "wheels"} <= set(listed_sessions("--tags", "ci"))


def test_plain_nox_checks_everything_on_this_python_only():
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    expected = {f"tests-{here}({package})" for package in PACKAGES} | {"lint", "types", "docs", "apps", "wheels"}
    assert set(listed_sessions()) == expected


def test_the_ci_matrix_is_what_nox_lists():
    matrix, session = WORKFLOW["jobs"]["matrix"], WORKFLOW["jobs"]["session"]
    (listing,) = [step for step in matrix["steps"] if step.get("id") == "list"]
    assert "nox --list --json --tags ci | jq --compact-output 'map(.session)'" in listing["run"]
    assert 'echo "sessions=$sessions" >> "$GITHUB_OUTPUT"' in listing["run"]
    assert matrix["outputs"]["sessions"] == "${{ steps.list.outputs.sessions }}"
    assert session["needs"] == "matrix"
    assert session["strategy"]["matrix"] == {"session": "${{ fromJSON(needs.matrix.outputs.sessions) }}"}
    assert session["steps"][-1]["run"].endswith("--session '${{ matrix.session }}'")
    assert WORKFLOW["jobs"]["readme"]["steps"][-1]["run"] == ".ci/run"


@pytest.mark.parametrize(
    ("name", "right", "wrong", "message"),
    [
        ("ci.yml", "", "", ""),
        ("ci.yml", "needs.matrix.outputs", "needs.matix.outputs", 'property "matix" is not defined'),
        ("ci.yml", "runs-on: ubuntu-latest", "runs-on: ubuntu-latst", 'label "ubuntu-latst" is unknown'),
        ("ci.yml", "needs: matrix", "needs: matrx", "matrx"),
        ("release.yml", "", "", ""),
        ("release.yml", "needs: [checks, dist]", "needs: [checks, dst]", "dst"),
        ("release.yml", "path: dist/,", "pth: dist/,", 'input "pth" is not defined'),
        ("release.yml", "workflows/ci.yml", "workflows/other.yml", "other.yml"),
    ],
)
def test_actionlint_has_nothing_to_say_of_a_workflow_and_something_of_a_broken_one(
    tmp_path, name, right, wrong, message
):
    (tmp_path / ".git").mkdir()  # by which one workflow finds the other
    folder = shutil.copytree(ROOT / ".github/workflows", tmp_path / ".github/workflows")
    text = (folder / name).read_text()
    assert right in text
    (folder / name).write_text(text.replace(right, wrong, 1) if right else text)
    program = Path(sys.executable).with_name("actionlint")
    command = [str(program), "-shellcheck=", "-pyflakes=", str(folder / name)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, message in result.stdout) == (1 if message else 0, True), result.stdout


def test_ci_pins_its_actions_by_major_version():
    uses = [step["uses"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+", use) for use in uses), uses


def test_the_lock_pins_every_distribution_by_hash_and_names_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|^-e|file:", text, re.MULTILINE)
    distributions = re.split(r"\n(?=\S)", text.strip())
    assert len(distributions) > 50
    for distribution in distributions:
        assert re.match(r"[\w.-]+==\S+( ; .+)? \\\n    --hash=sha256:[0-9a-f]{64}", distribution), distribution


def run_ci(folder: Path, checks: str, readme: str = README) -> subprocess.CompletedProcess[str]:
    """.ci/run in a folder with this README, where `checks` is a script and uv is there already."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", folder / ".ci/run")
    (folder / "README.md").write_text(readme)
    for name, script in {"checks": checks, "uv": "true"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [str(folder / ".ci/run")]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL)


def closing_line(result: subprocess.CompletedProcess[str]) -> str:
    return re.sub(r"in \d+\.\d\ds", "in 0s", result.stdout.splitlines()[-1])


def test_ci_run_takes_the_readmes_second_command_and_adds_up_every_pytest_run(tmp_path):
    result = run_ci(
        tmp_path,
        """echo "arguments $*"
echo "12 passed in 1.50s"
echo "=== 1 failed, 3 passed, 2 skipped, 1 warning in 0.50s (0:00:01) ==="
printf '\\033[32m5 passed\\033[0m, 4 warnings, 1 error in 2.00s\\n'
echo "no tests ran in 0.01s"
echo "900 passed the river in 1 boat"
""",
    )
    assert result.returncode == 0
    assert "arguments --all" in result.stdout
    assert closing_line(result) == "== 1 failed, 20 passed, 2 skipped, 5 warnings, 1 error in 0s =="


def test_ci_run_ends_with_the_commands_status(tmp_path):
    result = run_ci(tmp_path, "echo '3 passed in 1.00s'; exit 7")
    assert result.returncode == 7
    assert "'checks --all' ended with status 7" in result.stderr
    assert closing_line(result) == "== 3 passed in 0s =="


@pytest.mark.parametrize(("checks", "status"), [("true", 1), ("echo '3 skipped in 1.00s'", 1), ("exit 5", 5)])
def test_ci_run_fails_if_no_test_ran(tmp_path, checks, status):
    result = run_ci(tmp_path, checks)
    assert result.returncode == status
    assert "no pytest run closed with a test that ran" in result.stderr
    assert closing_line(result) == "== no tests ran =="


@pytest.mark.parametrize(
    "readme",
    ["# Title\n", "## Quick start\n```\none\n```\n```\nanother\n```\n", "```\none\ntwo\n```\n## Quick start\n"],
)
def test_ci_run_fails_without_a_command_to_run(tmp_path, readme):
    result = run_ci(tmp_path, "echo '3 passed in 1.00s'", readme)
    assert result.returncode == 1
    assert (
        "expected the test command as second command of the first code block under 'Quick start', found none"
        in result.stderr
    )
