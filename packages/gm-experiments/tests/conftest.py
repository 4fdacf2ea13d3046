"""What the tests of the experiments share: array shapes are checked, and an experiment runs in an empty folder."""

from collections.abc import Callable
from importlib import import_module

import hypothesis
import jaxtyping
import pandas as pd
import pytest

import gm_lab
from gm_lab.run import parse

# no deadline, which a busy machine would miss, and the same examples every time
hypothesis.settings.register_profile("any machine", deadline=None, derandomize=True)
hypothesis.settings.load_profile("any machine")

WITH_SHAPES = ("gm_envs_ipd", "gm_envs_tabular", "gm_estimators", "gm_exact", "gm_experiments.lola")
with jaxtyping.install_import_hook(WITH_SHAPES, "shapes.checked"):
    for module in (*WITH_SHAPES, "gm_experiments.lola.run"):
        import_module(module)


@pytest.fixture
def run_app(capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str]]:
    """Runs an experiment in this process, in an empty folder, with one worker: exit status, and its stderr."""
    monkeypatch.chdir(tmp_path)

    def run(experiment: gm_lab.Experiment, *arguments: object) -> tuple[int, str]:
        status = gm_lab.main(experiment, ["--workers", "1", *map(str, arguments)])
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def rows_of(tmp_path, monkeypatch) -> Callable[..., pd.DataFrame]:
    """What an experiment measures for a command line, without a run directory, figures and verdicts around it."""
    monkeypatch.chdir(tmp_path)

    def measure(experiment: gm_lab.Experiment, *arguments: object) -> pd.DataFrame:
        settings = parse(experiment.settings, experiment.name, [*map(str, arguments)])
        context = experiment.prepare(settings)
        rows = [row for cell in experiment.cells(settings) for row in experiment.run_cell(cell, context)]
        return pd.DataFrame(rows, columns=[*experiment.columns, *experiment.extra_columns(settings)])

    return measure
