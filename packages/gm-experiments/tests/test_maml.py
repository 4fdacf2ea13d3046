"""The MAML experiment end to end: its files, its refusals, plug-ins, verdicts; tests/ kills and resumes it."""

import json
import sys
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest

import gm_estimators
import gm_exact
import gm_lab
from gm_experiments.common.claims import Figures
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.settings import Cell, Grid, Tabular
from gm_experiments.maml import EXPERIMENT, Settings
from gm_experiments.maml.claims import CLAIMS, SOURCES, claims
from gm_experiments.maml.settings import further_cells

SMALL = ["--mdps", "6", "--repeats", "3", "--wandb", "disabled"]
NARROW = ["--estimators", "lvc", "ad", "--sample-sizes", "2", "8"]
LETTERS = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")


@pytest.fixture
def app(run_app):
    return partial(run_app, EXPERIMENT, *SMALL)


@pytest.fixture
def measure(rows_of):
    return partial(rows_of, EXPERIMENT, *SMALL)


def test_a_run_leaves_what_it_promises(app, tmp_path):
    status, _ = app("--run-dir", "run", *NARROW, "--mdps", "2", "--figure", "fig1", "fig4", "fig5", "fig6")
    assert status == 0
    run = tmp_path / "run"
    frame = pd.read_csv(run / "results.csv")
    assert list(frame.columns) == [
        *("figure", "algorithm", "estimator", "permutation", "sample_size", "inner_steps", "inner_lr", "mdp"),
        *("accuracy", "correlation", "variance", "std_sum", "bias_sq", "truth_sq"),
    ]
    sizes, mdps, estimators = 2, 2, 2
    expected = {"fig1": 3, "fig4": 7, "fig5": 7 * 7, "fig6": 7 * 6}
    assert frame["figure"].value_counts().to_dict() == {
        figure: count * sizes * mdps * estimators for figure, count in expected.items()
    }
    assert set(frame.loc[frame["figure"] == "fig5", "inner_steps"]) == {5}
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()
    for figure in expected:
        assert (run / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    verdicts = json.loads((run / "claims.json").read_text())
    assert [found["id"] for found in verdicts] == [f"MAML-{i}" for i in range(1, 27)]
    assert (run / "config.yaml").exists()
    assert (run / "log.txt").exists()
    assert any((run / "cells").iterdir())


def test_figures_that_show_the_same_measurement_agree(measure):
    frame = measure(*NARROW).set_index(["estimator", "permutation", "sample_size", "mdp"])
    by_figure = {name: rows.drop(columns="figure") for name, rows in frame.groupby("figure")}
    shown = by_figure["fig1"].sort_index()
    pd.testing.assert_frame_equal(shown, by_figure["fig4"].loc[shown.index].sort_index(), check_exact=True)


def test_narrowing_the_grid_changes_no_number(measure):
    wide = measure(*NARROW)
    narrow = measure("--estimators", "lvc", "--permutations", "SSE", "--sample-sizes", "2", "--figure", "fig4")
    same = wide.merge(narrow[["figure", "estimator", "permutation", "sample_size", "mdp"]])
    key = "mdp"
    pd.testing.assert_frame_equal(
        same.sort_values(key, ignore_index=True), narrow.sort_values(key, ignore_index=True), check_exact=True
    )


def test_the_squared_length_of_the_truth_stands_beside_what_is_measured(measure):
    frame = measure("--figure", "fig6", "--estimators", "lvc", "--sample-sizes", "2", "--inner-steps", "1", "3")
    for steps in (1, 3):
        mdps = RandomMDPs(Cell(0, tuple(range(6)), steps, 10.0, (("", Grid()),), Tabular(repeats=1)), "cpu")
        truth = gm_exact.maml_meta_gradient(mdps.mdp, mdps.zeros(), inner_steps=steps, inner_lr=10.0)
        expected = dict(enumerate(truth.flatten(1).square().sum(1).tolist()))
        for _, row in frame[frame["inner_steps"] == steps].iterrows():
            assert row["truth_sq"] == pytest.approx(expected[row["mdp"]], rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--figure fig9", "--figure: expected one of fig1, fig4, fig5, fig6, theory, got 'fig9'"),
        ("--estimators nobody", "--estimators: expected one of ad, dice, loaded_dice, lvc or package.module:function"),
        ("--estimators no.module:f", "--estimators: cannot import 'no.module'"),
        (
            "--permutations EEE",
            "--permutations: expected a permutation of SSS, SES, ESS, EES, SSE, SEE, ESE, got 'EEE'",
        ),
        ("--sample-sizes 0", "--sample-sizes: expected a positive integer, got 0"),
        ("--sample-sizes 2.5", "--sample-sizes: expected integers, got '2.5'"),
        ("--sample-sizes 4 4", "--sample-sizes: expected different values"),
        ("--inner-steps -1", "--inner-steps: expected a positive integer, got -1"),
        ("--inner-lrs nan", "--inner-lrs: expected finite numbers, got nan"),
        ("--inner-lrs 0", "--inner-lrs: expected a positive number, got 0"),
        ("--mdps 0", "--mdps: expected an integer of at least 1, got 0"),
        ("--repeats 1", "--repeats: expected an integer of at least 2, got 1"),
        ("--horizon 0", "--horizon: expected an integer of at least 1, got 0"),
        ("--discount 1", "--discount: expected 0 ≤ γ < 1, got 1"),
        ("--concentration 0", "--concentration: expected a positive number up to 1e300, got 0"),
        ("--critic-noise -1", "--critic-noise: expected a number of at least 0, got -1"),
        ("--device tpu9", "--device: expected cpu, or cuda where there is a GPU, got 'tpu9'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(app, arguments, message):
    status, error = app(*arguments.split())
    assert status == 2
    assert error.startswith(f"maml_tabular: {message}")
    assert error.count("\n") == 1


PLUG_INS = {
    "right": "return (t.discount[..., :-1] * t.advantage * (t.log_prob - t.log_prob.detach()).exp()).sum(-1)",
    "raises": "raise RuntimeError('no luck')",
    "shape": "return t.log_prob.sum()",
    "constant": "return t.reward.sum(-1)",
    "nan": "return (t.log_prob - t.log_prob).sqrt().sum(-1)",
}


@pytest.fixture
def plug_ins(tmp_path, monkeypatch):
    code = "\n".join(f"def {name}(t):\n    {body}\n" for name, body in PLUG_INS.items())
    (tmp_path / "my_estimators.py").write_text(code)
    monkeypatch.delitem(sys.modules, "my_estimators", raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_users_estimator_joins_the_experiment(measure, plug_ins):
    frame = measure("--estimators", "lvc", "my_estimators:right", "--sample-sizes", "2", "8")
    frame = frame.set_index(["figure", "permutation", "sample_size", "mdp"])
    mine, theirs = (frame[frame["estimator"] == name] for name in ("my_estimators:right", "lvc"))
    columns = ["accuracy", "correlation", "variance", "std_sum", "bias_sq"]
    pd.testing.assert_frame_equal(mine[columns].sort_index(), theirs[columns].sort_index(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "RuntimeError: no luck"),
        ("shape", "surrogate: expected one number per trajectory, shape (5, 3, 8), got shape ()"),
        ("constant", "surrogate: expected a differentiable function of trajectories.log_prob, got a constant"),
        ("nan", "surrogate: expected a finite gradient in trajectories.log_prob, got NaN or infinity"),
    ],
)
def test_a_faulty_estimator_is_named(app, plug_ins, name, message):
    status, error = app("--estimators", f"my_estimators:{name}", "--sample-sizes", "8")
    assert status == 2
    assert error.splitlines()[-1] == f"maml_tabular: estimator my_estimators:{name}: {message}"


# accuracies at 4 trajectories that fulfil every claim, in the order of LETTERS
FULFILS = {
    "lvc": (0.72, 0.82, 0.77, 0.87, 0.90, 0.99, 0.99),
    "loaded_dice": (0.72, 0.82, 0.77, 0.87, 0.88, 0.99, 0.94),
    "ad": (0.45, 0.60, 0.50, 0.65, 0.70, 0.985, 0.76),
    "dice": (0.05, 0.15, 0.10, 0.20, 0.25, 0.35, 0.30),
}
SPREAD = {"lvc": 1.0, "loaded_dice": 1.5, "ad": 1.0, "dice": 9.0}
BIASED = {"SEE": 0.06, "SSS": 0.2, "ESE": 0.15}
TRUTH_SQ = 4.0
GRIDS = [
    *((figure, size, 1, 10.0) for figure in ("fig1", "fig4") for size in (2, 4, 8, 16, 32, 64, 128, 256)),
    *(("fig5", 32, 5, rate) for rate in (1.0, 13.0)),
    *(("fig6", 32, steps, 10.0) for steps in (1, 6)),
]
MDPS = 160
# so many that a difference of .01 is seen, which a kind of MDP that was not drawn might hide
MANY = {"MAML-4": 640, "MAML-17": 640}


def fulfilled(estimator, permutation, size, large):
    """Accuracy, variance and squared bias / ‖g‖² at one point, as the paper has them."""
    accuracy = FULFILS[estimator][LETTERS.index(permutation)]
    if estimator == "lvc" and permutation == "SSE":
        accuracy += 0.04 * (size > 4)
    if large:
        accuracy -= {"SSE": 0.14, "SEE": 0.1}.get(permutation, 0.0)
        if estimator in ("lvc", "loaded_dice"):
            accuracy = {"ESE": 0.89, "ESS": 0.82}.get(permutation, accuracy)
        accuracy -= 0.16 * (estimator == "ad" and permutation == "ESE")
    lowers = estimator in ("lvc", "ad") and permutation == "ESE"
    variance = SPREAD[estimator] * (1 + large) * (1 + (permutation[0] == "E") * (-0.5 if lowers else 0.5))
    bias = BIASED.get(permutation, 0.0) if estimator == "ad" or permutation == "SEE" else 0.0
    return accuracy, variance, bias


def results_that_hold(mdps=MDPS):
    """results.csv as the paper has it: every claim holds with room to spare."""
    rng, parts = np.random.default_rng(0), []
    for (figure, size, steps, rate), estimator, permutation in product(GRIDS, FULFILS, LETTERS):
        accuracy, variance, bias = fulfilled(estimator, permutation, size, rate == 13.0 or steps == 6)
        where = {"figure": figure, "algorithm": "maml", "estimator": estimator, "permutation": permutation}
        where |= {"sample_size": size, "inner_steps": steps, "inner_lr": rate, "mdp": np.arange(mdps)}
        where |= {"accuracy": accuracy + 0.001 * rng.standard_normal(mdps)}
        where |= {"variance": variance * (1 + 0.01 * rng.random(mdps)), "truth_sq": TRUTH_SQ}
        parts.append(pd.DataFrame(where | {"bias_sq": TRUTH_SQ * (bias + 0.0005 * rng.standard_normal(mdps))}))
    return pd.concat(parts, ignore_index=True)


def verdict(claim, frame):
    (found,) = (entry for entry in CLAIMS if entry.id == claim)
    return found.verdict(Figures(frame, SOURCES))


def test_claims():
    found = claims(Settings(), results_that_hold(max(MANY.values())))
    assert [v.id for v in found] == [f"MAML-{i}" for i in range(1, 27)]
    assert {v.id: v.measured for v in found if v.verdict != "supported"} == {}


# claim ↦ rows to spoil, the column, and by how much
SPOILT = {
    "MAML-1": ("estimator == 'lvc' and permutation == 'ESE' and sample_size == 8", "accuracy", -0.3),
    "MAML-2": ("estimator == 'lvc' and permutation == 'SSE' and sample_size == 256", "accuracy", -0.3),
    "MAML-3": ("estimator == 'ad' and permutation == 'ESE' and sample_size == 64", "accuracy", 0.4),
    "MAML-4": ("estimator == 'ad' and permutation == 'SSE' and sample_size == 256", "accuracy", 0.2),
    "MAML-5": ("estimator == 'loaded_dice' and permutation == 'SES' and sample_size == 32", "accuracy", 0.5),
    "MAML-6": ("estimator == 'lvc' and permutation == 'SSS' and sample_size == 32", "accuracy", 0.15),
    "MAML-7": ("estimator == 'dice' and permutation == 'EES' and sample_size == 4", "accuracy", 0.9),
    "MAML-8": ("estimator == 'lvc' and permutation == 'SSS' and sample_size == 256", "variance", 5.0),
    "MAML-9": ("estimator == 'ad' and permutation == 'SSS' and sample_size == 128", "accuracy", 0.6),
    "MAML-10": ("estimator == 'loaded_dice' and permutation == 'ESE' and sample_size == 32", "accuracy", 0.2),
    "MAML-11": ("estimator == 'dice' and permutation == 'SSE' and inner_steps == 6", "accuracy", 0.5),
    "MAML-12": ("estimator == 'ad' and permutation == 'ESS' and inner_lr == 13", "accuracy", 0.9),
    "MAML-13": ("estimator == 'lvc' and permutation == 'ESE' and sample_size == 4", "variance", 3.0),
    "MAML-14": ("estimator == 'dice' and permutation == 'SSS' and sample_size == 32", "accuracy", 0.3),
    "MAML-15": ("estimator == 'ad' and permutation == 'ESE' and sample_size == 256", "accuracy", -0.3),
    "MAML-16": ("estimator == 'ad' and permutation == 'SSE' and sample_size == 2", "accuracy", 0.5),
    "MAML-17": ("estimator == 'lvc' and permutation == 'ESE' and sample_size == 256", "bias_sq", 0.5),
    "MAML-18": ("estimator == 'lvc' and permutation == 'EES' and sample_size == 4", "variance", 50.0),
    "MAML-19": ("estimator == 'loaded_dice' and permutation == 'SSE' and inner_steps == 6", "accuracy", 0.5),
    "MAML-20": ("estimator == 'ad' and permutation == 'ESE' and inner_lr == 13", "accuracy", 0.5),
    "MAML-21": ("estimator == 'dice' and permutation == 'SEE' and inner_steps == 6", "accuracy", 0.5),
    "MAML-22": ("estimator == 'ad' and permutation == 'SSE' and inner_steps == 6", "variance", -1.5),
    "MAML-23": ("estimator == 'lvc' and permutation == 'SSS' and inner_lr == 13", "variance", 5.0),
    "MAML-24": ("estimator == 'loaded_dice' and permutation == 'SSE' and inner_steps == 6", "variance", 10.0),
    "MAML-25": ("estimator == 'ad' and permutation == 'ESE' and inner_lr == 13", "variance", 5.0),
    "MAML-26": ("estimator == 'ad' and permutation == 'ESE' and sample_size == 256", "bias_sq", -1.2),
}


@pytest.fixture(scope="module")
def holding():
    return results_that_hold()


@pytest.mark.parametrize("claim", SPOILT)
def test_a_claim_that_does_not_hold_is_reported(claim, holding):
    frame = holding.copy()
    where, column, change = SPOILT[claim]
    frame.loc[frame.eval(where), column] += change
    assert verdict(claim, frame).verdict == "contradicted"


def test_ten_mdps_do_not_decide_what_a_kind_that_was_not_drawn_might_reverse(holding):
    assert verdict("MAML-1", holding[holding["mdp"] < 10]).verdict == "undecided"


def test_a_claim_without_its_rows_is_not_decided(holding):
    frame = holding[holding["figure"] == "fig1"]
    assert verdict("MAML-1", frame).verdict == "supported"
    found = verdict("MAML-11", frame)
    assert (found.verdict, found.measured) == ("not measured", "none of it was measured")


def test_a_claim_is_about_the_papers_points(holding):
    """What `--inner-steps 1` measures in Figure 5 decides nothing about it, and what flags add changes nothing."""
    frame = holding[holding["figure"] == "fig5"]
    assert verdict("MAML-12", frame).counts == {"supported": 6, "not measured": 6}
    elsewhere = frame.assign(inner_steps=1, accuracy=0.0)
    assert verdict("MAML-12", elsewhere).verdict == "not measured"
    assert verdict("MAML-12", pd.concat([frame, elsewhere])).measured == verdict("MAML-12", frame).measured


def test_labels_name_what_is_compared(holding):
    for claim, quantity in {"MAML-1": "accuracy", "MAML-13": "variance", "MAML-26": "squared bias"}.items():
        found = verdict(claim, holding)
        assert {item.comparison.label.partition(" of ")[0] for item in found.comparisons} == {quantity}


@pytest.mark.parametrize("claim", ["MAML-2", "MAML-5", "MAML-13", "MAML-26"])
def test_a_side_that_another_claim_drew_further_changes_nothing(claim, holding):
    """The first 80 MDPs of all, and of AD and of SSE with LVC all of them, as --until-decided may leave them."""
    few = holding[holding["mdp"] < 80]
    further = holding["estimator"].eq("ad") | (holding["estimator"].eq("lvc") & holding["permutation"].eq("SSE"))
    alone, both = (verdict(claim, frame) for frame in (few, holding[(holding["mdp"] < 80) | further]))
    assert both.verdict == alone.verdict
    assert "not measured" not in both.counts


def test_a_claim_asks_for_no_more_than_its_points(holding):
    found = verdict("MAML-20", holding)
    assert {(figure, name, permutation) for figure, name, permutation, _ in found.needs} == {
        ("fig5", "ad", "ESE"),
        ("fig6", "ad", "ESE"),
    }
    points = {tuple(dict(where).values()) for *_, where in found.needs}
    assert points == {(32, 1, 10.0), (32, 6, 10.0), (32, 5, 1.0), (32, 5, 13.0)}


def test_the_critic_goes_to_whom_the_flag_says(measure):
    """The critic is an option: taking it away must change the numbers of those that had it, and of no one else."""
    only = ["--estimators", "dice", "lvc", "--permutations", "SSE", "--sample-sizes", "8", "--figure", "fig4"]
    frames = {c: measure("--critic", c, *only).set_index("estimator") for c in ("paper", "none", "all")}
    variance = {critic: frame["variance"].groupby("estimator").mean() for critic, frame in frames.items()}
    assert variance["paper"]["dice"] == variance["none"]["dice"]
    assert variance["paper"]["lvc"] == variance["all"]["lvc"]
    assert variance["none"]["lvc"] > 2 * variance["paper"]["lvc"]
    assert variance["all"]["dice"] != variance["paper"]["dice"]


def test_the_help_lists_the_catalogue(capsys):
    with pytest.raises(SystemExit):
        gm_lab.main(EXPERIMENT, ["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        f"{', '.join(gm_estimators.estimator.CATALOGUE)}, tmaml, loaded_dice@λ, loaded_dice@λ,τ, or your own" in shown
    )


def test_more_mdps_go_on_from_fewer_with_the_same_bytes(app, tmp_path):
    flags = ["--figure", "fig1", "--repeats", "2", "--sample-sizes", "2", "4"]
    for folder, mdps in (("run", 4), ("run", 12), ("at-once", 12)):
        assert app(*flags, "--mdps", mdps, "--run-dir", folder)[0] == 0
    for name in ("results.csv", "claims.json", "summary.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "at-once" / name).read_bytes()


def test_open_claims_get_more_mdps_at_the_points_that_they_need():
    settings = Settings(figure=("fig4", "fig6"), until_decided=True)
    at_four = ("fig4", "lvc", "SSE", (("sample_size", 4),))
    many_steps = ("fig6", "ad", "ESE", (("inner_steps", 6),))
    found = further_cells(settings, range(10, 22), frozenset({at_four, many_steps}))
    assert [(cell.inner_steps, cell.mdps) for cell in found] == [
        (steps, mdps) for steps in (1, 6) for mdps in (tuple(range(10, 15)), tuple(range(15, 20)), (20, 21))
    ]  # fmt: skip
    by_steps = {cell.inner_steps: dict(cell.grids) for cell in found}
    assert by_steps[1].keys() == {"fig4"}
    assert by_steps[1]["fig4"].sample_sizes == (4,)
    assert (by_steps[6]["fig6"].estimators, by_steps[6]["fig6"].permutations) == (("ad",), ("ESE",))
    assert further_cells(settings, range(10, 22), frozenset()) == []
