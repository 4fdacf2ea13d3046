"""The help of a command line: groups, what each flag takes, examples, at any width; and what may have been meant."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import tyro

from gm_lab.run import BadInput, RunSettings, parse
from gm_lab.run.help import help_of

COMMAND = "uv run apps/toy.py"


@dataclasses.dataclass(frozen=True)
class Base(RunSettings):
    """What all have."""

    GROUPED: ClassVar[Mapping[str, str]] = {"how much": "mdps"}

    mdps: int = 10
    """Random MDPs, 95% of them odd."""
    sizes: tuple[int, ...] | None = None
    """Instead of the figure's: trajectories,
    on a second line."""


@dataclasses.dataclass(frozen=True)
class Toy(Base):
    """What is asked?

    A second paragraph.
    """

    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--figure b --sizes 2 4 8 16 32 64 128 256 512 1024 2048 4096": "A long line, whose words say much about it:"
    }

    figure: tuple[Literal["a", "b"], ...] = ("a", "b")
    """Figures."""
    names: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--name",))] = ("x",)
    """Names."""
    rate: float = 0.1
    """Rate."""
    told: bool = True
    """Whether it is told."""
    folder: Path | None = None
    """A folder."""


@pytest.fixture
def shown(monkeypatch):
    def at(width, flags=Toy):
        monkeypatch.setenv("COLUMNS", str(width))
        return help_of(flags, COMMAND)

    return at


def test_flags_stand_in_groups_and_the_class_itself_comes_first(shown):
    text = shown(80)
    groups = [line for line in text.splitlines() if line and not line.startswith(" ") and line.endswith(":")]
    assert groups == ["what:", "how much:", "where:", "machine:", "examples:"]
    flags = [line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  --")]
    of_machine = ["--device", "--workers", "--launcher", "--ray-address", "--cpus-per-cell", "--gpus-per-cell"]
    assert flags[:6] == ["--figure", "--names", "--rate", "--told", "--folder", "--sizes"]
    assert flags[6:8] == ["--mdps", "--seed"]
    assert flags[-6:] == of_machine
    assert sorted(flags) == sorted(f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Toy))


def test_what_a_flag_takes_is_said_in_words(shown):
    text = " ".join(shown(100).split())
    assert "--figure {a,b} ... Figures. (default: a b)" in text
    assert "--names, --name NAME ... Names. (default: x)" in text
    assert "--rate X Rate. (default: 0.1)" in text
    assert "--told, --no-told Whether it is told. --folder PATH A folder." in text
    assert "--sizes N ... Instead of the figure's: trajectories, on a second line." in text
    assert "--mdps N Random MDPs, 95% of them odd. (default: 10)" in text
    assert "None" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal(shown, width):
    lines = shown(width).splitlines()
    assert max(map(len, lines)) <= width
    examples = "\n".join(lines[lines.index("examples:") :])
    assert " ".join(examples.replace("\\\n", " ").split()).endswith(f"{COMMAND} {next(iter(Toy.EXAMPLES))}")


def test_the_help_is_printed_and_ends_the_program(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(Toy, "toy", ["--mdps", "3", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (["--figure", "A"], "a"),
        (["--fgure", "a"], "--figure"),
        (["--launcher", "lcoal"], "local"),
        (["--nam"], "--name"),
    ],
)
def test_what_may_have_been_meant_is_asked(line, meant):
    with pytest.raises(BadInput, match=rf"got .*\(did you mean {meant}\?\)$"):
        parse(Toy, "toy", line)


def test_nothing_is_guessed_where_nothing_is_close():
    with pytest.raises(BadInput, match=r"got 'quite another'$"):
        parse(Toy, "toy", ["--figure", "quite another"])


@dataclasses.dataclass(frozen=True)
class Choosy(RunSettings):
    """Which?"""

    sources: tuple[Literal["composition", "hessian", "outer", "shared_batch", "critic", "clipping", "adam"], ...] = (
        "adam",
    )
    """Sources."""


def test_choices_that_are_too_many_for_a_line_go_on_beneath(shown):
    narrow, wide = shown(60, Choosy), shown(120, Choosy)
    assert max(map(len, narrow.splitlines())) <= 60
    assert "--sources {composition, hessian, outer, shared_batch, critic, clipping, adam} ..." in " ".join(
        narrow.split()
    )
    assert "--sources {composition,hessian,outer,shared_batch,critic,clipping,adam} ..." in wide
