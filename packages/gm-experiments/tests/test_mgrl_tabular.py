"""The experiment on exact MGRL end to end: files, refusals, more MDPs, a user's estimator, verdicts and pictures."""

import importlib.util
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gm_experiments.mgrl_tabular import EXPERIMENT, claims, findings, sources
from gm_experiments.mgrl_tabular.settings import ALL, CORRECTED, META_PARAMS, Settings, cells, completed, further_cells
from gm_lab import finding_of

SPEC = importlib.util.spec_from_file_location("picture_faults", Path(__file__).with_name("picture_faults.py"))
picture_faults = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(picture_faults)

TINY = "--states 4 --actions 2 --horizon 4 --repeats 2 --sample-sizes 4 --inner-steps 1 2 --points 0 2 --windows 2"
SMALL = [*TINY.split(), "--wandb", "disabled"]


@pytest.fixture
def app(run_app):
    return partial(run_app, EXPERIMENT, *SMALL)


@pytest.fixture
def small(rows_of):
    return partial(rows_of, EXPERIMENT, *SMALL)


def test_a_run_leaves_what_it_promises(app, tmp_path):
    status, error = app("--run-dir", "run", "--mdps", 2)
    assert status == 0, error
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    counts = frame["figure"].value_counts().to_dict()
    each = len(META_PARAMS) + 1
    assert counts["steps"] == 2 * 2 * 4 * (1 + 2) * each * 2  # points, K, estimators, ESE and SSS own and shared
    assert counts["sources"] == 2 * 2 * len(sources.ALL) * each * 2
    assert counts["schedules"] == 2 * 2 * 4 * 2 * 2  # schedules, batches, estimators, windows
    assert np.isfinite(frame["truth"]).all()
    for figure in ("bias", "meta_parameters", "sampled", "sources", "schedules"):
        assert (tmp_path / "run" / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    verdicts = json.loads((tmp_path / "run" / "claims.json").read_text())
    assert [verdict["id"] for verdict in verdicts] == [f"MT-{i}" for i in range(1, 7)]


def test_more_mdps_go_on_from_fewer_and_a_cut_run_ends_with_the_same_bytes(app, small, tmp_path):
    flags = ["--estimators", "lvc", "--figure", "schedules", "--schedule", "online"]
    fewer, more = (small(*flags, "--mdps", mdps) for mdps in (5, 7))
    pd.testing.assert_frame_equal(fewer, more[more["mdp"] < 5].reset_index(drop=True), check_exact=True)
    assert app(*flags, "--run-dir", "run", "--mdps", 7)[0] == 0
    before = (tmp_path / "run" / "results.csv").read_bytes()
    cut = max((tmp_path / "run" / "cells").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    cut.unlink()
    assert app(*flags, "--run-dir", "run", "--mdps", 7)[0] == 0
    assert cut.exists()
    assert (tmp_path / "run" / "results.csv").read_bytes() == before


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    body = "return (t.discount[..., :-1] * t.advantage * (t.log_prob - t.log_prob.detach()).exp()).sum(-1)"
    (tmp_path / "my_mgrl.py").write_text(f"def right(t):\n    {body}\n\ndef wrong(t):\n    return t.log_prob\n")
    monkeypatch.delitem(sys.modules, "my_mgrl", raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_users_estimator_joins_and_has_no_exact_bias(small, plug_in):
    frame = small("--mdps", 2, "--figure", "steps", "schedules", "--estimators", "lvc", "my_mgrl:right")
    named = {name: of.reset_index(drop=True) for name, of in frame.groupby("estimator")}
    columns = ["accuracy", "variance", "std_sum", "bias_sq", "relative_bias", "truth", "value"]
    pd.testing.assert_frame_equal(named["lvc"][columns], named["my_mgrl:right"][columns], rtol=1e-9, atol=1e-12)
    assert named["my_mgrl:right"]["expected_bias_sq"].isna().all()
    whole = frame[(frame["figure"] == "steps") & (frame["meta_param"] == ALL) & (frame["permutation"] == "ESE")]
    lengths = findings.relative(whole)["bias"]
    assert lengths.notna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--figure fig1", "--figure: expected one of steps, sources, schedules, got 'fig1'"),
        ("--gamma 1", "--gamma: expected a number above 0 and below 1, got 1.0"),
        ("--inner-lr 0", "--inner-lr: expected a number above 0 and up to 1e30, got 0.0"),
        ("--repeats 1", "--repeats: expected an integer of at least 2, got 1"),
        ("--inner-steps 0 1", "--inner-steps: expected integers of at least 1, got (0, 1)"),
        ("--points 3 3", "--points: expected different values, got [3, 3]"),
        ("--points -1", "--points: expected integers of at least 0, got (-1,)"),
        ("--permutations EEE", "--permutations: expected a permutation of SSS, SES"),
        ("--estimators dice", "--estimators: expected an estimator that reads advantages, such as ad"),
        ("--estimators lvc+jackknife", "--estimators: expected an estimator without +jackknife"),
        ("--estimators none", "--estimators: expected one of ad,"),
        ("--estimators my_mgrl:wrong --figure steps", "estimator my_mgrl:wrong: surrogate: expected one number"),
        ("--inner-lr 1e30 --figure sources", "MDP 0 after 0 updates: expected an exact meta-gradient that is finite"),
    ],
)
def test_bad_input_is_one_line_and_status_2(app, plug_in, arguments, message):
    status, error = app(*arguments.split())
    assert status == 2
    assert error.splitlines()[-1].startswith(f"mgrl_tabular: {message}")


def test_at_k_1_all_have_the_truth_for_mean_and_one_variance(small):
    frame = small("--mdps", 2, "--figure", "steps", "--inner-steps", 1)
    exact = frame[frame["permutation"] == "ESE"]
    assert (exact["expected_bias_sq"] < 1e-20).all()
    spread = exact.pivot_table(index=["updates", "meta_param", "mdp"], columns="estimator", values="variance")
    np.testing.assert_allclose(spread.max(axis=1), spread.min(axis=1), rtol=1e-9)


def test_schedules_go_on_from_the_first_or_the_last_update_and_share_batches_or_not(small):
    """All four begin alike; discard is behind online afterwards, and what reads a batch again differs."""
    frame = small("--mdps", 2, "--figure", "schedules", "--estimators", "ad", "--window", 3, "--windows", 3)
    table = frame.pivot_table(index=["schedule", "batches"], columns="updates", values="value")
    assert table[0].nunique() == 1
    moved = (table[2] - table[0]).abs()
    assert moved["online"].min() > 1.5 * moved["discard"].max()
    at = frame.set_index(["schedule", "batches", "updates", "mdp"])["accuracy"]
    assert not np.allclose(at["online", "own"], at["online", "shared"])
    np.testing.assert_array_equal(at["online", "shared", 0], at["discard", "shared", 0])


def results_that_hold():
    """Exact biases where every claim holds with room to spare."""
    rng, rows = np.random.default_rng(0), []
    for mdp, point, steps in ((m, p, k) for m in range(20) for p in (0, 20) for k in (1, 2, 4)):
        for name, size in {"ad": 0.3, "lvc": 0.03, "loaded_dice": 0.0, CORRECTED: 0.0}.items():
            here = {"figure": "sources", "estimator": name, "updates": point, "inner_steps": steps, "mdp": mdp}
            bias = size * (steps - 1) * (1 + 0.1 * rng.random())
            rows.append(here | {"meta_param": ALL, "truth": 2.0, "expected_bias_sq": (2 * bias) ** 2})
            for meta_param in META_PARAMS:
                error = (1.0 if meta_param == "value_coef" else 0.1) * (steps > 1)
                own = {"truth": 1.0, "expected_bias_sq": error**2, "expected_error": error}
                rows.append(here | {"meta_param": meta_param} | own)
    return pd.DataFrame([completed(row) for row in rows])


def verdicts(frame):
    return {verdict.id: verdict for verdict in claims.claims(Settings(), frame)}


@pytest.mark.claim("MT-1", "MT-2", "MT-3", "MT-4", "MT-5", "MT-6")
def test_claims():
    found = verdicts(results_that_hold())
    assert {name: v.measured for name, v in found.items() if v.verdict != "supported"} == {}


# claim ↦ rows to spoil, the column, and what becomes of it
SPOILT = {
    "MT-1": ("estimator == 'lvc' and inner_steps == 1", "expected_bias_sq", 1e-6),
    "MT-2": ("estimator == 'lvc' and inner_steps == 4 and updates == 0", "expected_bias_sq", 1e4),
    "MT-3": ("estimator == 'lvc' and inner_steps == 2 and updates == 20", "expected_bias_sq", 1e4),
    "MT-4": ("estimator == 'ad' and inner_steps == 4", "expected_bias_sq", 1e-6),
    "MT-5": ("estimator == 'loaded_dice' and inner_steps == 2", "expected_bias_sq", 1e-3),
    "MT-6": ("meta_param == 'gamma'", "expected_error", 2.0),
}


@pytest.mark.parametrize("claim", SPOILT)
def test_a_claim_that_does_not_hold_is_reported(claim):
    frame = results_that_hold()
    where, column, value = SPOILT[claim]
    frame.loc[frame.eval(where), column] = value
    found = verdicts(frame)
    assert found[claim].verdict == "contradicted"


def test_a_claim_without_its_rows_is_not_decided():
    frame = results_that_hold()
    assert {v.verdict for v in verdicts(frame[frame["inner_steps"] == 99]).values()} == {"not measured"}
    found = verdicts(frame[frame["updates"] == 0])
    assert found["MT-3"].verdict == "not measured"
    assert found["MT-2"].verdict == "supported"


def test_open_claims_get_more_mdps_of_what_is_exact():
    settings = Settings(mdps=10)
    more = further_cells(settings, range(10, 20), frozenset({"sources"}))
    assert {cell.figure for cell in more} == {"sources"}
    assert sorted({mdp for cell in more for mdp in cell.mdps}) == list(range(10, 20))
    (whole,) = (cell for cell in cells(Settings(mdps=20, inner_steps=(2,))) if cell.figure == "sources")
    assert replace(whole, mdps=tuple(range(10, 20))) in more


def faults(pictures):
    return {name: found for name, figure in pictures.items() if (found := picture_faults.faults(figure))}


def test_pictures_have_no_fault(small, plug_in):
    rows = small("--mdps", 2, "--estimators", "my_mgrl:right", "lvc", CORRECTED, "--inner-steps", 2)
    assert faults(EXPERIMENT.figures(Settings(), rows)) == {}


def exact_rows(biases):
    """Rows at K = 2 and one point, with what the bias of each name is, alike in four MDPs but for a little."""
    rows = [
        {"estimator": name, "updates": 0, "inner_steps": 2, "mdp": mdp, "meta_param": ALL, "truth": 1.0,
         "expected_bias_sq": (bias + 0.001 * mdp) ** 2, "bias_sq": 0.0, "variance": 1.0}
        for name, bias in biases.items() for mdp in range(4)
    ]  # fmt: skip
    return pd.DataFrame([completed(row) for row in rows])


def test_titles_say_what_is_told_apart_and_no_more():
    told = findings.bias(exact_rows({"ad": 0.4, "lvc": 0.1}))
    assert told == "K = 2: at the start AD has the largest bias (0.40), then LVC (0.10)"
    assert "are not told apart in bias" in findings.bias(exact_rows({"ad": 0.1, "lvc": 0.1}))
    assert findings.bias(exact_rows({CORRECTED: 0.0})) == "K = 2: at the start no estimator is biased"
    found = findings.source(exact_rows({"values": 0.2, "critic": 0.1}))
    assert found.startswith(
        "What leaves most bias if left out, K = 2: at the start V in advantages and targets, 0.20 ["
    )
    assert findings.source(exact_rows({"values": 0.1, "critic": 0.1})).endswith("is told apart as the largest")


def test_a_run_of_one_mdp_claims_nothing(small):
    rows = small("--mdps", 1, "--inner-steps", 2, "--figure", "sources", "schedules")
    pictures = EXPERIMENT.figures(Settings(), rows[rows["figure"] == "sources"])
    assert set(pictures) == {"bias", "meta_parameters", "sources"}
    assert "not told apart" in finding_of(pictures["bias"])
    assert "no source of bias is told apart" in finding_of(pictures["sources"])
    assert findings.schedules(rows[rows["figure"] == "schedules"]).count("none that is told from nothing") == 2
    assert faults(pictures) == {}
