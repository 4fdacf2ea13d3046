import doctest
import importlib
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_example_trains_and_leaves_its_files(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[0], str(README), "exec"), {})
    first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert [first[0], second[0]] == ["20", "40"]
    assert 0.98 < float(second[2]) < 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint-000000002.pt", "log.csv"]


def test_the_example_of_an_environment_of_ones_own_trains(capsys):
    (example,) = EXAMPLES[1:]
    exec(compile(example, str(README), "exec"), {})
    assert capsys.readouterr().out == "80\n"


@pytest.mark.parametrize("name", ["actor_critic", "distributions", "vector", "trainer"])
def test_the_examples_in_docstrings_print_what_they_say(name):
    """Those of classes, too."""
    room = importlib.import_module(f"gm_mgrl_atari.{name}")
    failed, attempted = doctest.testmod(room, optionflags=doctest.ELLIPSIS)
    assert attempted > 2
    assert failed == 0
