"""The examples in docstrings: every public function of six packages has one, and it prints what it says."""

import doctest
import importlib
import inspect
from types import ModuleType

import pytest

NAMES = ("estimators", "exact", "envs_tabular", "envs_ipd", "lab.analysis", "mgrl_atari")
PACKAGES = [importlib.import_module(f"gm_{name}") for name in NAMES]
OF_A_PROBLEM = {"attribution", "decompose", "exact_meta_gradient", "sampled_path"}
"""Those that need a whole two-level problem; docs/reading shows what they compute."""
OF_A_RUN = {"as_list", "end_label", "headline", "judge", "logarithmic", "summary_table", "together"}
"""Those of `gm_lab.analysis` that go on from what others of it give."""
OF_TRAINING = {"emulator_rate", "learner_rate", "measure", "windows"}
"""Those of `gm_mgrl_atari` that take seconds of playing; the page "MGRL in your environment" shows `measure`."""
APART = OF_A_PROBLEM | OF_A_RUN | OF_TRAINING


def part(package, name):
    """What a package has under a name, or its room of that name, which it needn't have read."""
    return getattr(package, name) if hasattr(package, name) else importlib.import_module(f"{package.__name__}.{name}")


def public_functions():
    """The functions that the packages and their rooms name in `__all__`, each once."""
    found = {}
    for package in PACKAGES:
        rooms = [part(package, name) for name in package.__all__]
        for room in [package, *(room for room in rooms if isinstance(room, ModuleType))]:
            for name in getattr(room, "__all__", ()):
                if inspect.isfunction(function := getattr(room, name)):
                    found[f"{function.__module__}.{name}"] = function
    return found


FUNCTIONS = public_functions()


def parsed(name, text):
    return doctest.DocTestParser().get_doctest(text, {}, name, None, 0)


def failures(name, text):
    said = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(parsed(name, text), out=said.append)
    return "".join(said)


def test_there_are_functions():
    assert len(FUNCTIONS) > 140
    assert {name.rpartition(".")[2] for name in FUNCTIONS} >= APART


def test_an_example_that_prints_something_else_is_found_out():
    assert failures("good", ">>> 1 + 1\n2\n") == ""
    assert "Expected" in failures("bad", ">>> 1 + 1\n3\n")


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.rpartition(".")[2] not in APART])
def test_a_public_function_has_an_example_that_prints_what_it_says(name):
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    examples = parsed(name, text).examples
    assert any(example.want for example in examples), f"{name}: expected an example with its output"
    assert failures(name, text) == ""


def test_the_examples_of_a_runs_parts_print_what_they_say():
    run = importlib.import_module("gm_lab.run")
    texts = {name: inspect.getdoc(getattr(run, name)) or "" for name in run.__all__}
    shown = {name: text for name, text in texts.items() if ">>>" in text}
    assert shown.keys() >= {"cell_id", "describe_cell", "got", "plain", "seed_of"}
    assert {name: found for name, text in shown.items() if (found := failures(name, text))} == {}
