"""The pictures of the documentation: each is in the table, each command is one, and a changed picture is named."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import gm_lab
import pictures

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "packages").glob("*/README.md")]
SHOWN = {name for page in PAGES for name in re.findall(r"images/([\w-]+)\.png", page.read_text())}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A table of one run with two pictures, which exist and are up to date; it returns their folder and what draws."""
    images, figures = tmp_path / "images", tmp_path / "runs" / "run" / "figures"
    for folder, names in ((images, ("one", "two")), (figures, ("a", "b"))):
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.png").write_bytes(b"picture")
    (tmp_path / "pictures.toml").write_text('[run]\ncommand = "apps/x.py"\npictures = { one = "a", two = "b" }\n')
    runs = pictures.table(tmp_path / "pictures.toml")
    monkeypatch.setattr(pictures, "table", lambda: runs)
    monkeypatch.setattr(pictures, "DOCS", tmp_path)
    monkeypatch.setattr(pictures, "IMAGES", images)
    monkeypatch.setattr(pictures, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(pictures, "run_through", lambda run: None)
    return images, figures


def test_each_picture_that_is_shown_is_in_the_table_and_each_of_the_table_is_shown():
    runs = pictures.table()
    drawn = [picture for run in runs for picture in run.pictures]
    assert len(drawn) == len(set(drawn))
    assert {*drawn} == SHOWN


def test_each_picture_of_the_folder_is_in_the_table():
    runs = pictures.table()
    assert pictures.unlisted(runs, ROOT / "docs" / "images") == []
    assert pictures.unlisted(runs[1:], ROOT / "docs" / "images") == sorted(runs[0].pictures)


def test_each_command_parses():
    for run in pictures.table():
        app, *flags = shlex.split(run.command)
        if pictures.OUT in flags:
            assert (ROOT / app).is_file()
            assert str(run.folder / "figures" / f"{run.name}.png") in run.line
            continue
        code = (ROOT / app).read_text()
        (module,) = re.findall(r"^from (gm_experiments[.\w]*) import EXPERIMENT$", code, re.MULTILINE)
        experiment = importlib.import_module(module).EXPERIMENT
        assert gm_lab.run.parse(experiment.settings, app, [*flags, *run.line[-4:]]).run_dir == run.folder


def test_pictures_are_chosen_by_name_or_by_run():
    runs = pictures.table()
    first = next(iter(runs[0].pictures))
    assert pictures.chosen(runs, []) == runs
    assert [run.name for run in pictures.chosen(runs, [runs[1].name])] == [runs[1].name]
    (only,) = pictures.chosen(runs, [first])
    assert list(only.pictures) == [first]
    with pytest.raises(ValueError, match=rf"no picture or run '{first}x' in pictures.toml: did you mean {first}\?"):
        pictures.chosen(runs, [f"{first}x"])


def test_nothing_is_named_if_nothing_has_changed(small, capsys):
    assert pictures.main(["--check"]) == 0
    assert "all pictures are up to date" in capsys.readouterr().out


def test_a_changed_and_a_missing_picture_are_named_and_written(small, capsys):
    images, figures = small
    (figures / "a.png").write_bytes(b"another")
    (images / "two.png").unlink()
    assert pictures.main(["--check"]) == 1
    named = re.findall(r"out of date: (.+)", capsys.readouterr().out)
    assert named == ["one (changed)", "two (missing)"]
    assert (images / "one.png").read_bytes() == b"picture"
    assert pictures.main(["two"]) == 0
    assert pictures.main([]) == 0
    assert [(images / f"{name}.png").read_bytes() for name in ("one", "two")] == [b"another", b"picture"]
    assert pictures.main(["--check"]) == 0


def test_a_picture_that_nobody_draws_is_named(small, capsys):
    images, figures = small
    (images / "three.png").write_bytes(b"old")
    assert pictures.main(["--check"]) == 1
    assert "not in pictures.toml: three" in capsys.readouterr().out
    (figures / "b.png").unlink()
    assert pictures.main(["--check"]) == 2
    assert capsys.readouterr().err == "pictures: two: the run run has made no figures/b.png\n"


def test_what_a_run_says_when_it_fails_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "RUNS", tmp_path)
    failing = pictures.Run("failing", "-c 'import sys; print(sys.argv); sys.exit(3)'", {})
    with pytest.raises(ValueError, match=rf"(?s)^failing: .* ended with 3\n.*--run-dir.*{tmp_path}"):
        pictures.run_through(failing)


def test_other_files_that_docs_keep_are_compared_too(small, tmp_path):
    _, figures = small
    runs = [pictures.Run("run", "apps/x.py", {}, {"kept.json": "own.json"})]
    assert pictures.chosen(runs, ["kept.json"]) == runs
    (figures.parent / "own.json").write_bytes(b"{}")
    assert [(name, why) for name, why, *_ in pictures.out_of_date(runs[0], tmp_path)] == [("kept.json", "missing")]
    (tmp_path / "kept.json").write_bytes(b"{}")
    assert list(pictures.out_of_date(runs[0], tmp_path)) == []
