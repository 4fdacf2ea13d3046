"""Who may import whom, and when. Each rule is also held against a house that breaks it."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from layering import Sources, circle, hidden, imported, imports, module_graph, modules_of, public_names, used

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
MODULE = {package: package.replace("-", "_") for package in PACKAGES}
SOURCES = {package: modules_of(ROOT / "packages" / package / "src") for package in PACKAGES}
EVERYTHING = {name: text for modules in SOURCES.values() for name, text in modules.items()}
APPS = {path.stem: path.read_text() for path in sorted(ROOT.glob("apps/*.py"))}
BENCHMARKS = {path.stem: path.read_text() for path in sorted(ROOT.glob("benchmarks/*.py"))}
MAY_IMPORT = {"gm-mgrl-atari": {"gm_estimators"}, "gm-experiments": set(MODULE.values())}
TORCH_ONLY = {"gm-estimators", "gm-exact"}
HEAVY = {"matplotlib", "scipy", "tyro", "vl_convert", "wandb"}
NUMERICAL = HEAVY - {"tyro"} | {"torch", "numpy", "pandas", "ale_py", "gymnasium", "gm_estimators", "gm_exact"}
DISTRIBUTION = {"yaml": "pyyaml", "ale_py": "ale-py", "vl_convert": "vl-convert-python"}
MOST_LINES_OF_AN_APP = 45
MOST_LINES_OF_A_BODY = 60


# Apps


def faults_of_an_app(name: str, source: str, apps: set[str]) -> list[str]:
    """What an app has that it must not have."""
    found = []
    if (lines := len(source.splitlines())) > MOST_LINES_OF_AN_APP:
        found.append(f"{lines} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            found.append(f"a {type(node).__name__}")
    return found + [f"import of {other}" for other in sorted(imported(source) & apps - {name})]


@pytest.mark.parametrize("app", APPS)
def test_an_app_only_composes(app):
    assert faults_of_an_app(app, APPS[app], set(APPS)) == []


def test_an_app_that_computes_is_seen():
    source = "import other_app\ndef run(): ...\nclass Settings: ...\nf = lambda: 0\n" + "x = 0\n" * 45
    expected = ["49 lines", "a FunctionDef", "a ClassDef", "a Lambda", "import of other_app"]
    assert faults_of_an_app("this_app", source, {"this_app", "other_app"}) == expected


# Between packages


def foreign(package: str, source: str) -> set[str]:
    """The members of the workspace that a module of a package imports and must not."""
    allowed = {package.replace("-", "_")} | MAY_IMPORT.get(package, set())
    return {name for name in imported(source) if name.startswith("gm_") or name == "apps"} - allowed


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_no_other_member(package):
    assert {name: others for name, source in SOURCES[package].items() if (others := foreign(package, source))} == {}


def test_a_package_that_leans_on_another_is_seen():
    assert foreign("gm-lab", "def f():\n    from gm_estimators import lvc") == {"gm_estimators"}
    assert foreign("gm-exact", "import gm_exact, gm_estimators.metrics") == {"gm_estimators"}
    assert foreign("gm-mgrl-atari", "import gm_estimators, gm_exact") == {"gm_exact"}


def not_public(owner: str, source: str, sources: Sources) -> list[str]:
    """Names of other packages that a module of `owner` uses though they are not public."""
    others = {name for name in used(source) if name.startswith("gm_") and name.partition(".")[0] != owner}
    return sorted(name for name in others if hidden(name, sources))


@pytest.mark.parametrize("package", PACKAGES)
def test_only_public_names_cross_packages(package):
    found = {name: not_public(MODULE[package], source, EVERYTHING) for name, source in SOURCES[package].items()}
    assert {name: names for name, names in found.items() if names} == {}


INSIDE = {"diagnosis_coverage", "known_loops"}
"""Benchmarks that hold the parts of a diagnosis to enumeration, and reach into it for these."""


@pytest.mark.parametrize("name", sorted({*APPS, *BENCHMARKS} - INSIDE))
def test_apps_and_benchmarks_use_public_names(name):
    assert not_public("", (APPS | BENCHMARKS)[name], EVERYTHING) == []


def test_a_name_that_is_not_public_is_seen():
    house = {"gm_a": "__all__ = ['room', 'f']", "gm_a.room": "__all__ = ['g']", "gm_a.cellar": "def h(): ..."}
    source = "import gm_a\nimport gm_a.room as r\nfrom gm_a.room import g, k\nfrom gm_a.cellar import h\n"
    source += "gm_a.f.x\ngm_a.room.g\nr.j\ngm_a.late('gm_a.cellar:i')\n"
    assert not_public("gm_b", source, house) == [
        "gm_a.cellar.h",
        "gm_a.cellar.i",
        "gm_a.late",
        "gm_a.room.j",
        "gm_a.room.k",
    ]
    assert not_public("gm_a", source, house) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public_is_there(package):
    modules, own = SOURCES[package], MODULE[package]
    names = public_names(modules[own])
    assert names or package == "gm-experiments"
    rooms = {
        name for name in names if f"{own}.{name}" in modules and (f"{own}.{name}", name) not in imports(modules[own])
    }
    assert {room for room in rooms if not public_names(modules[f"{own}.{room}"])} == set()
    for room in rooms if package == "gm-experiments" else ():
        inside = {name.rpartition(".")[2] for name in modules if name.rpartition(".")[0] == f"{own}.{room}"}
        assert inside - {"__main__"} <= public_names(modules[f"{own}.{room}"])


# Circles


def test_no_circle_between_modules():
    assert circle(module_graph(EVERYTHING)) == []


def folder_graph(sources: Sources) -> dict[str, set[str]]:
    """Which experiment imports which."""

    def folder(module: str) -> str:
        return ".".join(module.split(".")[:2])

    graph: dict[str, set[str]] = {}
    for module, targets in module_graph(sources).items():
        graph.setdefault(folder(module), set()).update({folder(t) for t in targets} - {folder(module)})
    return graph


def test_no_circle_between_experiments():
    assert circle(folder_graph(SOURCES["gm-experiments"])) == []


def test_a_circle_is_seen():
    house = {"gm_x.a.one": "from gm_x.b import two", "gm_x.b.two": "", "gm_x.b.three": "import gm_x.a.one"}
    assert circle(module_graph(house)) == []
    assert circle(folder_graph(house)) == ["gm_x.a", "gm_x.b", "gm_x.a"]
    late = {"gm_x.one": "from gm_x import two", "gm_x.two": "def f():\n    from gm_x.one import g"}
    assert circle(module_graph(late)) == ["gm_x.one", "gm_x.two", "gm_x.one"]
    assert circle(module_graph(late, at_import_only=True)) == []


# What a package needs


def test_the_scan_sees_every_form_of_import():
    source = """
