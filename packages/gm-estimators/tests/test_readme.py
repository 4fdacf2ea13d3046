import re
import tomllib
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run_and_print_what_they_say(capsys):
    for example in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(example, str(README), "exec"), {})
        promised = re.findall(r"# → (.*)", example)
        assert promised
        assert promised == capsys.readouterr().out.splitlines()


def test_it_needs_what_it_says():
    needs = re.search(r"It needs (.*)\.\n", README.read_text(encoding="utf-8"))
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert needs is not None
    assert re.split(", | and ", needs[1]) == [re.split("[>=<]", name)[0] for name in project["dependencies"]]
