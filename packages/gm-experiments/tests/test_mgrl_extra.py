"""The Atari experiment without its extra."""

import sys

import pytest

import gm_lab
from gm_experiments.mgrl import EXPERIMENT, unfinished


@pytest.fixture(autouse=True)
def no_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gm_mgrl_atari", None)


def test_a_run_without_the_extra_is_refused_in_one_line(run_app, tmp_path):
    status, error = run_app(EXPERIMENT, "--run-dir", "run", "--wandb", "disabled")
    assert status == 2
    assert error.startswith("mgrl_atari: expected gm-experiments[atari], the extra that trains on Atari; ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_figures_without_the_extra_are_refused_in_one_line(tmp_path, capsys):
    assert unfinished.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("mgrl_figures: expected gm-experiments[atari], ")


def test_help_needs_no_extra(capsys):
    with pytest.raises(SystemExit):
        gm_lab.main(EXPERIMENT, ["--help"])
    assert "--games" in capsys.readouterr().out
