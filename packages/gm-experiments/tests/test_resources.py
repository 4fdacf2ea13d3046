"""What a run takes is refused before it is taken, in every experiment, and what fits is not."""

import dataclasses
import re
import types
from importlib import import_module
from typing import get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gm_lab
from gm_experiments import reproduce
from gm_lab.run import parse, resources
from gm_lab.run.settings import flag_of

MODULES = (
    "maml", "lirpg", "frontier", "explore", "attribution", "lola", "attribution.lola", "lpg", "mgrl", "mgrl_chain",
    "mgrl_minatar", "mgrl_tabular",
)  # fmt: skip
EXPERIMENTS = {name: import_module(f"gm_experiments.{name}").EXPERIMENT for name in MODULES}
HARMLESS = {"seed", "max_age", "workers"}
"""Of these any number is taken, or one above the number of cells is as good as that."""
GIB = 2.0**30


def takes_integers(kind):
    """Whether a flag is an integer, several, or one that may be left out."""
    if isinstance(kind, types.UnionType):
        return any(takes_integers(option) for option in get_args(kind))
    return kind is int or get_args(kind)[:1] == (int,)


FLAGS = [
    (name, field.name)
    for name, experiment in EXPERIMENTS.items()
    for field in dataclasses.fields(experiment.settings)
    if takes_integers(get_type_hints(experiment.settings)[field.name]) and field.name not in HARMLESS
]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs an experiment that must not list a cell; its one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resources, "available", lambda: 64 * GIB)

    def run(name, *arguments):
        def never(_settings):
            pytest.fail("it began to list its cells")

        status = gm_lab.main(dataclasses.replace(EXPERIMENTS[name], cells=never), [*map(str, arguments)])
        error = capsys.readouterr().err
        assert status == 2, error
        assert error.count("\n") == 1
        assert not list(tmp_path.iterdir())
        return error.removeprefix(f"{EXPERIMENTS[name].name}: ").strip()

    return run


def test_every_flag_is_among_them():
    assert len(FLAGS) > 60
    assert ("maml", "mdps") in FLAGS
    assert ("lpg", "inner_steps") in FLAGS
    assert ("mgrl", "envs") in FLAGS


@pytest.mark.parametrize(("name", "field"), FLAGS)
@given(digits=st.integers(17, 5000), first=st.integers(1, 9))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_number_is_so_large_that_it_is_begun(refused, name, field, digits, first):
    """Of any size, beyond what Python writes out and beyond floats; the line begins with the flag."""
    beside = ["--figure", "training"] if (name, field) == ("frontier", "updates") else []
    beside = ["--until-decided"] if field.startswith("most_") else beside
    line = refused(name, *beside, flag_of(field), f"{first}{'0' * digits}")
    assert line.startswith(f"{flag_of(field)}: expected "), line


LARGE = {
    "the paper": [
        ("maml", "--figure fig1 fig4 fig5 fig6 theory"),
        ("lirpg", ""),
        ("lola", ""),
        ("frontier", ""),
        ("explore", ""),
    ],
    "640 MDPs": [
        (name, "--mdps 640") for name in ("maml", "lirpg", "frontier", "explore", "attribution", "mgrl_tabular")
    ],
    "320 seeds": [("lola", "--figure debias --seeds 320"), ("lola_attribution", "--seeds 320")],
    "more samples": [
        ("maml", "--sample-sizes 8192"),
        ("lola", "--horizon 1000"),
        ("attribution", "--sample-sizes 4096"),
    ],
    "more states": [("maml", "--states 200"), ("lirpg", "--states 100 --actions 10")],
    "longer": [
        ("lpg", "--meta-updates 100000"),
        ("lpg", "--tasks 2048"),
        ("frontier", "--figure training --updates 5000"),
        ("mgrl_chain", "--inner-steps 1 --inner-lr 0.5 --updates 50000 --seeds 80"),
    ],
    "Atari": [("mgrl", "--games Qbert Alien --env-steps 40_000_000 --seeds 60"), ("mgrl", "--envs 1024")],
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_run_that_fits_is_not_refused(kind, monkeypatch):
    monkeypatch.setattr(resources, "available", lambda: 16 * GIB)
    for name, line in LARGE[kind]:
        experiment = EXPERIMENTS[name.replace("lola_attribution", "attribution.lola")]
        asked = parse(experiment.settings, experiment.name, ["--workers", "1", *line.split()])
        resources.require(experiment.need, asked, len(experiment.columns), lambda _line: None)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("device", ["meta", "mps", "xla", "cpu:0", "cuda:-1", "cuda:99999999999", "", "nonsense"])
def test_devices_that_nothing_computes_on_are_refused_before_there_is_a_folder(run_app, tmp_path, name, device):
    status, error = run_app(EXPERIMENTS[name], f"--device={device}")
    assert status == 2
    assert error.startswith(f"{EXPERIMENTS[name].name}: --device: expected ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--mdps", "--repeats", "--seeds", "--updates"])
def test_reproduce_refuses_before_its_first_experiment_is_begun(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert reproduce.main([flag, "1" + "0" * 17]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"reproduce: {flag}: expected a run ")
    assert error.count("\n") == 1
    assert reproduce.main(["--device", "meta"]) == 2
    assert "reproduce: --device: expected cpu, or cuda" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_of_hours_says_so_before_it_begins(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resources, "available", lambda: 512 * GIB)

    experiment = dataclasses.replace(EXPERIMENTS["lola"], cells=lambda _settings: [])
    assert gm_lab.main(experiment, ["--seeds", "320", "--updates", "5000", "--workers", "2"]) == 2
    said, begun = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"lola_offpolicy: all of this run takes about [\d.]+ (hours|days) with 2 workers", said)
    assert begun == "lola_offpolicy: expected settings that leave at least one cell to compute, got none"
