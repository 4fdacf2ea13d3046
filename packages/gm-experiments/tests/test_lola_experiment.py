"""The LOLA experiment end to end: flags, results, closing table and verdicts."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

import gm_lab
from gm_experiments.lola import EXPERIMENT, Settings
from gm_experiments.lola.claims import CLAIMS, Means, claims, verdicts
from gm_experiments.lola.figures import closing_table, undefined
from gm_experiments.lola.run import significant
from gm_experiments.lola.settings import ARMS

F64 = torch.float64


def run(tmp_path, *flags: str, draw: bool = False) -> int:
    """Runs the app, without drawing unless asked."""
    experiment = EXPERIMENT if draw else replace(EXPERIMENT, figures=lambda *_: {})
    fixed = ("--run-dir", str(tmp_path / "run"), "--wandb", "disabled", "--workers", "1")
    tiny = ("--updates", "3", "--horizon", "6", "--seeds", "3", "--evaluation-size", "8", "--replay-capacity", "1024")
    return gm_lab.main(experiment, [*fixed, *tiny, *flags])


def test_the_app_end_to_end(tmp_path):
    assert run(tmp_path, draw=True) == 0
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert tuple(frame.columns) == EXPERIMENT.columns
    names = {(f, c.name) for f, arms in ARMS.items() for c in arms if f != "debias"}
    assert set(zip(frame["figure"], frame["curve"], strict=True)) == names
    assert len({name for _, name in names}) == 13
    assert len(frame) == len(names) * 3 * 3
    for figure in ("fig2a", "fig2b", "fig2c", "fig2d", "fig8", "policies"):
        assert (tmp_path / "run" / "figures" / f"{figure}.png").stat().st_size > 10_000
    before = (tmp_path / "run" / "results.csv").read_bytes()
    (next((tmp_path / "run" / "cells").iterdir())).unlink()
    assert run(tmp_path) == 0
    assert (tmp_path / "run" / "results.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--updates", "0"], "--updates: expected an integer of at least 1, got 0"),
        (["--discount", "1"], "--discount: expected 0 ≤ γ ≤ 1 − 1e-12, got 1.0"),
        (["--discount", "0.9999999999999999"], "--discount: expected 0 ≤ γ ≤ 1 − 1e-12, got 0.9999999999999999"),
        (["--payoffs", *["1e31"] * 8], "--payoffs: expected numbers from −1e30 to 1e30, got (1e+31, "),
        (["--game", "chicken", "--payoffs", *["1"] * 8], "--game: expected no --payoffs beside it, got chicken"),
        (["--cooperative", "1"], "--cooperative: expected --payoffs beside it, since a known game has its own, got 1"),
        (["--cooperative", "2"], "--cooperative: expected one of "),
        (["--critic-lr", "1e300"], "--critic-lr: expected a number above 0 and up to 1e30, got 1e+300"),
        (["--device", "cuda"], "--device: expected auto or cpu, since this app computes on the CPU, got cuda"),
        (
            ["--figure", "debias", "--estimator", "dice+jackknife"],
            "--estimator: expected one without +jackknife, which",
        ),
        (["--game", "poker"], "--game: expected one of ipd, stag-hunt"),
        (["--payoffs", "1", "2", "3"], "--payoffs: expected 8 numbers, R¹ and R² row by row, got 3"),
        (["--estimator", "nonsense"], "--estimator: expected one of"),
        (["--estimator", "lvc+learnt"], "--estimator: expected an estimator without +learnt, which only the tabular"),
        (
            ["--estimator", "loaded_dice@0.5,0.9"],
            "--estimator: expected an estimator without τ, which only the tabular",
        ),
        (["--curves", "inner=7"], "--curves: expected some of inner=128 outer=128, "),
        (["--replay-capacity", "64"], "--replay-capacity: expected at least 128 trajectories, got 64"),
        (["--clip", "0"], "--clip: expected a number above 0, got 0.0"),
        (["--max-age", "-1"], "--max-age: expected an integer of at least 0, got -1"),
        (["--max-age", "1" + "0" * 30], "--max-age: expected an integer up to 10¹⁵, got 1000000"),
        (["--outer-lr", "0"], "--outer-lr: expected a number above 0 and up to 1e30, got 0.0"),
        (["--device", "tpu"], "--device: expected auto or cpu, since this app computes on the CPU, got tpu"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(tmp_path, capsys, flags, message):
    assert run(tmp_path, *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_numbers_that_grow_too_large_are_one_line_and_status_2(tmp_path, capsys):
    flags = ("--inner-lr", "1e30", "--inner-steps", "2", "--horizon", "100", "--curves", "comp=off hessian=off")
    assert run(tmp_path, *flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "elapsed" not in line]
    assert line.startswith("lola_offpolicy: comp=off hessian=off: payoffs, params: expected finite payoffs and")
    assert line.endswith("(smaller payoffs or learning rates, or a --clip, keep numbers finite)")


def test_small_payoffs_keep_their_digits_and_large_ones_are_finite(tmp_path):
    flags = ("--curves", "inner=128 outer=128", "--figure", "fig2a", "--payoffs")
    for index, scale in enumerate((1e-9, 1e28)):
        payoffs = [str(scale * entry) for entry in (-2, 0, -3, -1, -2, -3, 0, -1)]
        assert run(tmp_path / str(index), *flags, *payoffs) == 0
        frame = pd.read_csv(tmp_path / str(index) / "run" / "results.csv")
        for column in ("score", "error_sq", "truth_sq"):
            assert ((frame[column].abs() > 0) & (frame[column].abs() < np.inf)).all()
            digits = frame[column].map(lambda value: len(f"{value:.12e}".split("e")[0].strip("-0").replace(".", "")))
            assert digits.max() in (7, 8), column
        assert frame["accuracy"].between(-1, 1).all()


def test_numbers_are_rounded_to_eight_significant_digits():
    values = torch.tensor([0.0, 123456789.0, -1.23456789e-12, 9.99999999, 1e-300, -4.5e250, torch.nan, -torch.inf])
    values = values.to(F64).clone()
    values[1:6] = torch.tensor([123456789.0, -1.23456789e-12, 9.99999999, 1e-300, -4.5e250], dtype=F64)
    found = significant(values)
    expected = [0.0, 123456790.0, -1.2345679e-12, 10.0, 1e-300, -4.5e250, torch.nan, -torch.inf]
    assert_close(found, torch.tensor(expected, dtype=F64), rtol=1e-14, atol=0, equal_nan=True)
    draw = torch.Generator().manual_seed(0)
    many = torch.randn(1000, generator=draw, dtype=F64) * 10 ** (10 * torch.randn(1000, generator=draw, dtype=F64))
    expected = torch.tensor([float(f"{value:.8g}") for value in many.tolist()], dtype=F64)
    assert_close(significant(many), expected, rtol=1e-14, atol=0)
    assert all(len(repr(value)) <= 11 for value in significant(torch.rand(999, dtype=F64) + 1).tolist())


def test_ones_own_game_says_what_cooperation_is(tmp_path):
    flags = ("--curves", "inner=exact outer=exact", "--payoffs", *"40324302", "--cooperative")  # the stag hunt
    frames = {}
    for action in ("0", "1"):
        assert run(tmp_path / action, *flags, action) == 0
        frames[action] = pd.read_csv(tmp_path / action / "run" / "results.csv")
    swapped = {"start": "start", "CC": "DD", "CD": "DC", "DC": "CD", "DD": "CC"}
    for state, other in swapped.items():
        hunt, hare = frames["0"][f"cooperate_1_{state}"], frames["1"][f"cooperate_1_{other}"]
        np.testing.assert_allclose(hunt, 1 - hare, atol=1e-7)
    known = ("--curves", "inner=exact outer=exact", "--game", "stag-hunt")
    assert run(tmp_path / "known", *known) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "known" / "run" / "results.csv"), frames["0"])


def test_without_a_truth_there_is_no_bias_and_no_accuracy_and_a_line_says_so(tmp_path, capsys):
    assert run(tmp_path, "--figure", "fig2a", "--curves", "inner=128 outer=128", "--payoffs", *"00000000") == 0
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert frame[["accuracy", "bias", "bias_outer_exact"]].isna().all(axis=None)
    assert (frame[["error_sq", "truth_sq"]] == 0).all(axis=None)
    line = (
        "accuracy is undefined (nan) in 9 of 9 rows, where the estimate or the exact meta-gradient of a player is zero"
    )
    assert line in capsys.readouterr().out.splitlines()
    assert undefined(results(seeds=2).assign(accuracy=0.5)) == ""


@pytest.mark.parametrize("discount", [0.0, 0.999999999999])
def test_the_least_and_the_largest_discount_are_taken(tmp_path, discount):
    assert run(tmp_path, "--curves", "inner=128 outer=128", "--discount", str(discount)) == 0
    frame = pd.read_csv(tmp_path / "run" / "results.csv").drop(columns="effective_size")
    assert np.isfinite(frame.select_dtypes("number")).all(axis=None)


def printed(table: pd.DataFrame) -> list[str]:
    """What an 80-column terminal shows."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(gm_lab.tables.summary_table(table))
    return console.export_text().splitlines()


