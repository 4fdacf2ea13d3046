"""docs/claims.toml against the code: every entry's function and tests exist, every marked test has an entry."""

import ast
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

from gm_experiments.common.claims import METRICS
from gm_experiments.lirpg import claims as lirpg
from gm_experiments.maml import claims as maml
from gm_experiments.theory import claims as theory

ROOT = Path(__file__).parents[1]
REGISTRY = tomllib.loads((ROOT / "docs" / "claims.toml").read_text())
TABLES = {"MAML": maml.CLAIMS, "LIRPG": lirpg.CLAIMS, "THEORY": theory.CLAIMS}
ENTRIES = {**REGISTRY["claims"], **REGISTRY["equations"]}
TEST_FILES = sorted([*ROOT.glob("packages/*/tests/test_*.py"), *ROOT.glob("tests/test_*.py")])


def ids_by_test(source: str) -> dict[str, set[str]]:
    """The tests of a file by their names below the file, each with the ids that its `claim` markers name."""
    found: dict[str, set[str]] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                visit(node.body, f"{prefix}{node.name}::")
            elif isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                calls = [mark for mark in node.decorator_list if isinstance(mark, ast.Call)]
                marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.claim"]
                found[prefix + node.name] = {ast.literal_eval(arg) for mark in marks for arg in mark.args}

    visit(ast.parse(source).body, "")
    return found


TESTS = {
    f"{path.relative_to(ROOT).as_posix()}::{name}": ids
    for path in TEST_FILES
    for name, ids in ids_by_test(path.read_text()).items()
}


def test_the_scan_sees_functions_classes_and_markers():
    source = """
@pytest.mark.parametrize("x", [1])
@pytest.mark.claim("MAML-1", "eq-4")
def test_plain(x): ...
class TestGroup:
    @pytest.mark.slow
    def test_inside(self): ...
    def helper(self): ...
"""
    assert ids_by_test(source) == {"test_plain": {"MAML-1", "eq-4"}, "TestGroup::test_inside": set()}


@pytest.mark.parametrize("experiment", TABLES)
def test_the_claims_of_a_table_have_entries_and_none_is_left(experiment):
    entries = [name for name in REGISTRY["claims"] if re.fullmatch(rf"{experiment}-\d+", name)]
    assert entries == [claim.id for claim in TABLES[experiment]]
    assert entries == [f"{experiment}-{i}" for i in range(1, len(entries) + 1)]


def test_every_difference_that_matters_is_the_one_that_the_code_has():
    stated = {name: (entry["delta"], entry["reach"]) for name, entry in REGISTRY["metrics"].items()}
    assert stated == {name: pytest.approx((metric.delta, metric.reach)) for name, metric in METRICS.items()}
    assert all(entry["reason"] for entry in REGISTRY["metrics"].values())


@pytest.mark.parametrize("name", REGISTRY["not_testable"])
def test_what_is_not_testable_says_why(name):
    entry = REGISTRY["not_testable"][name]
    assert set(entry) == {"where", "text", "reason"}
    assert all(entry.values()), f"{name}: expected no empty field, got {entry}"
    assert name not in ENTRIES


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_complete(name):
    entry = ENTRIES[name]
    own = {"decided", "measured"} if name in REGISTRY["claims"] else {"function"}
    assert set(entry) - {"divergence"} == {"where", "text", "tests"} | own
    assert all(entry.values()), f"{name}: expected no empty field, got {entry}"


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entrys_function_exists(name):
    function = ENTRIES[name].get("measured") or ENTRIES[name]["function"]
    assert ":" in function, f"{name}: expected 'module:function', got {function!r}"
    assert callable(pkgutil.resolve_name(function))


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entrys_tests_exist(name):
    missing = set(ENTRIES[name]["tests"]) - set(TESTS)
    assert not missing, f"{name}: no such test: {sorted(missing)}"


def test_every_marked_test_is_listed_by_its_entry():
    marked = {(test, name) for test, ids in TESTS.items() for name in ids}
    unlisted = {(test, name) for test, name in marked if test not in ENTRIES.get(name, {}).get("tests", [])}
    assert not unlisted, f"docs/claims.toml: expected an entry that lists each of {sorted(unlisted)}"
