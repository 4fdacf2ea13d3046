"""What a release relies on: complete metadata, one version, the workflow, the citation, the page on installing."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = {path.parent.name: path.parent for path in sorted(ROOT.glob("packages/*/pyproject.toml"))}
FILES = [Path("pyproject.toml"), *sorted(path.relative_to(ROOT) for path in ROOT.glob("packages/*/pyproject.toml"))]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
RELEASE = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
PAGE = (ROOT / "docs/install.md").read_text()
CLASSIFIERS = {
    "Intended Audience :: Science/Research",
    "Programming Language :: Python :: 3 :: Only",
    *(f"Programming Language :: Python :: {python}" for python in ("3.11", "3.12", "3.13")),
    "Typing :: Typed",
}


def project(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text())["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0]


def extras_of(package: str) -> dict[str, list[str]]:
    return project(FOLDERS[package] / "pyproject.toml").get("optional-dependencies", {})


def own(package: str) -> list[str]:
    """The packages of the workspace that one depends on."""
    names = map(name_of, project(FOLDERS[package] / "pyproject.toml")["dependencies"])
    return [name for name in names if name in FOLDERS]


def asked_for(package: str) -> list[str]:
    """All that a package depends on, extras and all."""
    extras = [requirement for needs in extras_of(package).values() for requirement in needs]
    return project(FOLDERS[package] / "pyproject.toml")["dependencies"] + extras


@pytest.mark.parametrize("package", FOLDERS)
def test_the_metadata_of_a_package_is_complete(package):
    folder, root = FOLDERS[package], project(ROOT / "pyproject.toml")
    found = project(folder / "pyproject.toml")
    assert found["name"] == package
    assert found["description"]
    assert (folder / found["readme"]).read_text().startswith(f"# {package}\n")
    for key in ("license", "license-files", "authors", "requires-python", "version"):
        assert found[key] == root[key], key
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert len(found["keywords"]) >= 3
    assert set(found["classifiers"]) >= CLASSIFIERS
    assert sum(entry.startswith("Development Status :: ") for entry in found["classifiers"]) == 1
    # a registry refuses both an expression and a classifier of the licence
    assert not any(entry.startswith("License ::") for entry in found["classifiers"])
    assert (folder / "src" / package.replace("-", "_") / "py.typed").exists()


def test_one_package_asks_for_anothers_own_version():
    version = project(ROOT / "pyproject.toml")["version"]
    all_asked = [requirement for package in FOLDERS for requirement in asked_for(package)]
    asked = [requirement for requirement in all_asked if name_of(requirement) in FOLDERS]
    assert len(asked) >= 7
    assert {requirement for requirement in asked if not requirement.endswith(f"=={version}")} == set()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The files that have the version, with a changelog of three lines."""
    for file in [*FILES, Path("CITATION.cff"), Path("noxfile.py")]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n### Added\n")
    return tmp_path


