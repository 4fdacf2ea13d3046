"""Files that mgrl_figures did not write are refused in one line, and nothing waits for one."""

import os

import pandas as pd
import pytest
import yaml

from gm_experiments.mgrl import unfinished
from gm_experiments.mgrl.settings import completed

SETTINGS = {"seed": 0, "estimator": None, "inner_steps": 3, "schedule": "discard"}
ROW = {"figure": "returns", "game": "Qbert", "algorithm": "mgrl", "seed": 0, "updates": 5, "env_steps": 100}


@pytest.fixture
def run(tmp_path):
    """A run directory as mgrl_atari leaves it."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"app": "mgrl_atari", "settings": SETTINGS}))
    pd.DataFrame([completed(ROW)]).to_csv(tmp_path / "results.csv", index=False, na_rep="nan")
    return tmp_path


def test_a_run_directory_is_read(run):
    frame, settings = unfinished.together([run])
    assert settings == SETTINGS
    assert frame["env_steps"].tolist() == [100]


def written(name, content):
    def spoil(run):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)

    return spoil


def folder(name):
    def spoil(run):
        (run / name).unlink()
        (run / name).mkdir()

    return spoil


def pipe(name):
    def spoil(run):
        (run / name).unlink()
        os.mkfifo(run / name)

    return spoil


def number_as_text(run):
    frame = pd.read_csv(run / "results.csv", dtype=object)
    frame["env_steps"] = "many"
    frame.to_csv(run / "results.csv", index=False)


ODD = {
    "a list as configuration": written("config.yaml", b"- 1\n- 2\n"),
    "no YAML": written("config.yaml", b"{\x00"),
    "deep YAML": written("config.yaml", b"[" * 3_000),
    "large YAML": written("config.yaml", b"# " + b"x" * 2_000_000),
    "no settings": written("config.yaml", b"app: mgrl_atari\n"),
    "settings that are text": written("config.yaml", b"app: mgrl_atari\nsettings: many\n"),
    "settings without a seed": written("config.yaml", b"app: mgrl_atari\nsettings: {estimator: ad}\n"),
    "another app's": written("config.yaml", b"app: 'x\n\n  y'\nsettings: {}\n"),
    "a folder as configuration": folder("config.yaml"),
    "a pipe as configuration": pipe("config.yaml"),
    "a folder as results": folder("results.csv"),
    "a pipe as results": pipe("results.csv"),
    "empty results": written("results.csv", b""),
    "no text": written("results.csv", b"\xff\xfe\x00,\n"),
    "rows of several lengths": written("results.csv", b"figure,game\n1,2\n1,2,3,4\n"),
    "text in a column of numbers": number_as_text,
    "a log in a folder of another name": written("training/odd/log.csv", b"updates,env_steps\n5,100\n"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_files_are_one_line_and_status_2(run, capsys, odd):
    ODD[odd](run)
    assert unfinished.main([str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mgrl_figures: ")
    assert str(run) in error
    assert error.count("\n") == 1