def test_the_closing_table_fits_80_columns_and_leaves_empty_what_there_is_not(tmp_path):
    assert run(tmp_path) == 0
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    table = closing_table(frame).set_index("curve")
    assert table.loc["comp=on hessian=on", "ESS"] == ""
    assert int(table.loc["comp=off hessian=off", "ESS"]) == round(
        frame.loc[frame["curve"] == "comp=off hessian=off", "effective_size"].mean()
    )
    on_policy = frame[frame["figure"] == "fig2a"]
    early = closing_table(on_policy).set_index("curve")
    assert "ESS" not in early
    for curve, rows in on_policy.groupby("curve"):
        assert early.loc[curve, "Pearson"] == pytest.approx(rows["correlation"].mean())
    for frame, lines in ((table.reset_index(), 13), (early.reset_index(), 4)):
        shown = printed(frame)
        assert not any("nan" in line or "…" in line for line in shown)
        assert sum("hessian" in line or "outer=" in line for line in shown) == lines
        assert all(any(name in line for line in shown) for name in (column.split()[-1] for column in frame.columns))


AS_THE_PAPER_SAYS = {
    "inner=128 outer=128": 3,
    "inner=1024 outer=128": 8,
    "inner=exact outer=128": 8,
    "inner=exact outer=exact": 10,
    "comp=128 hessian=128": 3,
    "comp=1024 hessian=128": 6,
    "comp=exact hessian=128": 6,
    "comp=128 hessian=1024": 9,
    "comp=128 hessian=exact": 9,
    "comp=on hessian=on": 3,
    "comp=off hessian=off": 9,
    "comp=off hessian=on": 6,
    "comp=on hessian=off": 7,
}
"""How many of ten seeds cooperate, at a score near −1; the others are near −2."""
ACCURACIES = {(1024, 1024): 0.7, (None, None): 1.0, (128, None): 0.5}
"""By the numbers of trajectories for inner gradient and Hessian; 0.3 for any other."""
IDS = [f"LOLA-{i}" for i in range(1, 15)]


