"""The HTML report, read as a browser would, and the W&B Report as the server gets it."""

import base64
import contextlib
import hashlib
import html
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gm_lab
from gm_lab.analysis import mean_interval, read_results
from gm_lab.analysis.charts import charts, interval_table
from gm_lab.analysis.figures import words
from gm_lab.analysis.report import Run, claim_of, exactly, forest_of, load, number, rendered
from gm_lab.run.errors import BadInput
from gm_lab.track.wandb_report import published

TOY = str(Path(__file__).with_name("toy.py"))
VOID = {"meta", "link", "br", "img"}
LOADS = {"src", "href", "srcset", "data", "poster", "action", "background", "xlink:href"}


class Page(HTMLParser):
    """Tags with their attributes, text by tag, and a check that every element is closed in its place."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._stack = [], [], []
        self.feed(text)
        self.close()
        assert self._stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._stack.append(tag)

    def handle_endtag(self, tag):
        assert self._stack.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self._stack[-1], " ".join(data.split())))

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def text(self, *tags):
        return [text for tag, text in self.texts if not tags or tag in tags]


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "<b>&run"
    assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(path), "--workers", "1", "--wandb", "disabled"]) == 0
    return path


@pytest.fixture(scope="module")
def unfinished(toy, tmp_path_factory):
    """The last cells fail, so that there are no figures."""

    def failing(cell, context):
        if cell.estimator == "mine":
            raise RuntimeError("no way")
        return toy.run_cell(cell, context)

    path = tmp_path_factory.mktemp("report") / "stopped"
    experiment = gm_lab.Experiment(**(vars(toy.EXPERIMENT) | {"run_cell": failing}))
    assert gm_lab.main(experiment, ["--run-dir", str(path), "--workers", "1", "--wandb", "disabled"]) == 1
    return path


@pytest.fixture(scope="module")
def page(finished, unfinished):
    return rendered([load(finished), load(unfinished)], "uv run apps/report.py a b")


def test_nothing_is_loaded_from_anywhere(page):
    parsed = Page(page)
    found = {value for _, attrs in parsed.tags for name, value in attrs.items() if name in LOADS}
    assert found
    assert all(value.startswith(("data:", "#run-")) for value in found), found
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _ in parsed.tags}
    assert {name for attrs in parsed.of("script") for name in attrs} == {"type", "id"}  # those of the data
    written = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "url(" not in written
    assert "@import" not in written
    assert not re.search(r"https?://", written)


def test_the_browser_is_told_to_run_these_scripts_alone_and_to_load_nothing(page):
    (policy,) = [meta["content"] for meta in Page(page).of("meta") if "http-equiv" in meta]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in hashes]
    assert len(hashes) == 3


WORDS = {"size", "accuracy", "toy", "ad", "lvc", "mine", "The larger the better", "Bands are 95% intervals."}


def test_every_figure_is_there_with_words_for_those_who_cannot_see_it(page, finished):
    (image,) = Page(page).of("img")
    kind, content = image["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == (finished / "figures" / "toy.png").read_bytes()
    assert image["alt"].startswith("toy of toy: ")
    assert set(image["alt"].removeprefix("toy of toy: ").split("; ")) == WORDS


@pytest.fixture
def vectors(toy, finished, tmp_path):
    """The finished run with its figure as SVG, too, as older runs have it."""
    path = tmp_path / "vectors"
    shutil.copytree(finished, path)
    assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(path), "--wandb", "disabled", "--svg"]) == 0
    return path


def test_a_drawing_is_shown_where_there_is_one(vectors, finished):
    (figure,), (picture,) = load(vectors).figures, load(finished).figures
    kind, content = figure.data.split(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(content) == (vectors / "figures" / "toy.svg").read_bytes()
    assert set(figure.alt.removeprefix("toy of toy: ").split("; ")) == WORDS
    assert (figure.name, figure.wide) == (picture.name, picture.wide)


def test_a_huge_drawing_is_shown_as_a_picture(vectors, monkeypatch):
    monkeypatch.setattr("gm_lab.analysis.report.SVG_BYTES", 10)
    (figure,) = load(vectors).figures
    assert figure.data.startswith("data:image/png;base64,iVBOR")
    assert "accuracy" in figure.alt


def test_what_a_page_says_about_a_run(page, finished):
    parsed = Page(page)
    texts = parsed.text()
    (claim,) = json.loads((finished / "claims.json").read_text())
    mark = {"supported": "✓", "contradicted": "✗", "undecided": "?"}[claim["verdict"]]
    assert {claim["id"], claim["claim"], f"{mark} {claim['verdict']}"} <= set(parsed.text("td", "th"))
    counted, wanted, *examples = claim["measured"].split("; ")
    assert f"{counted}; {wanted}" in parsed.text("td")
    assert wanted.startswith("about ")
    assert "; ".join(examples) in parsed.text("p")
    assert parsed.text("h1") == ["toy"]
    begun = json.loads((finished / "sessions.jsonl").read_text().splitlines()[0])
    (code, _) = parsed.text("code")[:2]
    expected = ([f"git checkout {begun['git_commit']}"] if "git_commit" in begun else []) + [begun["command"]]
    assert code == " ".join(expected)
    assert any(re.fullmatch(r"12 of 12 cells in [\d.]+ s of computing, \S+Z\.", text) for text in texts)
    assert {"estimators", "ad lvc mine", "numpy", begun["versions"]["numpy"], begun["machine"]["processor"]} <= set(
        texts
    )
    means = load(finished).summary["accuracy"]
    assert [f"{mean:.3g}" for mean in means] == [text for text in parsed.text("td") if re.fullmatch(r"[\d.]+", text)]


def test_numbers_of_tables_are_short_to_read_and_whole_to_sort_by():
    assert [number(value) for value in (0.123456, 7, "lvc", float("nan"), 10**400)] == [
        "0.123", "7", "lvc", "–", str(10**400),
    ]  # fmt: skip
    assert [exactly(value) for value in (0.123456, np.int64(7), "lvc")] == ["0.123456", "7.0", "lvc"]


def test_an_unfinished_run_says_so(page):
    texts = " ".join(Page(page).text())
    assert "Unfinished: 8 of 12 cells are computed. There are no figures and no verdicts yet." in texts


def test_names_are_text_and_never_markup(page, finished):
    parsed = Page(page)
    assert str(finished) in parsed.text("p")
    assert not parsed.of("b")


def test_runs_of_one_app_are_told_apart(page, finished):
    parsed = Page(page)
    assert parsed.text("h2") == ["toy: <b>&run", "toy: stopped"]
    ends = ["Speed", "How to reproduce"]
    parts = ["Figures", "Explore the numbers", "Claims", "Summary", *ends]
    assert parsed.text("a") == ["toy: <b>&run", *parts, "toy: stopped", *ends]
    alone = Page(rendered([load(finished)], ""))
    assert alone.text("h2") == ["Run <b>&run"]
    assert alone.text("a") == ["Run <b>&run", *parts]


def test_headings_captions_and_labels(page):
    parsed = Page(page)
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    assert len(parsed.of("caption")) == len(parsed.of("table")) == 2
    assert all(attrs.get("scope") in {"col", "row"} for attrs in parsed.of("th"))
    assert parsed.of("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in parsed.of("meta")
    names = [attrs["id"] for tag, attrs in parsed.tags if "id" in attrs and tag != "script"]
    assert len(names) == len(set(names)) == 10
    assert [attrs["href"] for attrs in parsed.of("a")] == [f"#{name}" for name in names]


def test_a_run_older_than_the_records_of_sessions(finished, tmp_path):
    copy = tmp_path / "old"
    shutil.copytree(finished, copy)
    (copy / "sessions.jsonl").unlink()
    (copy / "summary.csv").unlink()
    text = " ".join(Page(rendered([load(copy)], "")).text())
    assert "The command was not recorded" in text
    assert "Unfinished" not in text


def test_a_run_made_outside_a_checkout(finished, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(finished, copy)
    begun, *rest = (copy / "sessions.jsonl").read_text().splitlines()
    record = {key: value for key, value in json.loads(begun).items() if key not in {"git_commit", "git_changed"}}
    (copy / "sessions.jsonl").write_text("\n".join([json.dumps(record), *rest]) + "\n")
    text = " ".join(Page(rendered([load(copy)], "")).text())
    assert record["command"] in text
    assert "git checkout" not in text


CAPTIONS = {"toy": {"finding": "LVC <wins> & stays", "caption": "Bands are 95% intervals\nover 4 MDPs."}}


def test_the_finding_of_the_main_picture_is_the_headline_and_pictures_are_told_of(vectors):
    figures = vectors / "figures"
    shutil.copy(figures / "toy.png", figures / "another.png")
    (figures / "captions.json").write_text(json.dumps(CAPTIONS))
    run = load(vectors)
    assert [figure.name for figure in run.figures] == ["toy", "another"]
    assert run.headline == "LVC <wins> & stays"
    parsed = Page(rendered([run], ""))
    assert parsed.text("p")[0] == run.headline
    assert parsed.text("strong") == [f"{run.headline}."]
    assert "Bands are 95% intervals over 4 MDPs." in parsed.text("span")
    assert Page(rendered([run, run], "")).text("p").count(run.headline) == 2


def test_the_main_picture_comes_first(vectors):
    figures = vectors / "figures"
    shutil.copy(figures / "toy.png", figures / "headline.png")
    (figures / "captions.json").write_text(
        json.dumps(CAPTIONS | {"headline": {"finding": "All in one", "caption": ""}})
    )
    run = load(vectors)
    assert [figure.name for figure in run.figures] == ["headline", "toy"]
    assert run.headline == "All in one"


def test_a_run_whose_pictures_say_nothing_has_no_headline(page, finished, tmp_path):
    assert load(finished).headline == "The larger the better"
    assert "headline" in [attrs.get("class") for attrs in Page(page).of("p")]
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "figures" / "captions.json").unlink()
    silent = load(tmp_path / "copy")
    assert silent.headline == ""
    parsed = Page(rendered([silent], ""))
    assert "headline" not in [attrs.get("class") for attrs in parsed.of("p")]
    assert "toy" in parsed.text("span")


def test_figures_come_before_the_numbers_and_these_before_the_claims(page):
    heads = Page(page).text("h3")
    assert heads[:4] == ["Figures", "Explore the numbers", "Claims", "Summary"]


def test_the_curves_of_a_run_are_there_to_be_touched(finished):
    (chart,) = load(finished).charts
    frame = read_results(finished / "results.csv")
    assert (chart["x"], chart["over"], chart["line"], chart["metrics"]) == (
        "size",
        "mdp",
        "estimator",
        ["accuracy", "bias"],
    )
    assert list(chart["looks"]) == ["ad", "lvc", "mine"]
    rows = {(name, x): numbers for _, name, x, *numbers in chart["rows"]}
    assert set(rows) == {(name, x) for name in chart["looks"] for x in (2, 4, 8)}
    values = frame[(frame["estimator"] == "lvc") & (frame["size"] == 4)]["accuracy"]
    interval = mean_interval(values)
    assert rows["lvc", 4][:3] == pytest.approx([interval.mean, interval.low, interval.high], rel=1e-3)
    assert rows["lvc", 2][3:] == [None, None, None]  # not measured


def test_an_unfinished_run_has_nothing_to_be_touched(unfinished):
    assert load(unfinished).charts == []


KINDS = [
    None, {}, {"by": ["estimator"], "x": "nowhere", "y": ["accuracy"], "figures": []},
    {"by": ["estimator"], "x": "size", "y": ["nowhere"], "figures": []},
    {"by": ["estimator"], "x": "estimator", "y": ["accuracy"], "figures": []},
    {"by": [], "x": "size", "y": ["estimator"], "figures": []},
    {"by": "estimator", "x": "size", "y": ["accuracy"], "figures": []},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_curves_that_results_lack_are_left_out(finished, tmp_path, kind):
    shutil.copytree(finished, tmp_path / "copy")
    file = tmp_path / "copy" / "sessions.jsonl"
    begun, *rest = file.read_text().splitlines()
    known = json.loads(begun)
    file.write_text("\n".join([json.dumps(known | {"curves": [kind, *known["curves"]]}), *rest]) + "\n")
    assert load(tmp_path / "copy").charts == load(finished).charts


def test_curves_of_seeds_that_name_no_units_are_averaged_over_the_seeds():
    frame = pd.DataFrame({"seed": [0, 0, 1, 1], "update": [1, 2, 1, 2], "score": [1.0, 2.0, 3.0, 4.0]})
    kind = {"by": ["seed"], "x": "update", "y": ["score"], "over": None, "figures": []}
    (chart,) = charts([kind], frame)
    assert [row[2:4] for row in chart["rows"]] == [[1, 2.0], [2, 3.0]]
    assert chart["over"] == "seed"


def test_intervals_of_a_table_are_those_of_each_mean():
    frame = pd.DataFrame({
        "name": ["a"] * 6 + ["b"], "unit": [0, 0, 1, 2, 2, 3, 0], "y": [1.0, 3.0, 5.0, 2.0, 4.0, np.nan, 7.0],
    })  # fmt: skip
    table = interval_table(frame, ["name"], "unit", ["y"]).set_index("name")
    interval = mean_interval([2.0, 5.0, 3.0])
    assert table.loc["a"].to_list() == pytest.approx([interval.low, interval.mean, interval.high])
    assert table.loc["b", "y"] == 7.0
    assert table.loc["b", ["y_low", "y_high"]].isna().all()


def test_long_curves_are_thinned_and_keep_their_end():
    frame = pd.DataFrame({"unit": 0, "x": range(1000), "y": 0.5})
    (chart,) = charts([{"by": [], "x": "x", "y": ["y"], "over": "unit", "figures": []}], frame)
    assert len(chart["rows"]) == 100
    assert chart["rows"][-1][2] == 999


DAMAGED = {
    "figures/captions.json": [b"[1]", b"null", b'{"toy": 1}', b"\xff\xfe"],
    "results.csv": [b"", b"\xff\xfe"],
    "claims.json": [b"[1]", b"null", b"{}", b'[{"id": "A"}]', b"\xff\xfe[]"],
    "config.yaml": [b"app: toy\nrun_id: a\nsettings: 1", b"null", b"\xff\xfe\xfd"],
    "figures/toy.svg": [b"\xff\xfe"],
    "summary.csv": [b"", b"\xff\xfe"],
}


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in DAMAGED.items() for text in texts])
def test_a_damaged_file_is_one_line(finished, tmp_path, name, content):
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / name).write_bytes(content)
    with pytest.raises(BadInput, match=rf"expected .*/copy/{name.partition('.')[0]}.* as the apps write it, got "):
        load(tmp_path / "copy")


SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from([10**400]) | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from([
    "app", "run_id", "settings", "id", "claim", "verdict", "measured", "event", "begun", "computed", "cells", "seconds",
    "time", "command", "versions", "machine", "launcher", "workers", "untracked", "curves", "git_commit", "folder",
    "comparisons", "label", "outcome", "low", "mean", "high", "delta", "bound", "metric", "units",
])  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=6)
)
BEGUN = {"event": "begun", "command": "c", "versions": {}, "machine": {}, "launcher": "local"}
COMPUTED = {"event": "computed", "computed": 1, "cells": 1, "seconds": 1, "time": ""}
CLAIM = dict.fromkeys(("id", "claim", "verdict", "measured"), "")
COMPARISON = {"label": "a > b", "outcome": "supported", "low": 0.1, "mean": 0.2, "high": 0.3, "delta": 0.05}
COMPARED = CLAIM | {"comparisons": [COMPARISON, COMPARISON | {"bound": 0.9, "delta": None}]}
ALMOST = st.builds(lambda whole, other: whole | other, st.sampled_from([BEGUN, COMPUTED, CLAIM, COMPARED]),
    st.dictionaries(NAMES, VALUES, max_size=3))  # fmt: skip
ODD = st.binary(max_size=40) | st.builds(lambda value: json.dumps(value).encode(), VALUES | ALMOST | st.lists(ALMOST))


@given(st.dictionaries(st.sampled_from([*DAMAGED, "sessions.jsonl", "figures/toy.png"]), ODD, min_size=1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_whatever_is_in_a_run_directory_gives_a_page_or_one_line(finished, tmp_path_factory, odd):
    copy = tmp_path_factory.mktemp("odd") / "run"
    shutil.copytree(finished, copy)
    for name, content in odd.items():
        (copy / name).write_bytes(content)
    with contextlib.suppress(BadInput):
        Page(rendered([load(copy)], "command"))


@pytest.mark.parametrize("name", ["config.yaml", "claims.json", "summary.csv", "figures/toy.svg"])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_one_line(finished, tmp_path, name):
    for make in (os.mkfifo, os.mkdir):
        path = tmp_path / make.__name__
        shutil.copytree(finished, path)
        (path / name).unlink(missing_ok=True)
        make(path / name)
        with pytest.raises(BadInput, match=r"^(expected|cannot read) "):
            load(path)


def test_cells_that_vanished_after_the_end_are_said(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    next((tmp_path / "copy" / "cells").iterdir()).unlink()
    text = " ".join(Page(rendered([load(tmp_path / "copy")], "")).text())
    assert "Incomplete: only 11 of its 12 cells are still in the run directory." in text
    assert "Incomplete" not in rendered([load(finished)], "")


def test_cells_of_several_kinds_of_machine_are_said(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    cell = next((tmp_path / "copy" / "cells").iterdir())
    kind = json.loads(cell.read_text())["computed_on"]
    cell.write_text(cell.read_text().replace(kind, "another"))
    text = " ".join(Page(rendered([load(tmp_path / "copy")], "")).text())
    assert "Several kinds of machine" in text
    assert f"11 on {kind}" in text
    assert "1 on another" in text
    assert "Several kinds" not in rendered([load(finished)], "")


LINES = [b"1", b"null", b'{"event": "begun"}', b'{"event": []}', b'{"event": "computed", "computed": 3}', b"\xff\xfe"]


def test_damaged_lines_of_sessions_are_left_out(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    whole = rendered([load(tmp_path / "copy")], "")
    file = tmp_path / "copy" / "sessions.jsonl"
    file.write_bytes(b"\n".join([*LINES, file.read_bytes()]))
    assert rendered([load(tmp_path / "copy")], "") == whole
    file.write_bytes(b"\n".join(LINES))
    assert "The command was not recorded" in rendered([load(tmp_path / "copy")], "")


def test_a_record_begins_a_line_also_after_a_torn_one(tmp_path):
    from gm_lab.run import provenance

    provenance.record(tmp_path, event="one")
    with (tmp_path / "sessions.jsonl").open("a") as file:
        file.write('{"event": "to')
    provenance.record(tmp_path, event="two", name="é")
    provenance.record(tmp_path, event="three")
    assert [line["event"] for line in provenance.sessions(tmp_path)] == ["one", "two", "three"]


def test_only_figures_wider_than_a_phone_are_scrolled(finished, vectors, monkeypatch):
    for path in (finished, vectors):
        with monkeypatch.context() as patch:
            patch.setattr("gm_lab.analysis.report.WIDE_POINTS", 1000.0)
            assert 'class="drawing wide"' not in rendered([load(path)], "")
            patch.setattr("gm_lab.analysis.report.WIDE_POINTS", 200.0)
            assert '<div class="drawing wide" tabindex="0"><img' in rendered([load(path)], "")


def test_the_command_of_ones_own_module(tmp_path):
    """With PYTHONPATH and the folder it was typed in, and what no commit has is named."""
    own = tmp_path / "with space"
    own.mkdir()
    (own / "mine.py").write_text("")
    code = f"import sys, mine, runpy; sys.argv[0] = {TOY!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    variables = {"PYTHONPATH": str(own), "WANDB_MODE": "disabled"}
    command = [sys.executable, "-c", code, "--run-dir", "run", "--workers", "1"]
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | variables, capture_output=True)
    begun = load(tmp_path / "run").begun
    assert begun["command"] == f"PYTHONPATH='{own}' uv run {TOY} --run-dir run --workers 1"
    assert begun["folder"] == str(tmp_path)
    assert "mine" in begun["untracked"]
    texts = Page(rendered([load(tmp_path / "run")], "")).text()
    assert {f"In no commit: {', '.join(begun['untracked'])}.", str(tmp_path)} <= set(texts)


def test_what_is_no_run_directory_is_refused(tmp_path, finished):
    with pytest.raises(BadInput, match=r"expected a run directory, got .*nowhere, which doesn't exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"expected a run directory, got .*, which has no config\.yaml"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("- 1")
    with pytest.raises(BadInput, match=r"expected .*/config\.yaml as the apps write it, got another or a damaged file"):
        load(tmp_path)


def test_flags_win_over_wandbs_variables(finished, tmp_path, monkeypatch, capfd):
    told = []
    monkeypatch.setattr("gm_lab.track.wandb_report.published", lambda runs, *where: told.append(where))
    monkeypatch.setenv("WANDB_ENTITY", "us")
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    for flags in ([], ["--project", "p"], ["--entity", "e"], ["--entity", "e", "--project", "p"]):
        assert gm_lab.report_command.main([str(finished), "--out", str(tmp_path / "page.html"), *flags]) == 0
    assert told == [("us", "p"), ("e", "ours"), ("e", "p")]
    for name in ("WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(name)
    assert gm_lab.report_command.main([str(finished), "--project", "p"]) == 2


def test_words_of_a_drawing():
    drawing = (
        "<!-- trajectories --><!-- 0.5 --><!-- $\\mathdefault{10^{2}}$ --><!-- AD &amp; LVC --><!-- trajectories -->"
    )
    texts = [html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", drawing)]
    assert words(texts) == ["trajectories", "AD & LVC"]


@pytest.fixture
def account(monkeypatch, tmp_path):
    import wandb

    def call(url, key="a" * 40):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        monkeypatch.setenv("WANDB_API_KEY", key)
        wandb.teardown()  # it remembers the environment of its first use

    yield call
    wandb.teardown()


def test_the_report_on_wandb(stand_in, account, finished, unfinished, capfd):
    with stand_in() as server:
        account(server.url)
        link = published([load(finished), load(unfinished)], "me", "paper")
    assert "reports" not in "".join(capfd.readouterr())  # the app prints the link, nobody else
    assert server.unknown == []
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "paper", "toy")
    assert link.startswith(f"{server.url}/me/paper/reports/toy--")
    spec = json.loads(view["spec"])
    text = json.dumps(spec, ensure_ascii=False)
    (claim,) = json.loads((finished / "claims.json").read_text())
    assert claim["claim"] in text
    assert '"toy: stopped"' in text
    assert "Unfinished: 8 of 12 cells are computed." in text
    begun = json.loads((finished / "sessions.jsonl").read_text().splitlines()[0])
    assert begun["command"] in text
    figures, curves, *_ = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    (media,) = (panel["config"] for panel in figures["panelBankSectionConfig"]["panels"])
    assert media["mediaKeys"] == ["figures/toy"]
    lines = [panel["config"] for panel in curves["panelBankSectionConfig"]["panels"]]
    assert [(line["xAxis"], line["yAxisTitle"]) for line in lines] == [("size", "accuracy"), ("size", "bias")]
    (runs,) = curves["runSets"]
    assert runs["project"]["name"] == "toy"
    run_id = (finished / "config.yaml").read_text().split("run_id: ")[1].split()[0].strip("'")
    assert f"toy-{run_id}" in json.dumps(runs["filters"])


def test_a_report_without_an_account_is_one_line(account, finished):
    account("http://127.0.0.1:9", key="")
    reason = r"127\.0\.0\.1 has no API key configured \(run `wandb login`\); the page above needs neither"
    with pytest.raises(BadInput, match=f"--entity, --project: {reason}"):
        published([load(finished)], "me", "paper")


def test_a_report_that_the_server_refuses_is_one_line(stand_in, account, finished):
    with stand_in(refuse=True) as server:
        account(server.url)
        with pytest.raises(BadInput, match="--entity, --project: W&B: ") as error:
            published([load(finished)], "me", "paper")
    assert "\n" not in str(error.value)


def test_a_picture_has_every_comparison_with_its_interval_and_the_band_that_does_not_matter():
    found = forest_of([COMPARISON, COMPARISON | {"low": None, "mean": None, "high": None}, COMPARED["comparisons"][1]])
    first, unmeasured, bounded = found["rows"]
    per_unit = (first["high"] - first["low"]) / 0.2
    assert first["band"][1] == pytest.approx(0.1 * per_unit, abs=0.2)
    assert first["mean"] - found["zero"] == pytest.approx(0.2 * per_unit, abs=0.2)
    assert first["band"][0] + first["band"][1] / 2 == pytest.approx(found["zero"], abs=0.2)
    assert (unmeasured["low"], unmeasured["mean"], unmeasured["label"]) == (None, None, "a > b")
    assert bounded["band"][0] - found["zero"] == pytest.approx(0.9 * per_unit, abs=0.5)
    page = Page(rendered([run_with(COMPARED)], "command"))
    assert sum("a > b" in text for text in page.text()) >= 2


def run_with(claim):
    """A run with one claim."""
    return Run(Path("x"), "toy", "1", {}, True, 1, 1, [claim_of(claim)], None, [], [], {})


def test_verdicts_as_a_markdown_table_with_those_of_other_runs_beside_them(finished, toy, tmp_path, capsys):
    grown = tmp_path / "grown"
    flags = ["--run-dir", str(grown), "--workers", "1", "--wandb", "disabled", "--mdps", "10", "--until-decided"]
    assert gm_lab.main(toy.EXPERIMENT, flags) == 0
    capsys.readouterr()
    assert gm_lab.report_command.main(["--table", str(grown), str(finished)]) == 0
    head, _, line = capsys.readouterr().out.splitlines()
    assert head == "| claim | verdict | measured | at the paper's budget: 4 MDPs |"
    (claim,) = json.loads((grown / "claims.json").read_text())
    assert line.startswith(f"| TOY-1: lvc > ad | **{claim['verdict']}** | {claim['measured']} | undecided: about ")
    assert not (grown / "report.html").exists()