import os, gm_exact.mdp as mdp
from torch import nn
from . import sibling
if TYPE_CHECKING:
    import pandas
run = gm_lab.late("gm_experiments.maml.run:run_cell")
def late():
    import wandb
    importlib.import_module("gm_lab.grid")
class Body:
    import scipy
"""
    assert imported(source) == {"gm_exact", "torch", "pandas", "wandb", "gm_lab", "scipy", "gm_experiments"}
    assert imported(source, at_import_only=True) == {"gm_exact", "torch", "scipy"}
    assert ("gm_experiments.maml.run", "run_cell") in imports(source)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_declares_what_it_imports(package):
    project = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project.get("optional-dependencies", {}).values() for requirement in extra]
    names = [re.match(r"[\w.-]+", requirement) for requirement in project["dependencies"] + extras]
    declared = {match[0].lower() for match in names if match} | {package}
    for name, source in SOURCES[package].items():
        needed = {DISTRIBUTION.get(each, each.replace("_", "-")).lower() for each in imported(source)}
        assert needed <= declared, f"{name} needs {sorted(needed - declared)}"


@pytest.mark.parametrize("package", sorted(TORCH_ONLY))
def test_the_core_needs_torch_only(package):
    for name, source in SOURCES[package].items():
        extra = imported(source) - {MODULE[package], "torch", "numpy", "jaxtyping"}
        assert not extra, f"{name} imports {sorted(extra)}"


def test_the_lab_knows_no_torch():
    for name, source in SOURCES["gm-lab"].items():
        assert "torch" not in imported(source), f"{name} imports torch"


@pytest.mark.parametrize("package", PACKAGES)
def test_heavy_modules_are_imported_late(package):
    for name, source in SOURCES[package].items():
        # what reads the flags may say something to tyro about them
        early = imported(source, at_import_only=True) & (HEAVY - {"tyro"} if name.endswith("settings") else HEAVY)
        assert not early, f"{name} imports {sorted(early)} when it is imported"


def what_is_loaded(start: set[str], sources: Sources) -> set[str]:
    """What importing some modules imports in turn, within the workspace and outside."""
    waiting, seen, outside = set(start), set(), set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        for base, name in imports(sources[module], at_import_only=True) if module in sources else ():
            parents = {".".join(base.split(".")[: i + 1]) for i in range(base.count(".") + 1)}
            inner = {m for m in (*parents, f"{base}.{name}") if m in sources}
            outside |= set() if inner else {base.partition(".")[0]}
            waiting |= inner - seen
    return outside


SETTINGS = sorted(name for name in SOURCES["gm-experiments"] if name.endswith("settings"))


@pytest.mark.parametrize("module", SETTINGS)
def test_settings_and_help_import_nothing_heavy(module):
    """Neither the module itself nor anything that it imports, the folder's own `__init__` included."""
    start = {module, module.rpartition(".")[0], "gm_lab"}
    assert what_is_loaded(start, EVERYTHING) & NUMERICAL == set()


def test_a_heavy_import_behind_another_module_is_seen():
    house = {"gm_x": "", "gm_x.settings": "from gm_x.grid import Grid", "gm_x.grid": "import torch"}
    assert what_is_loaded({"gm_x.settings"}, house) == {"torch"}


# Size


def long_bodies(sources: Sources) -> list[str]:
    """Functions whose body, without its docstring, is too long."""
    found = []
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
                found += [f"{module}.{node.name}: {lines} lines"] if lines > MOST_LINES_OF_A_BODY else []
    return found


def test_no_function_is_long():
    assert long_bodies(EVERYTHING) == []


def test_a_long_function_is_seen():
    source = 'def f():\n    """Says so."""\n' + "    x = 0\n" * 61
    assert long_bodies({"m": source}) == ["m.f: 61 lines"]
