"""What the tabular experiments share: light settings, names that agree with the packages', and looking values up."""

import subprocess
import sys
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_series_equal

import gm_estimators
import gm_lab
from gm_estimators.attribution import ESTIMATED
from gm_experiments.attribution import sources
from gm_experiments.common import settings
from gm_experiments.common.checks import prepare
from gm_experiments.common.claims import Claim, Evidence
from gm_lab.run import parse

EXPERIMENTS = ("attribution", "explore", "frontier", "lirpg", "maml")


def test_names_that_settings_write_out_are_those_of_the_packages():
    assert tuple(gm_estimators.estimator.CATALOGUE) == settings.ESTIMATORS
    assert settings.PERMUTATIONS == gm_estimators.PERMUTATIONS
    assert sources.SOURCES[:3] == ESTIMATED


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_imports_nothing_heavy(name):
    code = f"""
import sys, gm_lab
before = set(sys.modules)
from gm_experiments.{name} import EXPERIMENT
try:
    gm_lab.main(EXPERIMENT, ["--help"])
except SystemExit:
    heavy = {{"torch", "numpy", "pandas", "matplotlib", "scipy"}} & (set(sys.modules) - before)
    sys.exit(f"imported {{sorted(heavy)}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_device_that_was_asked_for_is_in_the_context_and_nowhere_else(tmp_path, monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *size, device="cpu": empty(*size))
    context = prepare(gm_lab.RunSettings(run_dir=tmp_path, device="cuda:1"))
    assert context == gm_lab.Context(tmp_path, "cuda:1")
    assert torch.zeros(1).device.type == "cpu"
    assert prepare(gm_lab.RunSettings()).device == "cpu"
    with pytest.raises(gm_lab.BadInput, match="--device: expected cpu, or cuda where there is a GPU, got 'cuda:2'"):
        prepare(gm_lab.RunSettings(device="cuda:2"))


@pytest.fixture
def frame():
    """Two figures that have some rows in common, over sizes and steps, with an MDP that is not always measured."""
    rng = np.random.default_rng(0)
    rows = [
        {"estimator": name, "permutation": letters, "sample_size": size, "inner_steps": steps, "mdp": mdp}
        | {"accuracy": rng.random(), "variance": rng.random()}
        for name in ("lvc", "ad")
        for letters in ("SSE", "SEE")
        for size in (2, 8)
        for steps in (1, 2, 3)
        for mdp in (3, 1, 10)
        if (size, mdp) != (8, 10)
    ]
    return pd.DataFrame([{"figure": figure} | row for figure in ("fig1", "fig4") for row in rows])


@pytest.mark.parametrize("axes", [("sample_size",), ("inner_steps",), ("sample_size", "inner_steps")])
def test_evidence_is_what_a_search_of_the_frame_finds(frame, axes):
    rows = frame[frame["figure"] == "fig1"]
    for figures in (("fig1",), ("fig1", "fig4")):
        evidence = Evidence(frame, figures, axes)
        for name, letters in (("lvc", "SSE"), ("ad", "SEE"), ("dice", "SSE"), ("ad", "SSS")):
            for point in rows[list(axes)].drop_duplicates().itertuples(index=False):
                where = {"estimator": name, "permutation": letters} | point._asdict()
                for metric in ("accuracy", "variance"):
                    expected = gm_lab.per_unit(rows, metric, "mdp", **where)
                    values = evidence(name, letters, *point, metric=metric)
                    assert_series_equal(values, expected, check_names=False, check_exact=True, check_index_type=False)
    assert len(evidence("lvc", "SSE", *(99 for _ in axes))) == 0
    assert evidence.points(axes[0]) == sorted(rows[axes[0]].unique())
    assert Evidence(frame, ("fig9",), axes).points(axes[0]) == []


def test_a_claim_is_supported_if_all_its_parts_are_and_says_what_it_asked_for():
    class Asked:
        asked = {"something of the claim before"}  # noqa: RUF012

    def part(*outcomes):
        def compared(evidence):
            evidence.asked.add(len(outcomes))
            return [gm_lab.check(f"x {i}", holds, "") for i, holds in enumerate(outcomes)]

        return compared

    def verdict(*parts):
        return Claim("A", "a", parts).verdict(Asked())

    assert verdict(part(True), part(True, True)).verdict == "supported"
    assert verdict(part(True), part(True, False)).verdict == "contradicted"
    assert verdict(part(True), part(None)).verdict == "undecided"
    assert verdict(part(True), part(True, True)).needs == {1, 2}
    assert verdict(part(False)).measured.startswith("0 supported, 1 contradicted, 0 undecided; x 0: contradicted")


@pytest.mark.parametrize(
    ("app", "flags", "meant"),
    [
        ("maml", ["--device", "cud"], "cuda"),
        ("maml", ["--device", "CPU"], "cpu"),
        ("frontier", ["--debias", "jacknife"], "jackknife"),
    ],
)
def test_what_may_have_been_meant_is_asked(app, flags, meant):
    experiment = import_module(f"gm_experiments.{app}").EXPERIMENT
    with pytest.raises(gm_lab.BadInput, match=rf"^{flags[0]}: .*, got '{flags[1]}' \(did you mean {meant}\?\)$"):
        list(experiment.cells(parse(experiment.settings, app, flags)))
