"""docs/sweeps: W&B's own agent makes command lines of them that the apps know."""

import importlib
import itertools
import re
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

import gm_lab
from gm_lab.run.settings import parse
from gm_lab.track.curves import curves_of, keyed

ROOT = Path(__file__).parents[1]
SWEEPS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "docs" / "sweeps").glob("*.yaml")}
TINY = ["--mdps", "2", "--repeats", "2", "--states", "4", "--actions", "2", "--horizon", "4", "--wandb", "disabled"]


def points(sweep):
    """All that a grid search tries, as the server hands it to an agent."""
    choices = {name: of.get("values", [of.get("value")]) for name, of in sweep["parameters"].items()}
    for values in itertools.product(*choices.values()):
        yield {"args": {name: {"value": value} for name, value in zip(choices, values, strict=True)}}


def command_lines(sweep):
    """What an agent types for each point."""
    for point in points(sweep):
        args = create_sweep_command_args(point)
        words = []
        for word in create_sweep_command(list(sweep["command"])):
            words += args["args"] if word == "${args}" else [sweep["program"] if word == "${program}" else word]
        yield words


@pytest.mark.parametrize("name", SWEEPS)
def test_every_command_line_is_known(name):
    sweep = SWEEPS[name]
    lines = list(command_lines(sweep))
    assert len(lines) == 18
    app = Path(sweep["program"]).stem
    assert (ROOT / sweep["program"]).is_file()
    for words in lines:
        assert words[:3] == ["uv", "run", sweep["program"]]
        settings = parse(importlib.import_module(app).EXPERIMENT.settings, app, words[3:])
        for flag in words[3:]:
            field, value = re.fullmatch(r"--(\w+)=(.*)", flag).groups()
            found = getattr(settings, field)
            assert str(found[0] if isinstance(found, tuple) else found) == value


@pytest.mark.parametrize("name", SWEEPS)
def test_what_a_sweep_optimises_is_logged(name, tmp_path):
    """At a small scale: under the key that its runs have in W&B."""
    sweep = SWEEPS[name]
    experiment = importlib.import_module(Path(sweep["program"]).stem).EXPERIMENT
    flags = [*next(command_lines(sweep))[3:], *TINY, "--workers", "1", "--run-dir", str(tmp_path / "run")]
    assert gm_lab.main(experiment, flags) == 0
    frame = gm_lab.analysis.read_results(tmp_path / "run" / "results.csv")
    keys = {f"{key}/{y}" for key, curve in keyed(curves_of(experiment.curves, frame)).items() for y in curve.kind.y}
    assert sweep["metric"]["name"] in keys
    assert sweep["project"] == experiment.name
