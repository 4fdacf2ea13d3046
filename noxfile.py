"""The workspace's checks. `nox` runs the default set on this interpreter, `nox --list` shows all sessions."""

import datetime
import re
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2025.11"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = sorted({"3.11", "3.12", "3.13", HERE})
IN_TWO = ("--numprocesses=2", "--dist=loadfile")
MYPY_IN_TWO = ("--native-parser", "--num-workers=2")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # where every core is busy, the threads of small sums wait for each other
SHORT = ("gm-envs-ipd", "gm-envs-tabular", "gm-exact")  # whose tests take less than a second process' imports
PACKAGES = sorted(folder.parent.name for folder in Path("packages").glob("*/pyproject.toml"))
VERSIONED = [Path("pyproject.toml"), *sorted(Path("packages").glob("*/pyproject.toml")), Path("CITATION.cff")]
LOCK = Path("requirements.lock")
DIST = Path("dist")
TWINE = ("uvx", "--quiet", "twine@6.2.0")
ALONE = ("-shellcheck=", "-pyflakes=")  # without the programs that some machines have for actionlint to call
# --upgrade: what a clone without uv.lock resolves, whatever an older uv.lock here still prefers
EXPORT = ["uv", "export", "--quiet", "--upgrade", "--format=requirements-txt", "--no-header", "--no-annotate"]
EXPORT += ["--all-packages", "--all-groups", "--all-extras", "--no-emit-workspace"]
# what the pyproject.toml files ask for, among the versions of the lock: a release that reaches a registry late
# doesn't turn a clone red that was green
HELD = ["uv", "pip", "compile", "--quiet", "--universal", "--no-header", "--no-annotate", "--all-extras", "--group=dev"]
HELD += [f"--python-version={PYTHONS[0]}", *(f"--no-emit-package={package}" for package in PACKAGES)]
HELD += ["--constraints", str(LOCK), "pyproject.toml", *(f"packages/{package}/pyproject.toml" for package in PACKAGES)]

nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"  # `uv sync` is exact: it also removes what should no longer be there
nox.options.sessions = [
    "lint",
    "types",
    "docs",
    "wheels",
    *(f"tests-{HERE}({package})" for package in PACKAGES),
    "apps",
]


def sync(session: nox.Session, *args: str) -> None:
    """Make the session's environment hold exactly the chosen part of the workspace."""
    environment = {"UV_PROJECT_ENVIRONMENT": session.virtualenv.location}
    session.run_install("uv", "sync", "--quiet", *args, env=environment, external=True)


def pytest(session: nox.Session, folder: Path | str, *args: str, env: Mapping[str, str] = ONE_THREAD) -> None:
    command = ("python", "-m", "pytest", "--config-file=pyproject.toml", str(folder))
    session.run(*command, *args, *session.posargs, env=env)


@nox.session(tags=["ci"])
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, the workflow, and whether requirements.lock has what pyproject.toml files ask for."""
    sync(session, "--only-group", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("actionlint", *ALONE, *map(str, sorted(Path(".github/workflows").glob("*.yml"))))
    held = session.run(*HELD, external=True, silent=True, log=False) if LOCK.exists() else ""
    if not LOCK.exists() or pins(str(held)) != pins(LOCK.read_text()):
        session.error(f"{LOCK}: expected all that the pyproject.toml files ask for and no more: run `nox -s lock`")


def pins(requirements: str) -> set[str]:
    """Names, versions and markers of a requirements file, without hashes."""
    return {line.removesuffix("\\").strip() for line in requirements.splitlines() if line[:1].isalnum()}


@nox.session(default=False, venv_backend="none")
def lock(session: nox.Session) -> None:
    """Write requirements.lock: every version and hash, no address."""
    session.run(*EXPORT, "--output-file", str(LOCK), external=True, silent=True)


@nox.session(tags=["ci"])
def types(session: nox.Session) -> None:
    """Mypy, strict, over all that is shipped."""
    sync(session)
    sources = [str(Path("packages", package, "src")) for package in PACKAGES]
    session.run("mypy", *MYPY_IN_TWO, *sources, "apps", "noxfile.py")


@nox.session(python=PYTHONS, tags=["ci"])
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def tests(session: nox.Session, package: str) -> None:
    """One package's tests, in an environment that holds this package alone."""
    sync(session, "--package", package, "--group", "test", "--no-default-groups")
    pytest(session, Path("packages", package, "tests"), *(() if package in SHORT else IN_TWO))


