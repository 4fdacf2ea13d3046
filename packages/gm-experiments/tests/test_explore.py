"""The explorer: its page and data are of results.csv, and its command computes the same numbers."""

import json
import shlex

import pytest

import gm_lab
from gm_experiments import maml
from gm_experiments.explore import EXPERIMENT, Settings, page, points
from gm_lab.analysis import mean_interval, read_results

SMALL = ["--mdps", "3", "--repeats", "3", "--states", "4", "--actions", "2", "--horizon", "4"]
GRID = ["--inner-lrs", "1", "10", "--inner-steps", "1", "2", "--sample-sizes", "2", "4"]
QUIET = ["--wandb", "disabled", "--workers", "1"]


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    path = tmp_path_factory.mktemp("explored") / "run"
    assert gm_lab.main(EXPERIMENT, [*SMALL, *GRID, *QUIET, "--run-dir", str(path)]) == 0
    return path


def data_of(path):
    return json.loads((path / "explorer.json").read_text())


def mean_at(data, metric, *place):
    """The value at a place of (α, K, trajectories, permutation, estimator)."""
    index = 0
    for axis, value in zip(data["axes"], place, strict=True):
        index = index * len(data["axes"][axis]) + data["axes"][axis].index(value)
    return data["values"][metric][index]


def test_the_end_names_the_page_and_the_page_has_its_data(explored, capsys):
    assert gm_lab.main(EXPERIMENT, [*SMALL, *GRID, *QUIET, "--run-dir", str(explored)]) == 0
    assert f"page: {explored / 'explorer.html'}" in capsys.readouterr().out
    html = (explored / "explorer.html").read_text()
    assert f'id="data">{(explored / "explorer.json").read_text()}</script>' in html
    assert html == page.rendered(data_of(explored))
    assert (explored / "claims.json").read_text() == "[]\n"


def test_values_are_means_over_mdps_of_results_with_their_intervals(explored):
    frame, data = read_results(explored / "results.csv"), data_of(explored)
    place = (10.0, 2, 4, "SEE", "dice")
    columns = ("inner_lr", "inner_steps", "sample_size", "permutation", "estimator")
    rows = frame[(frame[list(columns)] == list(place)).all(axis=1)]
    assert len(rows) == 3
    expected = {
        "accuracy": rows["accuracy"],
        "bias": rows["bias_sq"] / rows["truth_sq"],
        "deviation": (rows["variance"] / rows["truth_sq"]) ** 0.5,
        "error": (rows["bias_sq"] + rows["variance"]) / rows["truth_sq"],
    }
    assert set(expected) == set(data["values"]) == set(data["metrics"])
    for metric, values in expected.items():
        interval = mean_interval(values)
        found = mean_at(data, metric, *place)
        assert found == pytest.approx([interval.mean, interval.low, interval.high], rel=5e-3)
    assert len(data["values"]["accuracy"]) == len(frame) / 3


def test_the_flags_are_those_that_differ_from_the_paper(explored):
    assert data_of(explored)["flags"] == "--repeats 3 --states 4 --actions 2 --horizon 4 --mdps 3"
    assert points.flags(Settings()) == ""
    assert points.flags(Settings(seed=3)) == "--seed 3"


def test_the_command_of_a_point_computes_the_same_numbers(explored, tmp_path):
    data = data_of(explored)
    point = "--figure fig4 --inner-lrs 10 --inner-steps 2 --sample-sizes 2 --permutations SSE --estimators lvc ad"
    flags = [*shlex.split(f"{point} {data['flags']}"), *QUIET, "--run-dir", str(tmp_path / "maml")]
    assert gm_lab.main(maml.EXPERIMENT, flags) == 0
    frame = read_results(tmp_path / "maml" / "results.csv")
    for name in ("lvc", "ad"):
        mean = frame[frame["estimator"] == name]["accuracy"].mean()
        assert mean_at(data, "accuracy", 10.0, 2, 2, "SSE", name)[0] == pytest.approx(mean, rel=5e-3)


def test_a_users_own_estimator_keeps_its_name_and_has_looks_of_its_own(tmp_path):
    own = ["--estimators", "lvc", "loaded_dice@0.5", "--permutations", "SSE"]
    assert gm_lab.main(EXPERIMENT, [*SMALL, *GRID, *own, *QUIET, "--run-dir", str(tmp_path / "run")]) == 0
    data = data_of(tmp_path / "run")
    assert data["axes"]["estimator"] == ["lvc", "loaded_dice@0.5"]
    assert data["axes"]["permutation"] == ["SSE"]
    labels = [look["label"] for look in data["looks"].values()]
    assert labels == ["LVC", "loaded_dice@0.5"]
    assert data["looks"]["lvc"] != data["looks"]["loaded_dice@0.5"] | {"label": "LVC"}