def results(*changes: tuple[str, str, float], seeds: int = 160) -> pd.DataFrame:
    """Results of all curves as the paper says, but for some columns of some curves."""
    rows = [
        {
            "figure": figure,
            "curve": curve.name,
            "seed": seed,
            "update": update,
            "score": -1.02 if 3 * seed % 10 < AS_THE_PAPER_SAYS.get(curve.name, 0) else -1.95,
            "accuracy_outer_exact": ACCURACIES.get((curve.inner, curve.hessian), 0.3),
            "hessian_error_sq": 0.25 if curve.replays("hessian") else 1.0,
            "composition_error_sq": 0.25 if curve.replays("inner") else 1.0,
        }
        for figure, arms in ARMS.items()
        for curve in arms
        for seed in range(seeds)
        for update in (1, 100)
    ]
    frame = pd.DataFrame(rows)
    for column, curve, value in changes:
        frame.loc[frame["curve"] == curve, column] = value
    measured = frame.columns[4:]
    frame[measured] *= 1 + 1e-3 * np.random.default_rng(0).uniform(-1, 1, (len(frame), len(measured)))
    return frame


@pytest.mark.claim(
    "LOLA-1", "LOLA-2", "LOLA-3", "LOLA-4", "LOLA-5", "LOLA-6", "LOLA-7", "LOLA-8", "LOLA-9", "LOLA-10", "LOLA-11",
    "LOLA-12", "LOLA-13", "LOLA-14",
)  # fmt: skip
def test_claims():
    found = verdicts(results())
    assert [verdict.id for verdict in found] == IDS
    assert all(verdict.verdict == "supported" for verdict in found), found


@pytest.mark.claim(
    "LOLA-1", "LOLA-2", "LOLA-3", "LOLA-4", "LOLA-5", "LOLA-6", "LOLA-7", "LOLA-8", "LOLA-9", "LOLA-10", "LOLA-11",
    "LOLA-12", "LOLA-13", "LOLA-14",
)  # fmt: skip
@pytest.mark.parametrize(
    ("claim", "column", "curve", "value"),
    [
        ("LOLA-1", "score", "inner=128 outer=128", -1.1),
        ("LOLA-1", "score", "inner=1024 outer=128", -1.95),
        ("LOLA-2", "score", "inner=exact outer=exact", -1.95),
        ("LOLA-3", "score", "comp=1024 hessian=128", -1.95),
        ("LOLA-4", "score", "comp=128 hessian=1024", -1.95),
        ("LOLA-5", "score", "comp=off hessian=on", -1.95),
        ("LOLA-6", "score", "inner=exact outer=128", -0.5),
        ("LOLA-6", "accuracy_outer_exact", "inner=exact outer=128", 0.75),
        ("LOLA-7", "score", "inner=exact outer=128", -1.02),
        ("LOLA-7", "accuracy_outer_exact", "inner=exact outer=128", 0.7),
        ("LOLA-8", "accuracy_outer_exact", "comp=exact hessian=128", 0.5),
        ("LOLA-9", "accuracy_outer_exact", "comp=off hessian=on", 0.5),
        ("LOLA-9", "score", "comp=off hessian=on", -1.95),
        ("LOLA-10", "hessian_error_sq", "comp=on hessian=off", 4.0),
        ("LOLA-11", "composition_error_sq", "comp=off hessian=on", 4.0),
        ("LOLA-12", "score", "inner=128 outer=128", -1.02),
        ("LOLA-12", "score", "inner=128 outer=128", -1.95),
        ("LOLA-13", "score", "inner=1024 outer=128", -1.3),
        ("LOLA-14", "accuracy_outer_exact", "comp=128 hessian=exact", 1.0),
    ],
)
def test_a_claim_that_does_not_hold_is_reported(claim, column, curve, value):
    assert verdict_of(claim, results((column, curve, value))).verdict == "contradicted"
    missing = verdict_of(claim, results()[lambda f: f["curve"] != curve])
    assert missing.verdict in ("undecided", "not measured")
    assert "not measured" in missing.counts


