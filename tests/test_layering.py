"""Who may import whom, and when."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
MEMBERS = {package.replace("-", "_") for package in PACKAGES}
ALLOWED_MEMBERS = {"gm-mgrl-atari": {"gm_estimators"}, "gm-experiments": MEMBERS}
TORCH_ONLY = {"gm-estimators", "gm-exact"}
HEAVY = {"matplotlib", "scipy", "tyro", "wandb"}
DISTRIBUTION = {"yaml": "pyyaml", "ale_py": "ale-py"}


def nodes(tree: ast.AST, *, at_import_only: bool) -> Iterator[ast.AST]:
    """Every node, or only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if at_import_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes(node, at_import_only=at_import_only)


def imported(source: str, *, at_import_only: bool = False) -> set[str]:
    """The top-level names that a module's absolute imports name."""
    found = set()
    for node in nodes(ast.parse(source), at_import_only=at_import_only):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {str(arg.value).partition(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return found - set(sys.stdlib_module_names)


def sources(package: str) -> dict[Path, str]:
    paths = sorted((ROOT / "packages" / package / "src").rglob("*.py"))
    assert paths, f"{package} has no modules"
    return {path: path.read_text() for path in paths}


def test_the_scan_sees_every_form_of_import():
    source = """
import os, gm_exact.mdp as mdp
from torch import nn
from . import sibling
if TYPE_CHECKING:
    import pandas
def late():
    import wandb
    importlib.import_module("gm_lab.grid")
class Body:
    import scipy
"""
    assert imported(source) == {"gm_exact", "torch", "pandas", "wandb", "gm_lab", "scipy"}
    assert imported(source, at_import_only=True) == {"gm_exact", "torch", "scipy"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_no_other_member(package):
    own = package.replace("-", "_")
    allowed = {own} | ALLOWED_MEMBERS.get(package, set())
    for path, source in sources(package).items():
        others = {name for name in imported(source) if name.startswith("gm_") or name == "apps"} - allowed
        assert not others, f"{path.relative_to(ROOT)} imports {sorted(others)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_declares_what_it_imports(package):
    project = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project.get("optional-dependencies", {}).values() for requirement in extra]
    names = [re.match(r"[\w.-]+", requirement) for requirement in project["dependencies"] + extras]
    declared = {match[0].lower() for match in names if match} | {package}
    for path, source in sources(package).items():
        needed = {DISTRIBUTION.get(name, name.replace("_", "-")).lower() for name in imported(source)}
        assert needed <= declared, f"{path.relative_to(ROOT)} needs {sorted(needed - declared)}"


@pytest.mark.parametrize("package", sorted(TORCH_ONLY))
def test_the_core_needs_torch_only(package):
    for path, source in sources(package).items():
        extra = imported(source) - {package.replace("-", "_"), "torch", "numpy", "jaxtyping"}
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}"


def test_the_lab_knows_no_torch():
    for path, source in sources("gm-lab").items():
        assert "torch" not in imported(source), f"{path.relative_to(ROOT)} imports torch"


@pytest.mark.parametrize("package", PACKAGES)
def test_heavy_modules_are_imported_late(package):
    for path, source in sources(package).items():
        early = imported(source, at_import_only=True) & HEAVY
        assert not early, f"{path.relative_to(ROOT)} imports {sorted(early)} when it is imported"


def test_importing_the_estimators_adds_less_than_a_tenth_of_a_second_to_torch():
    code = "import time, torch; t = time.perf_counter(); import gm_estimators; print(time.perf_counter() - t)"

    def added_seconds() -> float:
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    measured: list[float] = []  # the best of three: no test of how busy the machine is
    while min(measured, default=1.0) >= 0.1 and len(measured) < 3:
        measured.append(added_seconds())
    assert min(measured) < 0.1, f"import gm_estimators adds {measured} s"