def bump(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "nox", "--session", "bump", "--", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_bump_writes_the_version_and_nothing_else(copied):
    old, new = project(ROOT / "pyproject.toml")["version"], "99.1.0rc2"
    done = bump(copied, new)
    assert done.returncode == 0, done.stderr
    for file in FILES:
        before, after = (ROOT / file).read_text(), (copied / file).read_text()
        assert project(copied / file)["version"] == new
        assert after == before.replace(f'\nversion = "{old}"', f'\nversion = "{new}"').replace(f'=={old}"', f'=={new}"')
    assert yaml.safe_load((copied / "CITATION.cff").read_text()) == {**CITATION, "version": new}
    changes = (copied / "CHANGELOG.md").read_text()
    assert re.fullmatch(rf"## \[Unreleased\]\n\n## \[{new}\] - \d{{4}}-\d\d-\d\d\n\n### Added\n", changes)

    again = bump(copied, new)
    assert again.returncode == 1
    assert f"CHANGELOG.md has {new} already: expected a version that was not released" in again.stderr


@pytest.mark.parametrize(("words", "found"), [((), "''"), (("1.0",), "'1.0'"), (("1.0.0", "2.0.0"), "'1.0.0 2.0.0'")])
def test_bump_refuses_what_is_no_version(copied, words, found):
    done = bump(copied, *words)
    assert done.returncode == 1
    assert f"expected one version such as 0.2.0 or 0.2.0rc1 after `--`, found {found}" in done.stderr
    assert (copied / "pyproject.toml").read_text() == (ROOT / "pyproject.toml").read_text()


def test_the_workflow_publishes_every_package_by_a_tag_after_all_checks():
    jobs = RELEASE["jobs"]
    assert RELEASE[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    assert jobs["checks"] == {"uses": "./.github/workflows/ci.yml"}
    assert "workflow_call" in yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())[True]
    assert 'test "$GITHUB_REF_NAME" = "v$(uv version --short)"' in [step.get("run") for step in jobs["dist"]["steps"]]
    assert any(str(step.get("run")).endswith("--session wheels") for step in jobs["dist"]["steps"])
    assert jobs["publish"]["needs"] == ["checks", "dist"]
    assert jobs["publish"]["strategy"]["matrix"]["package"] == list(FOLDERS)
    assert jobs["publish"]["environment"] == "${{ matrix.package }}"


def test_the_workflow_has_an_identity_where_it_publishes_and_no_secret():
    assert RELEASE["permissions"] == {"contents": "read"}
    assert [job for job in RELEASE["jobs"].values() if "permissions" in job] == [RELEASE["jobs"]["publish"]]
    assert RELEASE["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert not re.search(r"secrets\.|password|token:|://", text.replace("id-token:", ""))
    uses = [step["uses"] for job in RELEASE["jobs"].values() for step in job.get("steps", []) if "uses" in step]
    assert "pypa/gh-action-pypi-publish@release/v1" in uses
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@(release/)?v\d+", use) for use in uses), uses


def test_each_upload_has_the_two_files_of_its_package(tmp_path):
    """The workflow's own line, on the names that a build gives."""
    (line,) = [step["run"] for step in RELEASE["jobs"]["publish"]["steps"] if "run" in step]
    names = [f"{package.replace('-', '_')}-1.0{end}" for package in FOLDERS for end in (".tar.gz", "-py3-none-any.whl")]
    for package in FOLDERS:
        folder = tmp_path / package
        (folder / "dist").mkdir(parents=True)
        for name in names:
            (folder / "dist" / name).touch()
        subprocess.run(
            ["bash", "-euc", line], cwd=folder, env={"PACKAGE": package, "PATH": "/usr/bin:/bin"}, check=True
        )
        moved = {path.name for path in (folder / "upload").iterdir()}
        assert moved == {name for name in names if name.startswith(f"{package.replace('-', '_')}-")}
        assert len(moved) == 2


def test_the_citation_has_what_its_format_requires_and_no_address():
    assert CITATION["cff-version"] == "1.2.0"
    assert all(CITATION[key] for key in ("message", "title", "authors"))
    assert CITATION["type"] == "software"
    root = project(ROOT / "pyproject.toml")
    assert (CITATION["version"], CITATION["license"]) == (root["version"], root["license"])
    assert CITATION["authors"] == root["authors"]
    assert f"Copyright (c) 2026 {root['authors'][0]['name']}\n" in (ROOT / "LICENSE").read_text()
    assert not re.search(r"doi|://|@", (ROOT / "CITATION.cff").read_text())


def test_the_citation_refers_to_the_paper():
    (paper,) = CITATION["references"]
    assert all(paper[key] for key in ("type", "title", "authors"))
    assert (paper["title"], paper["year"]) == (
        "A Theoretical Understanding of Gradient Bias in Meta-Reinforcement Learning",
        2022,
    )
    assert all(set(author) == {"given-names", "family-names"} for author in paper["authors"])
    assert (len(paper["authors"]), paper["authors"][0]["family-names"]) == (8, "Liu")
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2112.15400"}]


def test_the_page_says_what_each_package_needs():
    rows = re.findall(r"^\| (gm-[\w-]+) \|(.*)\|(.*)\|(.*)\|$", PAGE, re.MULTILINE)
    assert {package for package, *_ in rows} == set(FOLDERS)
    for package, others, workspace, extras in rows:
        names = [name_of(entry) for entry in project(FOLDERS[package] / "pyproject.toml")["dependencies"]]
        assert {*re.findall(r"[\w-]+", others), "numpy"} == set(names) - FOLDERS.keys()
        assert re.findall(r"[\w-]+", workspace) == own(package)
        said = {extra: re.findall(r"[\w-]+", needs) for extra, needs in re.findall(r"`(\w+)`:([^;]*)", extras)}
        assert said == {extra: [name_of(entry) for entry in needs] for extra, needs in extras_of(package).items()}


def test_pip_is_given_all_packages_that_one_needs_and_after_them_itself():
    commands = [
        re.findall(r"packages/(gm-[\w-]+)", line)
        for line in PAGE.replace("\\\n", " ").splitlines()
        if re.match(r"pip install .*packages/", line)
    ]
    assert {packages[-1] for packages in commands} == {"gm-exact", "gm-mgrl-atari", "gm-experiments"}
    for *before, package in commands:
        assert before == own(package)
        assert {name for other in before for name in own(other)} <= set(before)


def test_the_address_is_set_in_one_place_and_each_address_leads_to_its_package():
    assert len(re.findall(r"^ADDRESS=", PAGE, re.MULTILINE)) == 1
    assert "`ADDRESS`" in (ROOT / "CONTRIBUTING.md").read_text().partition("## Release")[2]
    addresses = re.findall(
        r'"(gm-[\w-]+)(?:\[\w+\])? @ git\+\$ADDRESS(?:@v[\d.]+)?#subdirectory=packages/([\w-]+)"', PAGE
    )
    assert len(addresses) == PAGE.count("git+") >= 5
    assert [pair for pair in addresses if pair[0] != pair[1] or pair[0] not in FOLDERS] == []
    assert "://" not in PAGE


def test_the_changelog_begins_with_what_is_unreleased():
    headings = re.findall(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert len(set(headings)) == len(headings)
