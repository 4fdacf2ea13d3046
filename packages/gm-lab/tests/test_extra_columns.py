"""Columns that results.csv has only with some settings."""

from dataclasses import replace

import gm_lab
from gm_lab.analysis.tables import read_results


def run_with_more(cell, context, original):
    return [row | {"more": -row["mdp"] if cell.mdp % 2 else float("nan")} for row in original(cell, context)]


def test_further_columns_come_last_and_only_when_asked_for(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = toy.EXPERIMENT
    wide = replace(
        plain,
        run_cell=lambda cell, context: run_with_more(cell, context, plain.run_cell),
        extra_columns=lambda settings: ("more",) if settings.mdps == 3 else (),
    )
    common = ["--workers", "1", "--wandb", "disabled", "--mdps"]
    assert gm_lab.main(plain, ["--run-dir", "plain", *common, "3"]) == 0
    assert gm_lab.main(wide, ["--run-dir", "wide", *common, "3"]) == 0
    first, second = (read_results(tmp_path / name / "results.csv") for name in ("plain", "wide"))
    assert list(second.columns) == [*first.columns, "more"]
    assert second["more"].dropna().unique().tolist() == [-1]
    assert second.drop(columns="more").equals(first)
    assert gm_lab.main(wide, ["--run-dir", "refused", *common, "4"]) == 1  # the rows have a column too many
