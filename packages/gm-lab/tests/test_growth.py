"""A run goes on with more units: when it is asked for more, and until its claims are decided."""

import dataclasses
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from gm_lab.analysis.tables import read_results
from gm_lab.growth import budget

ENDS = ("results.csv", "claims.json", "summary.csv", "figures/toy.png")
LOOKS = ("--mdps", 10, "--until-decided")


def contents(path):
    return {name: (path / name).read_bytes() for name in ENDS}


def cells(path):
    return {file.name: file.stat().st_mtime_ns for file in (path / "cells").glob("*.json")}


@pytest.fixture(scope="module")
def grown(run_once, tmp_path_factory):
    """A run until its claim is decided that nothing disturbs, and what it said."""
    path = tmp_path_factory.mktemp("grown") / "run"
    status, _, err = run_once("--run-dir", path, *LOOKS, "--workers", 1)
    assert status == 0
    return path, err


def test_more_units_go_on_from_fewer_and_end_with_the_same_bytes(main, tmp_path):
    path = tmp_path / "run"
    assert main("--mdps", 10)[0] == 0
    before = cells(path)
    assert main("--mdps", 20)[0] == 0
    assert {name: when for name, when in cells(path).items() if name in before} == before
    assert yaml.safe_load((path / "config.yaml").read_text())["settings"]["mdps"] == 20
    assert main("--mdps", 20, "--run-dir", tmp_path / "at once")[0] == 0
    assert contents(path) == contents(tmp_path / "at once")


def test_fewer_units_and_other_settings_are_refused(main, tmp_path):
    assert main("--mdps", 3)[0] == 0
    held = f"toy: --run-dir: {tmp_path / 'run'} holds a run of other settings: "
    assert main("--mdps", 2) == (2, f"{held}mdps is 3 there, but 2 was asked for\n")
    assert main("--mdps", 4, "--scale", 2) == (2, f"{held}scale is 1.0 there, but 2.0 was asked for\n")
    assert main(*LOOKS)[0] == 0
    assert main("--mdps", 10) == (2, f"{held}until_decided is True there, but False was asked for\n")


def test_a_run_of_an_older_version_goes_on(main, tmp_path):
    assert main()[0] == 0
    file = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    del config["settings"]["until_decided"], config["settings"]["most_mdps"]
    file.write_text(yaml.safe_dump(config))
    assert main()[0] == 0


def test_units_are_drawn_for_the_open_claim_until_it_is_decided(grown):
    path, err = grown
    (claim,) = json.loads((path / "claims.json").read_text())
    assert claim["verdict"] in ("supported", "contradicted")
    assert claim["budget"] == "judged until they are decided, with up to 160 MDPs"
    counts = read_results(path / "results.csv").groupby("estimator")["mdp"].nunique().to_dict()
    assert counts == {"ad": claim["units"], "lvc": claim["units"], "mine": 10}
    assert claim["units"] in (20, 40, 80)
    lines = [json.loads(line) for line in (path / "sessions.jsonl").read_text().splitlines()]
    (computed,) = [line for line in lines if line["event"] == "computed"]
    assert computed["computed"] == computed["cells"] == len(cells(path))
    told = [line for line in err.splitlines() if "decided" in line]
    assert re.fullmatch(
        r"toy: 10 MDPs: 0 of 1 claims decided; open: TOY-1; 20 MDPs in about .*, 160 in at most .*", told[0]
    )
    assert told[-1] == f"toy: {claim['units']} MDPs: 1 of 1 claims decided"


@pytest.mark.parametrize("how", [("--workers", 3), ("--workers", 2, "--launcher", "threads")], ids=str)
def test_however_it_is_computed_it_ends_with_the_same_bytes(run, grown, tmp_path, how):
    status, _, err = run("--run-dir", tmp_path / "run", *LOOKS, *how)
    assert status == 0, err
    assert contents(tmp_path / "run") == contents(grown[0])


@pytest.mark.parametrize(
    ("number", "place"),
    [(signal.SIGKILL, 0), (signal.SIGKILL, 10), (signal.SIGKILL, 19), (signal.SIGTERM, 10), (signal.SIGINT, 19)],
)
def test_stopped_at_any_look_it_ends_with_the_same_bytes(start, run, until, grown, tmp_path, number, place):
    path = tmp_path / "run"
    held = {"TOY_TRACE": tmp_path, "TOY_HELD": "lvc", "TOY_UNTIL": tmp_path / "go"}
    program = start("--run-dir", path, *LOOKS, "--workers", 2, **(held if place == 0 else held | {"TOY_SLEEP": "0.02"}))
    if place:
        Path(tmp_path / "go").touch()
    until(lambda: (tmp_path / f"begun lvc {place}").exists())
    os.killpg(program.process.pid, number)
    Path(tmp_path / "go").touch()
    program.end()
    until(lambda: not program.members())
    status, _, err = run("--run-dir", path, *LOOKS, "--workers", 2)
    assert status == 0, err
    assert contents(path) == contents(grown[0])


def test_it_ends_with_the_last_look_at_no_more_units_than_there_may_be(main, tmp_path):
    status, err = main("--mdps", 2, "--until-decided", "--most-mdps", 5)
    assert status == 0
    assert "toy: 2 MDPs: 0 of 1 claims decided; open: TOY-1" in err
    (claim,) = json.loads((tmp_path / "run" / "claims.json").read_text())
    assert (claim["verdict"], claim["units"]) == ("undecided", 2)
    assert main("--mdps", 2, "--until-decided", "--most-mdps", 12)[0] == 0
    (claim,) = json.loads((tmp_path / "run" / "claims.json").read_text())
    assert (claim["verdict"], claim["units"]) == ("undecided", 10)


def test_less_than_the_papers_budget_is_said_above_the_verdicts(run, tmp_path):
    _, out, _ = run("--run-dir", tmp_path / "run", "--mdps", 2)
    assert "Claims at less than the paper's budget: --mdps 2 (4)" in out
    assert "undecided at the paper's budget" not in " ".join(out.split())
    _, out, _ = run("--run-dir", tmp_path / "run", "--mdps", 4)
    assert "Claims at the paper's budget: 4 MDPs" in out
    assert "undecided at the" in out.split("TOY-1")[1]


def test_a_finished_run_that_grew_is_only_reported_again(main, grown, tmp_path):
    path = shutil.copytree(grown[0], tmp_path / "run")
    before = contents(path), cells(path)
    assert main("--run-dir", path, *LOOKS)[0] == 0
    assert (contents(path), cells(path)) == before


def test_a_budget_need_not_count_the_units(toy):
    """Neither does it need to have a unit."""
    settings = toy.EXPERIMENT.settings()
    others = dataclasses.replace(toy.EXPERIMENT, budget=("scale",))
    assert budget(others, settings) == ("at the paper's budget: 4 MDPs", True)
    assert budget(dataclasses.replace(others, unit=""), settings) == ("", True)