@nox.session(python=PYTHONS[0], tags=["ci"], default=False, reuse_venv=False)
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def lowest(session: nox.Session, package: str) -> None:
    """One package's tests with the lowest versions that it declares."""
    folder = Path("packages", package)
    group = f"{folder / 'pyproject.toml'}:test"
    session.install("--quiet", "--resolution", "lowest-direct", "--editable", str(folder), "--group", group)
    pytest(session, folder / "tests")


@nox.session(tags=["ci"])
def apps(session: nox.Session) -> None:
    """What crosses packages: layering, claims, the apps end to end."""
    sync(session)
    pytest(session, "tests", *IN_TWO, "--no-loadscope-reorder")  # the order of conftest.py: long files first


@nox.session(tags=["ci"])
def wheels(session: nox.Session) -> None:
    """What a release publishes, in dist/: every wheel installs and imports alone, that of the experiments runs one."""
    folder, dist = Path(session.create_tmp()).resolve(), DIST.resolve()
    session.run("uv", "build", "--quiet", "--all-packages", "--clear", "--out-dir", str(dist), external=True)
    session.run(*TWINE, "check", "--strict", *map(str, sorted(dist.glob("gm_*"))), external=True)

    # uv knows a wheel of a folder by its name alone, and that of an older commit has the same
    built_anew = [f"--refresh-package={package}" for package in PACKAGES]

    def installed(package: str, *command: str) -> None:
        (wheel,) = dist.glob(f"{package.replace('-', '_')}-*.whl")
        alone = ("uv", "run", "--quiet", "--isolated", "--no-project", "--find-links", str(dist), "--with", str(wheel))
        session.run(*alone, *built_anew, "python", *command, external=True)

    def imported(package: str) -> None:
        module = package.replace("-", "_")
        installed(package, "-c", f"import {module}; print({module}.__file__)")

    with ThreadPoolExecutor(2) as two:
        list(two.map(imported, PACKAGES))
    shutil.rmtree(folder / "run", ignore_errors=True)
    small = ["--figure", "fig1", "--mdps", "2", "--repeats", "2", "--sample-sizes", "4", "--wandb", "disabled"]
    installed("gm-experiments", "-m", "gm_experiments.maml", *small, "--run-dir", str(folder / "run"))


@nox.session(default=False, venv_backend="none")
def bump(session: nox.Session) -> None:
    """Write the version given after `--` wherever it stands, and above what is unreleased in CHANGELOG.md."""
    new = " ".join(session.posargs)
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", new):
        session.error(f"expected one version such as 0.2.0 or 0.2.0rc1 after `--`, found '{new}'")
    changes = Path("CHANGELOG.md").read_text()
    if f"\n## [{new}]" in changes:
        session.error(f"CHANGELOG.md has {new} already: expected a version that was not released")
    for path in VERSIONED:
        path.write_text(renumbered(path.read_text(), new))
    released = f"## [Unreleased]\n\n## [{new}] - {datetime.date.today()}\n"
    Path("CHANGELOG.md").write_text(changes.replace("## [Unreleased]\n", released, 1))


def renumbered(text: str, new: str) -> str:
    """A file's text where its version, and that which one package of the workspace asks of another, is the new one."""
    return re.sub(r'(^version(?: =|:) "|"gm-[\w-]+(?:\[[\w,]+\])?==)[^"]+"', rf'\g<1>{new}"', text, flags=re.MULTILINE)


@nox.session(tags=["ci"])
def docs(session: nox.Session) -> None:
    """The documentation site, without a warning."""
    sync(session, "--only-group", "docs")
    session.run("mkdocs", "build", "--strict", "--quiet", "--site-dir", "site", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(default=False)
def pictures(session: nox.Session) -> None:
    """All pictures of the documentation from the code, by docs/pictures.toml: names what was out of date."""
    sync(session)
    session.run("python", "docs/pictures.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The batched path against a plain loop at equal work, and how the cost grows."""
    sync(session)
    pytest(session, "benchmarks", "-s", env={})
