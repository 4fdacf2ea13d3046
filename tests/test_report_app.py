"""apps/report.py: where the page goes, and input that makes no sense."""

import pytest

import gm_lab
import lola_offpolicy
import report


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "lola"
    flags = ["--figure", "fig2a", "--updates", "2", "--seeds", "2", "--evaluation-size", "8"]
    where = ["--run-dir", str(path), "--wandb", "disabled", "--workers", "1"]
    assert gm_lab.main(lola_offpolicy.EXPERIMENT, [*flags, *where]) == 0
    return path


def test_the_page_is_in_the_run_directory_and_the_run_can_go_on(run_dir, capfd):
    assert report.main([str(run_dir)]) == 0
    assert capfd.readouterr().out == f"report: {run_dir / 'report.html'}\n"
    assert "LOLA-1" in (run_dir / "report.html").read_text()
    assert report.main([str(run_dir)]) == 0


def test_the_page_about_several_runs(run_dir, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert report.main([str(run_dir), str(run_dir)]) == 0
    (page,) = tmp_path.glob("runs/report-*.html")
    assert capfd.readouterr().out == f"report: {page.relative_to(tmp_path)}\n"
    assert page.read_text().count("<h2 id=") == 2
    assert report.main([str(run_dir), "--out", str(tmp_path / "a" / "b.html")]) == 0
    assert (tmp_path / "a" / "b.html").exists()


BAD = {
    "nothing": ([], "expected at least one run directory, got none"),
    "no such folder": (["/nowhere"], "expected a run directory, got /nowhere, which doesn't exist"),
    "half an address": ([".", "--entity", "me"], "expected --entity and --project together, got one of them"),
    "an empty address": (
        [".", "--entity", "", "--project", ""],
        "--entity, --project: expected the names of a W&B user or team and of a project, got ''",
    ),
    "unknown flag": (["--nope"], "expected a flag that --help lists, got --nope (did you mean --no-table?)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line(name, capfd):
    flags, message = BAD[name]
    assert report.main(flags) == 2
    assert capfd.readouterr() == ("", f"report: {message}\n")
