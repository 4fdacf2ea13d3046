"""The MAML experiment with `--figure theory` end to end, and that what it sets beside each other is what it says."""

import json
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

import gm_exact
import gm_lab
from gm_estimators import decompose, load
from gm_experiments.common.labels import ESTIMATORS
from gm_experiments.common.mdps import RandomMDPs
from gm_experiments.common.settings import Cell, Tabular
from gm_experiments.maml import EXPERIMENT, Settings
from gm_experiments.maml.problem import maml
from gm_experiments.theory.claims import claims
from gm_experiments.theory.figures import figures
from gm_experiments.theory.run import Point, _composition, _injected, hessian_errors, sampled_path
from gm_experiments.theory.settings import BOUNDS, COLUMNS, GRIDS, HESSIAN_ERRORS, ROUNDING
from gm_lab.track.curves import curves_of

SMALL = ["--mdps", "2", "--repeats", "4", "--states", "6", "--actions", "3", "--wandb", "disabled"]


@pytest.fixture
def app(run_app):
    return partial(run_app, EXPERIMENT, *SMALL)


@pytest.fixture
def measure(rows_of):
    return partial(rows_of, EXPERIMENT, *SMALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run of all studies."""
    path = tmp_path_factory.mktemp("theory") / "run"
    arguments = ["--workers", "1", *SMALL, "--run-dir", str(path), "--figure", "theory"]
    assert gm_lab.main(EXPERIMENT, arguments) == 0
    return path


def test_a_run_leaves_what_it_promises(run):
    frame = pd.read_csv(run / "results.csv")
    assert set(frame["figure"]) == set(GRIDS)
    assert tuple(frame.columns[-len(COLUMNS) :]) == COLUMNS
    assert np.isfinite(frame[["measured", "bound_local", "bound_global"]].to_numpy()).all()
    limit = ROUNDING + (1 + 1e-9) * frame[["bound_local", "bound_global"]]
    assert (frame["measured"] <= limit["bound_local"]).all()
    assert (frame["measured"] <= limit["bound_global"]).all()
    assert (frame["bound_local"] <= limit["bound_global"]).all()
    assert (frame["measured_low"] <= frame["measured"]).all()
    assert (frame["measured"] <= frame["measured_high"]).all()
    # the proved bounds are of some use: nothing here is larger than what it bounds by chance alone
    assert frame["tightness_local"].min() < 1.1
    for name in ("theory_composition", "theory_hessian", "theory_split"):
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    verdicts = json.loads((run / "claims.json").read_text())
    assert [v["id"] for v in verdicts] == [f"THEORY-{i}" for i in range(1, 6)]
    checks = [item for v in verdicts for item in v["comparisons"] if item["relation"] == "check"]
    assert {item["outcome"] for item in checks} == {"supported"}
    assert not any(v["counts"].get("contradicted") or v["counts"].get("not measured") for v in verdicts)


def test_it_goes_with_other_figures_and_changes_none_of_their_numbers(measure):
    narrow = ["--estimators", "lvc", "--sample-sizes", "4", "--inner-steps", "2", "--inner-lrs", "3"]
    alone, both = (measure("--figure", *figures, *narrow) for figures in (["fig1"], ["fig1", "theory"]))
    shared = both[both["figure"] == "fig1"][alone.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(shared, alone, check_exact=True)
    assert len(EXPERIMENT.claims(Settings(figure=("fig1", "theory")), both)) == 26 + 5


def test_every_study_has_curves_with_both_bounds(run):
    frame = pd.read_csv(run / "results.csv")
    curves = list(curves_of(EXPERIMENT.curves, frame))
    assert len({curve.id for curve in curves}) == len(curves)
    chosen = ["theory_steps", "lvc", "SEE", "distance"]
    (curve,) = [
        c for c in curves if [c.place[name] for name in ("figure", "estimator", "permutation", "quantity")] == chosen
    ]
    rows = frame[frame["figure"].eq(chosen[0]) & frame["estimator"].eq(chosen[1])].groupby("inner_steps")
    for name in ("measured", "bound_local", "bound_global"):
        assert {row["inner_steps"]: row[name] for row in curve.rows} == pytest.approx(rows[name].mean().to_dict())
    of_errors = {c.place["inner_steps"]: c for c in curves if c.place["figure"] == "theory_hessian"}
    assert [row["hessian_error"] for row in of_errors[5].rows] == sorted(frame["hessian_error"].dropna().unique())
    points = sum(len(c.rows) for c in curves) * frame["mdp"].nunique()
    assert points == len(frame)


def test_other_figures_take_shared_samples_and_a_sampling_correction(measure):
    small = ["--sample-sizes", "2", "--permutations", "SSE", "--estimators", "ad", "ad+correction"]
    frame = measure("--figure", "fig4", "--samples", "shared", *small).set_index(["estimator", "mdp"])["variance"]
    assert (frame["ad+correction"] > frame["ad"]).all()


def test_shared_samples_are_refused(app):
    status, error = app("--figure", "theory", "--samples", "shared")
    assert status == 2
    assert "--samples: expected independent with --figure theory, whose bounds need it, got 'shared'" in error


@pytest.fixture
def point():
    """K = 2 at α = 3 on two small MDPs."""
    cell = Cell(0, (0, 1), 2, 3.0, tuple(GRIDS.items()), Tabular(repeats=6, states=5, actions=3))
    mdps = RandomMDPs(cell, "cpu")
    return Point.at(mdps, maml(mdps, mdps.zeros()), 2, 3.0)


def test_the_sampled_path_is_the_one_that_decompose_takes(point):
    """SEE from the path by hand: exact derivatives along it."""
    path, _ = sampled_path(point, "lvc", 8)
    adjoint = gm_exact.gradient(point.mdps.mdp, path[-1])
    for theta in reversed(path[:-1]):
        adjoint = adjoint + 3.0 * gm_exact.hessian_vector_product(point.mdps.mdp, theta, adjoint)
    found = decompose(point.problem, [load("lvc")], permutations=["SEE"], sizes=[8], **point.terms)
    assert_close(found["lvc", "SEE", 8], adjoint)


def test_the_hessian_errors_are_those_of_the_repeats(point):
    """AD's Hessian by hand: Σ_t γᵗ A_t ∇²log π, whose mean is far from the truth, and whose largest step counts."""
    bias, std = hessian_errors(point, "ad", 32, point.exact_path)
    biases, deviations = [], []
    for step, theta in enumerate(point.exact_path[:-1]):
        at = theta.expand(point.problem.params.shape)
        sample = point.problem.at(at).draw(step, {"hessian": slice(32)})["hessian"]
        read = sample.trajectories(critic=True)
        weight = (read.discount[:-1] * read.advantage / 32).flatten(2)
        tables = torch.zeros(2, 6, 2 * 6 * 15, dtype=torch.float64)
        tables = tables.scatter_add(-1, sample.cell.flatten(2), weight).reshape(2, 6, 12, 5, 3)
        tables = torch.stack([torch.stack([tables[m, r, 6 * m + r] for r in range(6)]) for m in range(2)])
        pi = at.softmax(-1)
        block = torch.einsum("...s,...sa,ab->...sab", tables.sum(-1), pi, torch.eye(3, dtype=torch.float64))
        block = block - torch.einsum("...s,...sa,...sb->...sab", tables.sum(-1), pi, pi)
        estimate = -torch.einsum("...sab,sx->...saxb", block, torch.eye(5, dtype=torch.float64)).flatten(2)
        exact = gm_exact.hessian(point.mdps.mdp, theta).flatten(1)
        deviations.append(estimate.var(1).sum(-1).sqrt())
        biases.append(((estimate.mean(1) - exact).square().sum(-1) - estimate.var(1).sum(-1) / 6).clamp(min=0).sqrt())
    assert_close(std, torch.stack(deviations).amax(0))
    assert (bias >= torch.stack(biases).amax(0)).all()  # the upper end of its interval
    assert (bias <= 5 * torch.stack(biases).amax(0)).all()


def test_the_injected_error_is_the_only_one(point):
    """The mean estimate is the exact meta-gradient with H + δI for H, because the noise has no mean."""
    grid = GRIDS["theory_hessian"]
    for labels, measured, (local, _, _) in _injected(point, grid):
        if labels["algorithm"] == "maml" and labels["quantity"] == "bias":
            adjoint = gm_exact.gradient(point.mdps.mdp, point.exact_path[-1])
            for theta in reversed(point.exact_path[:-1]):
                product = gm_exact.hessian_vector_product(point.mdps.mdp, theta, adjoint)
                adjoint = adjoint + 3.0 * (product + labels["hessian_error"] * adjoint)
            truth = gm_exact.maml_meta_gradient(point.mdps.mdp, point.exact_path[0], **point.terms)
            expected = (adjoint - truth).flatten(1).norm(dim=-1)
            assert_close(measured.value, expected, rtol=0.05, atol=0)
            assert (expected <= local).all()


def test_one_bound_takes_its_constants_from_other_samples(point):
    """It is the local bound of the same point drawn anew, of the same size, and not made of the samples measured."""
    grid = replace(GRIDS["theory_size"], estimators=("lvc",), sample_sizes=(8,))
    ((_, measured, (local, _, other)),) = _composition(point, grid)
    ((_, elsewhere, (there, _, _)),) = _composition(point.drawn_anew(), grid)
    assert_close(other, there, rtol=0, atol=0)
    assert (other != local).all()
    assert (measured.value != elsewhere.value).all()


def rows_that_hold(mdps=40):
    """Measurements as the theory has them, at a third of their bounds."""
    blank = {"figure": "", "algorithm": "maml", "estimator": "lvc", "quantity": "distance", "hessian_error": np.nan}
    blank |= {"permutation": "SEE", "sample_size": 32, "inner_steps": 2, "inner_lr": 3.0}
    found = []
    for name in ("lvc", "dice"):
        blank |= {"estimator": name}
        found += [
            blank | {"figure": "theory_size", "sample_size": 2**i, "measured": 2 ** (-i / 2)} for i in range(1, 9)
        ]
        found += [blank | {"figure": "theory_steps", "inner_steps": k, "measured": 2.0**k} for k in range(1, 7)]
        rates = (1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0)
        at = {"figure": "theory_rate", "inner_steps": 6}
        found += [blank | at | {"inner_lr": rate, "measured": rate} for rate in rates]
    for algorithm, steps, error in product(("maml", "lirpg"), range(1, 6), HESSIAN_ERRORS):
        degree = steps - (algorithm == "lirpg")
        point = {"figure": "theory_hessian", "algorithm": algorithm, "inner_steps": steps, "sample_size": 0}
        point |= {"hessian_error": error, "estimator": "exact", "permutation": "ESE"}
        found.append(blank | point | {"quantity": "bias", "measured": (1 + 12 * error) ** degree - 1})
        found.append(blank | point | {"quantity": "variance", "measured": 1.0})
    for name, permutation, quantity in product(ESTIMATORS, ("SSE", "SEE", "ESE"), ("bias", "variance")):
        point = {"figure": "theory_split", "estimator": name, "permutation": permutation, "quantity": quantity}
        found.append(blank | point | {"measured": 1.0})
    frame = pd.DataFrame([row | {"mdp": mdp} for row in found for mdp in range(mdps)])
    frame["measured"] *= 1 + 0.001 * frame["mdp"]
    frame["measured_low"], frame["measured_high"] = 0.9 * frame["measured"], 1.1 * frame["measured"]
    for kind in BOUNDS:
        frame[f"bound_{kind}"] = 3 * frame["measured"]
        frame[f"tightness_{kind}"] = 3.0
    return frame


def verdicts(frame):
    return {verdict.id: verdict for verdict in claims(frame)}


@pytest.mark.claim("THEORY-1", "THEORY-2", "THEORY-3", "THEORY-4", "THEORY-5")
def test_claims():
    found = verdicts(rows_that_hold())
    assert list(found) == [f"THEORY-{i}" for i in range(1, 6)]
    assert {name: v.measured for name, v in found.items() if v.verdict != "supported"} == {}


# claim ↦ rows to spoil, the column, and the factor
SPOILT = [
    ("THEORY-1", "figure == 'theory_size' and sample_size == 256", "measured", 9),
    ("THEORY-2", "figure == 'theory_rate' and inner_lr == 13 and mdp == 1", "bound_local", 0.3),
    ("THEORY-2", "figure == 'theory_steps' and inner_steps == 6 and mdp == 1", "bound_global", 0.2),
    ("THEORY-2", "figure == 'theory_steps' and inner_steps == 6", "bound_other", 0.2),
    (
        "THEORY-3",
        "figure == 'theory_hessian' and quantity == 'bias' and inner_steps == 3 and mdp == 0",
        "bound_local",
        0.3,
    ),
    ("THEORY-3", "quantity == 'bias' and inner_steps == 3 and hessian_error == 4", "measured", 1.5),
    ("THEORY-3", "quantity == 'bias' and estimator == 'ad' and permutation == 'SSE'", "bound_other", 0.2),
    ("THEORY-4", "figure == 'theory_split' and quantity == 'variance' and mdp == 2", "bound_global", 0.2),
    ("THEORY-4", "figure == 'theory_hessian' and quantity == 'variance' and inner_steps == 5", "bound_other", 0.2),
    ("THEORY-5", "figure == 'theory_steps' and inner_steps == 6", "measured", 0.01),
]


@pytest.mark.parametrize(("claim", "where", "column", "factor"), SPOILT)
def test_a_claim_that_does_not_hold_is_reported(claim, where, column, factor):
    frame = rows_that_hold()
    frame.loc[frame.eval(where), column] *= factor
    assert verdicts(frame)[claim].verdict == "contradicted"


@pytest.mark.parametrize(("claim", "where", "column"), [case[:3] for case in SPOILT])
def test_a_claim_is_open_at_nan(claim, where, column):
    """As a bound is that two repeats cannot give: nothing is below it, and nothing above."""
    frame = rows_that_hold()
    frame.loc[frame.eval(where), column] = np.nan
    found = verdicts(frame)[claim]
    assert found.verdict in ("undecided", "not measured")
    assert "not measured" in found.counts


@pytest.mark.parametrize("column", ["measured", "bound_local", "bound_global", "bound_other"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_decides_nothing(column, value):
    """A measurement of infinity is above every bound, NaN above none and below none, and an infinite bound is none."""
    frame = rows_that_hold()
    frame.loc[frame["figure"].isin(["theory_split", "theory_steps"]), column] = value
    found = verdicts(frame)
    expected = "contradicted" if (column, value) == ("measured", np.inf) else "undecided"
    assert [found[f"THEORY-{i}"].verdict for i in (2, 3, 4)] == [expected] * 3


def test_bounds_of_the_same_samples_are_a_check_and_those_of_others_a_comparison():
    found = verdicts(rows_that_hold())["THEORY-2"].comparisons
    kinds = {item.comparison.relation: set[str]() for item in found}
    for item in found:
        kinds[item.comparison.relation].add(item.comparison.label.rpartition(", ")[2])
    assert kinds == {
        "beyond": {"proved constants", "constants of other samples"},
        "check": {"proved constants", "constants of the same samples (a check of the code)"},
    }


def test_what_flags_add_to_a_study_changes_no_claim():
    frame = rows_that_hold()
    others = frame[frame["figure"] == "theory_size"].assign(inner_steps=4, measured=1.0)
    assert verdicts(pd.concat([frame, others]))["THEORY-1"].measured == verdicts(frame)["THEORY-1"].measured


def test_an_open_claim_asks_for_its_studies():
    found = verdicts(rows_that_hold())["THEORY-5"].needs
    assert {(figure, name) for figure, name, *_ in found} == {
        *product(("theory_steps", "theory_rate"), ("lvc", "dice")),
    }


def test_bounds_without_end_are_left_out_of_the_figures():
    frame = rows_that_hold().assign(bound_global=np.inf)
    frame.loc[frame["figure"] == "theory_rate", "bound_local"] = np.inf
    assert set(figures(frame)) == {"theory_composition", "theory_hessian", "theory_split"}