def verdict_of(claim: str, frame: pd.DataFrame) -> gm_lab.analysis.Verdict:
    """The verdict on one claim."""
    (found,) = [each.verdict(Means(frame)) for each in CLAIMS if each.id == claim]
    return found


def outcomes(frame: pd.DataFrame, claim: str) -> dict[str, str]:
    """What each comparison of a claim came to, by its label."""
    return {item.comparison.label: item.outcome for item in verdict_of(claim, frame).comparisons}


def test_a_higher_mean_is_not_enough_nor_are_more_seeds_that_cooperate():
    score, share = (
        f"{name}: inner=exact outer=exact > inner=exact outer=128"
        for name in ("score", "share of seeds that cooperate")
    )
    assert outcomes(results(), "LOLA-2") == {score: "supported", share: "supported"}
    higher = results(("score", "inner=exact outer=128", -1.9), ("score", "inner=exact outer=exact", -1.3))
    assert outcomes(higher, "LOLA-2") == {score: "supported", share: "contradicted"}
    more = results(("score", "inner=exact outer=128", -1.21), ("score", "inner=exact outer=exact", -1.19))
    assert outcomes(more, "LOLA-2") == {score: "contradicted", share: "supported"}


def test_labels_name_their_metric_and_verdicts_the_curves_that_they_need():
    found = {v.id: v for v in verdicts(results(seeds=10))}
    for verdict in found.values():
        for item in verdict.comparisons:
            assert item.comparison.label.startswith(("score", "share of seeds", "accuracy with exact outer", "the "))
        curves = {
            curve for curve in AS_THE_PAPER_SAYS for item in verdict.comparisons if curve in item.comparison.label
        }
        assert curves <= verdict.needs <= set(AS_THE_PAPER_SAYS)
    assert found["LOLA-1"].needs == {"inner=128 outer=128", "inner=1024 outer=128"}
    assert found["LOLA-14"].needs >= {"inner=exact outer=128", "comp=128 hessian=exact"}


def test_curves_of_more_seeds_are_compared_by_those_that_all_have():
    frame = results(seeds=40)
    fewer = frame[(frame["seed"] < 10) | (frame["curve"] == "inner=1024 outer=128")]
    whole = {v.id: v for v in verdicts(frame[frame["seed"] < 10])}
    for verdict in verdicts(fewer):
        assert verdict.counts == whole[verdict.id].counts or verdict.id == "LOLA-13"
        assert "not measured" not in verdict.counts


def test_ten_seeds_alone_leave_open_what_the_paper_says():
    found = {v.id: v.verdict for v in verdicts(results(seeds=10))}
    assert set(found.values()) <= {"undecided", "supported"}
    assert found["LOLA-3"] == "undecided"


def test_a_run_that_is_too_short_decides_no_claim():
    frame = results()
    for verdict in verdicts(frame.replace({"update": {100: 49}})):
        assert verdict.verdict == "not measured"
        assert verdict.measured == "49 updates, expected at least 50"
    assert all(v.verdict == "supported" for v in verdicts(frame.replace({"update": {100: 50}})))


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({}, 14),
        ({"payoffs": (-2.0, 0.0, -3.0, -1.0, -2.0, -3.0, 0.0, -1.0)}, 14),
        ({"payoffs": (-2.0, 0.0, -3.0, -1.0, -2.0, -3.0, 0.0, -2.0)}, 0),
        ({"game": "chicken"}, 0),
        ({"figure": ("debias",)}, 0),
    ],
    ids=str,
)
def test_the_claims_are_about_the_papers_game(more, count):
    assert len(claims(Settings(**more), results(seeds=10))) == count
